"""CIFAR-10 and CIFAR-100, "python version": pickled rows of 3,072 bytes, as torchvision unpacks them."""

import pickle
from pathlib import Path

import numpy as np
import torch

from lib.core.errors import UserError
from lib.core.randomness import numpy_generator
from lib.datasets import Options
from lib.datasets.split import Split


def cifar10(root: Path, split: str, options: Options) -> Split:
    """Ten classes, 3 x 32 x 32: 50,000 and 10,000."""
    folder = root / "cifar-10-batches-py"
    files = ["test_batch"] if split == "test" else [f"data_batch_{number}" for number in range(1, 6)]
    return _load("cifar10", split, root, folder, files, "labels")


def cifar100(root: Path, split: str, options: Options) -> Split:
    """A hundred fine classes, 3 x 32 x 32: 50,000 and 10,000."""
    return _load("cifar100", split, root, root / "cifar-100-python", [split], "fine_labels")


def cifar100coarse(root: Path, split: str, options: Options) -> Split:
    """The same images in twenty classes of five."""
    return _load("cifar100coarse", split, root, root / "cifar-100-python", [split], "coarse_labels")


def one_of_each(root: Path, seed: int) -> tuple[int, ...]:
    """One fine class of each coarse class of CIFAR-100, drawn by the seed (nearest-category paper, section 2), ascending.

    The draw is ours: the paper's own is not published.
    """
    content = read_batch(root / "cifar-100-python" / "test")
    fine_of: dict[int, set[int]] = {}
    for fine, coarse in zip(content["fine_labels"], content["coarse_labels"], strict=True):
        fine_of.setdefault(coarse, set()).add(fine)
    draw = numpy_generator(seed, "one class of each")
    return tuple(sorted(int(draw.choice(sorted(fine_of[coarse]))) for coarse in sorted(fine_of)))


def class_names(name: str, root: Path) -> tuple[str, ...]:
    """The names in the list that comes with the set called `name`."""
    folder, meta, key = {
        "cifar10": ("cifar-10-batches-py", "batches.meta", "label_names"),
        "cifar100": ("cifar-100-python", "meta", "fine_label_names"),
        "cifar100coarse": ("cifar-100-python", "meta", "coarse_label_names"),
    }[name]
    return tuple(read_batch(root / folder / meta).get(key, ()))


def _load(name: str, split: str, root: Path, folder: Path, files: list[str], key: str) -> Split:
    images, labels = [], []
    for file in files:
        content = read_batch(folder / file)
        data = content.get("data")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            raise UserError(f"{folder / file}: holds no images (n, 3072) of unsigned bytes; download it again")
        if len(content.get(key, ())) != len(data):
            raise UserError(f"{folder / file}: {len(content.get(key, ()))} {key} for {len(data)} images")
        images.append(torch.from_numpy(data).view(-1, 3, 32, 32))
        labels += content[key]
    images, labels = torch.cat(images), torch.tensor(labels, dtype=torch.int64)
    return Split(name, split, images, labels, classes=class_names(name, root), augmentation="crop-flip")


def read_batch(file: Path) -> dict:
    """The dictionary in a pickled batch, which may hold arrays, lists, strings and numbers but no other objects."""
    try:
        with open(file, "rb") as stream:
            content = _Plain(stream, encoding="latin1").load()
    except Exception as error:  # what a broken pickle asks for may fail in any way
        raise UserError(f"{file}: cannot be read ({error}); remove it and download it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no dictionary; remove it and download it again")
    return content


class _Plain(pickle.Unpickler):
    """Unpickling runs whatever function a file names; here it may name only what NumPy arrays are built from."""

    MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy", "_codecs", "numpy._core.numeric")
    NAMES = ("_reconstruct", "ndarray", "dtype", "encode", "_frombuffer")

    def find_class(self, module: str, name: str):
        if module in self.MODULES and name in self.NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no batch of images does")
