"""Unpacking archives from the network: nothing outside the folder, no links or devices, no more than fits."""

import contextlib
import gzip
import io
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from lib.core.errors import UserError

BLOCK = 1 << 20
MOST_BYTES = 400 << 30  # unpacked; ImageNet has 150 GB
MOST_FILES = 5_000_000
MOST_RATIO = 200  # unpacked to packed; pictures do not compress, label files a little
MOST_AT_ONCE = 1 << 24  # bytes that one entry of an archive may make its reader read: names, and the blocks of contents
MOST_IN_MEMORY = 1 << 28  # of a file that is unpacked as it is read; MNIST's largest has 47 MB

# what the readers of archives raise for contents that are damaged, encrypted, or packed in ways they do not know
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    struct.error,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    RuntimeError,
)


def unpack(archive: Path, folder: Path, name: str) -> Path:
    """The file or folder called `name` that the archive (.tar, .tar.gz, .tgz, .zip, .gz, or itself) puts into `folder`.

    Raises a UserError, having written nothing outside `folder`, if a member has an absolute path or one with "..", is
    neither file nor folder, or if the contents are implausibly large or exceed the free space.
    """
    limit = _limit(archive, folder)
    with refused(archive):
        if archive.name.endswith((".tar", ".tar.gz", ".tgz")):
            _extract(archive, folder, _tar_members(archive), limit)
        elif archive.name.endswith(".zip"):
            _extract(archive, folder, _zip_members(archive), limit)
        elif archive.name.endswith(".gz"):
            with gzip.open(archive) as source:
                _copy(source, folder / name, limit, archive)
        else:
            shutil.copyfile(archive, folder / name)
    if not (folder / name).exists():
        raise UserError(f"{archive}: holds no {name}")
    return folder / name


def gzip_content(file: Path) -> bytes:
    """What a small file unpacks to. Raises a UserError for one that is damaged or unpacks to more than is plausible."""
    with refused(file), gzip.open(file) as source:
        content = source.read(MOST_IN_MEMORY + 1)
    if len(content) > MOST_IN_MEMORY:
        raise UserError(f"{file}: unpacks to more than is plausible; not unpacked")
    return content


@contextlib.contextmanager
def refused(archive: Path) -> Generator[None]:
    """Makes one sentence of whatever is wrong with an archive, and of names that the file system does not take."""
    try:
        yield
    except BROKEN as error:
        raise UserError(f"{archive}: cannot be unpacked ({str(error) or type(error).__name__})") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked ({error.strerror or error})") from None


def _limit(archive: Path, folder: Path) -> int:
    free = shutil.disk_usage(folder).free
    return min(MOST_BYTES, free, max(MOST_RATIO * archive.stat().st_size, BLOCK))


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Names and contents, None for a folder."""
    with open(archive, "rb") as packed:
        zipped = packed.read(2) == b"\x1f\x8b"
        packed.seek(0)
        stream = _Stream(gzip.GzipFile(fileobj=packed) if zipped else packed)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.isdir():
                    yield member.name, None
                elif member.isreg():
                    yield member.name, tar.extractfile(member)
                else:
                    raise UserError(f"{archive}: {member.name} is a link or a device; not unpacked")
            if stream.last.strip(b"\0"):  # no header, at which the reader stops as at the end
                raise tarfile.ReadError(f"damaged at byte {tar.offset}")


class _Stream(io.BufferedIOBase):
    """The bytes of an archive, of which no entry can ask for more at once than memory has."""

    def __init__(self, source: IO[bytes] | gzip.GzipFile) -> None:
        self._source = source
        self.last = b""  # what was read last

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MOST_AT_ONCE:
            raise tarfile.ReadError(f"an entry that asks for {size} bytes at once")
        self.last = self._source.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()


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
        if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
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
