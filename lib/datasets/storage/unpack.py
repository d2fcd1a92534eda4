"""Unpacking archives from the network: nothing outside the folder, no links or devices, no more than fits."""

import gzip
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from lib.core.errors import UserError

BLOCK = 1 << 20
MOST_BYTES = 400 << 30  # unpacked; ImageNet has 150 GB
MOST_FILES = 5_000_000
MOST_RATIO = 200  # unpacked to packed; pictures do not compress, label files a little


def unpack(archive: Path, folder: Path, name: str) -> Path:
    """The file or folder called `name` that the archive (.tar, .tar.gz, .tgz, .zip, .gz, or itself) puts into `folder`.

    Raises a UserError, having written nothing outside `folder`, if a member has an absolute path or one with "..", is
    neither file nor folder, or if the contents are implausibly large or exceed the free space.
    """
    limit = _limit(archive, folder)
    try:
        if archive.name.endswith((".tar", ".tar.gz", ".tgz")):
            _extract(archive, folder, _tar_members(archive), limit)
        elif archive.name.endswith(".zip"):
            _extract(archive, folder, _zip_members(archive), limit)
        elif archive.name.endswith(".gz"):
            with gzip.open(archive) as source:
                _copy(source, folder / name, limit, archive)
        else:
            shutil.copyfile(archive, folder / name)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error})") from None
    if not (folder / name).exists():
        raise UserError(f"{archive}: holds no {name}")
    return folder / name


def _limit(archive: Path, folder: Path) -> int:
    free = shutil.disk_usage(folder).free
    return min(MOST_BYTES, free, max(MOST_RATIO * archive.stat().st_size, BLOCK))


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Names and contents, None for a folder."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isdir():
                yield member.name, None
            elif member.isreg():
                yield member.name, tar.extractfile(member)
            else:
                raise UserError(f"{archive}: {member.name} is a link or a device; not unpacked")


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise UserError(f"{archive}: {member.filename} is a link; not unpacked")
            if member.is_dir():
                yield member.filename, None
            else:
                with packed.open(member) as source:
                    yield member.filename, source


def _extract(archive: Path, folder: Path, members: Iterator[tuple[str, IO[bytes] | None]], limit: int) -> None:
    for count, (name, source) in enumerate(members, 1):
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[:1]:
            raise UserError(f"{archive}: {name} would be written outside the folder; not unpacked")
        if count > MOST_FILES:
            raise UserError(f"{archive}: holds more than {MOST_FILES} files; not unpacked")
        target = folder / path
        if source is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        limit -= _copy(source, target, limit, archive)


def _copy(source: IO[bytes] | gzip.GzipFile, target: Path, limit: int, archive: Path) -> int:
    """The bytes written; what an archive says about its sizes is not believed, but counted."""
    written = 0
    with open(target, "wb") as file:
        while block := source.read(BLOCK):
            written += len(block)
            if written > limit:
                raise UserError(f"{archive}: unpacks to more than is plausible or free on the disk; not unpacked")
            file.write(block)
    return written
