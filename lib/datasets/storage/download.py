"""Getting data sets: download, checksum, unpack. An interrupted download continues; nothing half unpacked is ever seen.

Addresses and checksums are torchvision's, for the corrupted sets those of Zenodo records 2535967 and 3555552, and for
Waterbirds that of group-DRO's authors. An archive that was put under the data root by hand is unpacked from there.
"""

import contextlib
import hashlib
import http.client
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib.core.errors import UserError
from lib.core.registry import near
from lib.datasets import catalogue
from lib.datasets.names import parse
from lib.datasets.storage import unpack

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte

Progress = Callable[[str, int, int | None], None]  # the file, bytes so far, bytes in all if known


@dataclass(frozen=True)
class Archive:
    """One file to fetch: the addresses to try in turn, its MD5, and the file or folder that it unpacks to."""

    urls: tuple[str, ...]
    md5: str  # "": none is published
    target: str  # relative to the data root
    by_hand: str = ""  # where it is looked for, relative to the data root, if not directly below it

    @property
    def file(self) -> str:
        return self.urls[0].split("?")[0].rsplit("/", 1)[-1]

    def put(self, root: Path) -> Path | None:
        """The archive that somebody put under the data root."""
        archive = root / (self.by_hand or self.file)
        return archive if archive.is_file() else None


def prepare(text: str, root: str | Path, progress: Progress | None = None) -> list[Path]:
    """Gets the data set that `text` names under `root`, and returns its files; does nothing where all are there.

    Raises a UserError for a set that has to be got by hand, a failed download, a wrong checksum and a full disk.
    """
    root, name = Path(root), registered(text)
    entry = catalogue.KNOWN[name]
    if not catalogue.missing(root, entry):
        return catalogue.present(root, entry)
    if entry.obtain != catalogue.PREPARE and not (name in BY_HAND and BY_HAND[name].put(root)):
        raise UserError(f"{name}: cannot be downloaded from here; {catalogue.way_out(name, entry, root)}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        for archive in archives(name):
            if any(path in catalogue.missing(root, entry) for path in _beneath(archive.target, entry)):
                if put := archive.put(root):
                    _install(checked(archive, put), root / archive.target)
                    continue
                packed = download(archive, root / ".downloads", progress)
                _install(packed, root / archive.target)
                packed.unlink()
        with contextlib.suppress(OSError):  # other downloads may be under way in it
            (root / ".downloads").rmdir()
    except OSError as error:
        raise UserError(f"{name}: cannot be written under {root} ({error})") from None
    return catalogue.require(name, entry, root)


def registered(text: str) -> str:
    """The catalogue's name for the files behind a data set: "cifar10" for "cifar10-wo0:ood"."""
    data = parse(text)
    name = f"{data.base}-c" if data.corrupted and f"{data.base}-c" in catalogue.KNOWN else data.base
    if name not in catalogue.KNOWN:
        raise UserError(f"{text}: not a registered data set; {near(name, catalogue.KNOWN)}")
    return name


def archives(name: str) -> list[Archive]:
    """What there is to fetch or to unpack for a set whose `obtain` is PREPARE, or which is in BY_HAND."""
    for listed in (DIRECT, BY_HAND):
        if name in listed:
            return [listed[name]]
    from torchvision import datasets  # slow to import, and only needed to download

    if name == "svhn":
        return [Archive((url,), md5, file) for url, file, md5 in list(datasets.SVHN.split_list.values())[:2]]
    if name in ("cifar10", "cifar100", "cifar100coarse"):
        source = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
        return [Archive((source.url,), source.tgz_md5, source.base_folder)]
    source = {"fashionmnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}.get(name, datasets.MNIST)
    raw = f"{source.__name__}/raw"
    return [
        Archive(tuple(mirror + file for mirror in source.mirrors), md5, f"{raw}/{file.removesuffix('.gz')}")
        for file, md5 in source.resources
    ]


DIRECT = {
    "cifar10-c": Archive(
        ("https://zenodo.org/records/2535967/files/CIFAR-10-C.tar?download=1",),
        "56bf5dcef84df0e2308c6dcbcbbd8499",
        "CIFAR-10-C",
    ),
    "cifar100-c": Archive(
        ("https://zenodo.org/records/3555552/files/CIFAR-100-C.tar?download=1",),
        "11f0ed0f1191edbf9fa23466ae6021d3",
        "CIFAR-100-C",
    ),
    "waterbirds": Archive(
        ("https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz",),
        "",
        "waterbird_complete95_forest2water2",
    ),
}
_FACES = Archive((), "00d2c5bc6d35e252742224ab0c1e8fcb", "celeba/img_align_celeba", "celeba/img_align_celeba.zip")
# Archives that have to be got by hand, and are then unpacked.
BY_HAND = {
    "celeba": _FACES,
    "multiceleba": _FACES,
    "imagenet-a": Archive((), "", "imagenet-a", "imagenet-a.tar"),
    "imagenet-r": Archive((), "", "imagenet-r", "imagenet-r.tar"),
    "tinyimagenet": Archive((), "", "tiny-imagenet-200", "tiny-imagenet-200.zip"),
}


def download(archive: Archive, folder: Path, progress: Progress | None = None) -> Path:
    """The archive in `folder`, checked; what an earlier attempt left in `<file>.part` is continued."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, part = folder / archive.file, folder / f"{archive.file}.part"
    failures = []
    for url in archive.urls:
        try:
            _stream(url, part, progress)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            failures.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        try:
            return checked(archive, part).replace(whole)
        except UserError as error:
            part.unlink()
            failures.append(f"{url}: {error}")
    raise UserError(f"{archive.file}: download failed ({'; '.join(failures)}); the same command tries it again")


def checked(archive: Archive, packed: Path) -> Path:
    """The packed file, if its MD5 is the one that is published."""
    if archive.md5 and (md5 := file_md5(packed)) != archive.md5:
        raise UserError(f"{packed}: the MD5 is {md5} instead of {archive.md5}")
    return packed


def file_md5(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _stream(url: str, part: Path, progress: Progress | None) -> None:
    """Appends to `part` what is still lacking; a server that knows no ranges sends everything again."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing lies behind the bytes we have
            return
        raise
    with response:
        continued = response.status == 206
        done = done if continued else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with open(part, "ab" if continued else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                if progress:
                    progress(part.stem, done, total)
    if total is not None and done < total:
        raise ConnectionError(f"it ended after {done} of {total} bytes")


def _install(packed: Path, target: Path) -> None:
    """Unpacks beside `target` and renames; into a folder that is there already, file by file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as temporary:
        unpacked = unpack.unpack(packed, Path(temporary), target.name)
        if target.is_dir():
            for file in sorted(path for path in unpacked.rglob("*") if path.is_file()):
                destination = target / file.relative_to(unpacked)
                destination.parent.mkdir(parents=True, exist_ok=True)
                file.replace(destination)
        else:
            shutil.move(unpacked, target)


def _beneath(target: str, entry: catalogue.Known) -> list[str]:
    """The entry's files that an archive unpacking to `target` holds."""
    return [first for first, *_ in entry.files if first == target or first.startswith(f"{target}/")]
