"""CIFAR-5M: six million synthetic images after CIFAR-10, 18 GB that stay on disk (the stitching paper, section 6).

Six archives `cifar5m/cifar5m_part<i>.npz`, or `part<i>.npz` as the public bucket names them, each with images X
(n, 32, 32, 3) uint8 and labels Y (n,). An archive's member that is stored uncompressed is an `.npy` file within a file
and can be mapped as such.
"""

import hashlib
import os
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from lib.core import cache_folders, checked_arrays, files
from lib.core.errors import UserError
from lib.core.text import as_bytes
from lib.datasets import Options, catalogue
from lib.datasets.sets import cifar
from lib.datasets.split import Split
from lib.datasets.storage.lazy_images import JoinedImages, MappedImages

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar5m(root: Path, split: str, options: Options) -> Split:
    """All parts for training; the test split is CIFAR-10's, as the images are made to resemble those."""
    if split == "test":
        catalogue.require("cifar10", catalogue.KNOWN["cifar10"], root)
        return cifar.cifar10(root, "test", options)
    images, labels = [], []
    for file in catalogue.require("cifar5m", catalogue.KNOWN["cifar5m"], root):
        x, y = member(file, "X", options.cache), member(file, "Y", options.cache)
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != (32, 32, 3) or y.shape != (len(x),):
            raise UserError(f"{file}: X {x.shape} {x.dtype} and Y {y.shape} are not images (n, 32, 32, 3) and labels")
        images.append(MappedImages(x))
        labels.append(torch.from_numpy(np.asarray(y).astype(np.int64)))
    return Split("cifar5m", split, JoinedImages(images), torch.cat(labels), classes=CLASSES, augmentation="none")


def member(file: Path, name: str, cache: Path) -> np.ndarray:
    """The array `name` of an `.npz` archive, memory-mapped; a compressed one is first unpacked into the cache."""
    try:
        with zipfile.ZipFile(file) as archive:
            entry = archive.getinfo(f"{name}.npy")
            if entry.compress_type == zipfile.ZIP_STORED:
                return _map(file, _start(file, entry))
            return _map(_unpacked(file, archive, entry, cache_folders.folder(cache, "unpacked")), 0)
    except KeyError:
        raise UserError(f"{file}: holds no array {name}") from None
    except files.NO_ARRAYS as error:
        raise UserError(f"{file}: cannot be read ({error}); is it whole?") from None


def _start(file: Path, entry: zipfile.ZipInfo) -> int:
    """Where the member's bytes begin: behind its local header of 30 bytes, its name and its extra field."""
    with open(file, "rb") as stream:
        stream.seek(entry.header_offset)
        name, extra = struct.unpack("<26x2H", stream.read(30))
    return entry.header_offset + 30 + name + extra


def _map(file: Path, start: int) -> np.memmap:
    """The `.npy` file that begins at byte `start`."""
    with open(file, "rb") as stream:
        stream.seek(start)
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        if dtype.hasobject:
            raise ValueError("it holds objects")
        return np.memmap(file, dtype, "c", stream.tell(), shape, "F" if fortran else "C")


def _unpacked(file: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, cache: Path) -> Path:
    key = hashlib.sha256(as_bytes(f"{file.resolve()} {files.identity(file.stat())} {entry.filename}")).hexdigest()
    target = cache / f"{key}.npy"
    if checked_arrays.read(target) is None:
        cache.mkdir(parents=True, exist_ok=True)
        if entry.file_size > shutil.disk_usage(cache).free:
            raise UserError(
                f"{file}: {entry.filename} unpacks to more than {cache} has room for; choose another --cache-dir"
            )
        handle, temporary = tempfile.mkstemp(dir=cache, prefix=".", suffix=".npy")
        try:
            with os.fdopen(handle, "wb") as copy, archive.open(entry) as packed:
                shutil.copyfileobj(packed, copy, 1 << 22)
            checked_arrays.seal(Path(temporary))
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return target
