"""Whether a data set is whole: its files, their checksums, the number of images in each split, and their labels."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lib import datasets
from lib.core import files
from lib.core.errors import UserError
from lib.datasets import catalogue
from lib.datasets.names import parse
from lib.datasets.storage import download, unpack

UNPACKED_MNIST = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: `found` equals `expected`, or not."""

    what: str  # "md5 of test_batch", "images in train", "labels in train"
    expected: str
    found: str

    @property
    def good(self) -> bool:
        return self.expected == self.found


def verify(text: str, root: str | Path, *, cache_dir: str | Path | None = None) -> list[Finding]:
    """Every finding about the data set that `text` names; reads all of it, and decodes every image of a folder.

    Raises the UserError that loading raises where something is missing or cannot be read.
    """
    root, data = Path(root), parse(text)
    name = f"{data.base}-c" if f"{data.base}-c" in catalogue.KNOWN and data.corrupted else data.base
    entry, whole = catalogue.KNOWN.get(name), str(replace(data, split=None)) if data.path else data.base
    if name.endswith("-c") and entry and entry.classes:
        return _arrays(name, entry.classes, root)
    findings = []
    if entry:
        files = catalogue.require(name, entry, root)
        expected = checksums(name)
        for file in files:
            if file.name in expected:
                findings.append(Finding(f"md5 of {file.name}", expected[file.name], download.file_md5(file)))
            elif file.suffix == ".gz" and file.stem in expected:  # packing again changes the packed file only
                unpacked = hashlib.md5(unpack.gzip_content(file)).hexdigest()
                findings.append(Finding(f"md5 of {file.stem}", expected[file.stem], unpacked))
        splits, sizes = entry.splits or ("all",), entry.sizes
    else:
        splits, sizes = datasets.splits(whole, root), ()
    from lib.datasets.storage.lazy_images import DecodedImages  # the first that needs torch

    for number, split in enumerate(splits):
        loaded = datasets.load(whole, root, split, cache_dir=cache_dir)
        if isinstance(loaded.images, DecodedImages):
            for _ in loaded.batches(64):
                pass
        count = f"{len(loaded):,}"
        findings.append(Finding(f"images in {split}", f"{sizes[number]:,}" if sizes else count, count))
        if entry and entry.groups:
            counts = loaded.groups.bincount(minlength=len(loaded.group_names)).tolist()
            findings.append(Finding(f"images per group in {split}", str(entry.groups[number]), str(tuple(counts))))
    return findings


def checksums(name: str) -> dict[str, str]:
    """MD5 by file name, as far as they are published."""
    if name in ("mnist", "cmnist", "cmnist-domainbed"):
        return UNPACKED_MNIST
    from torchvision import datasets as published  # slow to import

    if name in ("fashionmnist", "kmnist"):
        return dict((published.FashionMNIST if name == "fashionmnist" else published.KMNIST).resources)
    if name == "svhn":
        return {file: md5 for _, file, md5 in published.SVHN.split_list.values()}
    if name in ("celeba", "multiceleba"):
        return {file: md5 for _, md5, file in published.CelebA.file_list}
    if name in ("cifar10", "cifar100", "cifar100coarse"):
        source = published.CIFAR10 if name == "cifar10" else published.CIFAR100
        return dict(source.train_list + source.test_list) | {source.meta["filename"]: source.meta["md5"]}
    return {}


def _arrays(name: str, classes: int, root: Path) -> list[Finding]:
    """The shapes of the official corrupted arrays, and their labels; the archive was checked when it was downloaded."""
    findings, clean = [], name.removesuffix("-c")
    for file in catalogue.require(name, catalogue.KNOWN[name], root):
        try:
            array = np.load(file, mmap_mode="r")
        except files.NO_ARRAYS as error:
            raise UserError(f"{file}: cannot be read ({error}); is it whole?") from None
        expected = (50000,) if file.stem == "labels" else (50000, 32, 32, 3)
        findings.append(Finding(f"shape of {file.name}", str(expected), str(array.shape)))
    if findings[-1].good:  # labels.npy is the last
        first, *others = array.reshape(5, -1)
        same = 1 + sum(bool((block == first).all()) for block in others)
        findings.append(Finding("severities with the labels of the first", "5", str(same)))
        counts = sorted(set(np.unique(first, return_counts=True)[1].tolist()))
        findings.append(Finding("images per class", str(10000 // classes), ", ".join(map(str, counts))))
        if not catalogue.missing(root, catalogue.KNOWN[clean]):
            labels = datasets.load(clean, root, "test").labels.numpy()
            right = int((labels == first).sum()) if len(labels) == len(first) else 0
            findings.append(Finding("labels of the clean test images", "10000", str(right)))
    return findings
