"""MNIST and the sets of the same form: four arrays in IDX files, under `<Name>/raw` as torchvision has them."""

from pathlib import Path

import numpy as np
import torch

from lib.core.errors import UserError
from lib.datasets import Options
from lib.datasets.split import Split
from lib.datasets.storage import unpack

DIGITS = tuple(str(digit) for digit in range(10))
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def mnist(root: Path, split: str, options: Options) -> Split:
    """Handwritten digits, 1 x 28 x 28: 60,000 and 10,000."""
    return _load("mnist", root / "MNIST" / "raw", split, DIGITS, "crop")


def fashionmnist(root: Path, split: str, options: Options) -> Split:
    """Articles of clothing, 1 x 28 x 28: 60,000 and 10,000."""
    return _load("fashionmnist", root / "FashionMNIST" / "raw", split, CLOTHES, "crop-flip")


def kmnist(root: Path, split: str, options: Options) -> Split:
    """Handwritten Japanese characters, 1 x 28 x 28: 60,000 and 10,000."""
    return _load("kmnist", root / "KMNIST" / "raw", split, KUZUSHIJI, "crop")


def read_idx(file: Path) -> np.ndarray:
    """The uint8 array in an IDX file, or in the same file with .gz behind its name.

    The header is two zero bytes, the type (8: unsigned bytes), the number of axes, and each axis as a big-endian int32.
    """
    zipped = file.with_name(file.name + ".gz")
    try:
        content = file.read_bytes() if file.exists() else unpack.gzip_content(zipped)
    except UserError as error:
        raise UserError(f"{error}; remove it and download it again") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise UserError(f"{file}: is not an IDX file of unsigned bytes; remove it and download it again")
    axes = content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4 : 4 + 4 * axes], ">i4"))
    expected = 4 + 4 * axes + int(np.prod(shape, dtype=np.int64))
    if len(shape) != axes or len(content) != expected:
        raise UserError(f"{file}: has {len(content)} bytes instead of {expected}; remove it and download it again")
    return np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * axes).reshape(shape)


def _load(name: str, raw: Path, split: str, classes: tuple[str, ...], augmentation: str) -> Split:
    part = "train" if split == "train" else "t10k"
    images = read_idx(raw / f"{part}-images-idx3-ubyte")
    labels = read_idx(raw / f"{part}-labels-idx1-ubyte")
    if images.ndim != 3 or labels.shape != (len(images),):
        raise UserError(f"{raw}: {part} images {images.shape} and labels {labels.shape} do not belong together")
    images, labels = torch.from_numpy(images)[:, None], torch.from_numpy(labels).to(torch.int64)
    return Split(name, split, images, labels, classes=classes, augmentation=augmentation)
