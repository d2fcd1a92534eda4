"""Whether the files of a registered data set exist, and how to get them; names of augmentations and transforms.

Free of torch. The data sets themselves are described in `entries`.
"""

from collections.abc import Sequence
from pathlib import Path

from lib.core.errors import UserError
from lib.datasets import corruptions
from lib.datasets.entries import BUILT_IN, KNOWN, PREPARE, Known

# Training augmentations; the functions are described in `augment`.
AUGMENTATIONS = {
    "none": "lib.datasets.augment:none",
    "flip": "lib.datasets.augment:flip",
    "crop": "lib.datasets.augment:crop",
    "crop-flip": "lib.datasets.augment:crop_flip",
    "rotate-flip": "lib.datasets.augment:rotate_flip",
    "affine": "lib.datasets.augment:affine",
    "imagenet": "lib.datasets.augment:resized_crop_flip",
    "group-dro": "lib.datasets.augment:large_crop_flip",
}

# From a large image to a square, for evaluation; the functions are described in `crops`.
TRANSFORMS = {
    "shorter": "lib.datasets.storage.crops:shorter",
    "squash": "lib.datasets.storage.crops:squash",
    "square": "lib.datasets.storage.crops:square",
}

DECODERS = ("pil", "torchvision")  # of image files that are decoded as they are needed

# Images per epoch where all of them would be too many (the stitching paper, section 5).
EPOCH_IMAGES = {"cifar5m": 50_000}

# Channels and side of the images of registered sets as they load; of all others, images are decoded to 3 x 224 x 224.
SHAPES = {
    "digits": (1, 32),
    **dict.fromkeys(("digits-bg", "digits-colour", "patches", "svhn", "cifar5m", "300k"), (3, 32)),
    **dict.fromkeys(("cifar10", "cifar100", "cifar100coarse"), (3, 32)),
    **dict.fromkeys(("mnist", "fashionmnist", "kmnist"), (1, 28)),
    "cmnist": (3, 28),
    "cmnist-domainbed": (2, 28),
    "uniform-grey": (1, 224),
    "tinyimagenet": (3, 64),
}
DECODED = (3, 224)
OFFICIALLY_CORRUPTED = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C", "cifar100coarse": "CIFAR-100-C"}


def official_corruption(base: str, kind: str, severity: int, split: str, root: Path) -> list[Path]:
    """The official array of a corruption and its labels, or the folder of ImageNet-C's cell; empty: it is to be generated.

    ImageNet-C lies with or without the folders of its archives: `ImageNet-C/[blur/]defocus_blur/<level>/<wnid>/`.
    """
    if corruptions.own_file(kind) is not None:
        return []
    if base in ("imagenet", "imagenet100") and split == "val" and (root / "ImageNet-C").is_dir():
        folder = root / "ImageNet-C"
        cells = [*folder.glob(f"{kind}/{severity}"), *folder.glob(f"*/{kind}/{severity}")]
        if not cells:
            raise UserError(
                f"imagenet-c/{kind}-{severity}: {folder}/{kind}/{severity} is missing; "
                f"{way_out('imagenet-c', KNOWN['imagenet-c'], root)}"
            )
        return cells[:1]
    if base not in OFFICIALLY_CORRUPTED or split != "test":
        return []
    folder = root / OFFICIALLY_CORRUPTED[base]
    files = [folder / f"{kind}.npy", folder / "labels.npy"]
    if not folder.is_dir():
        return []
    for file in files:
        if not file.is_file():
            name = f"{base.removesuffix('coarse')}-c"
            raise UserError(f"{name}/{kind}: {file} is missing; {way_out(name, KNOWN[name], root)}")
    return files


def missing(root: Path, known: Known) -> list[str]:
    """The first spelling of every item of which no spelling is there."""
    return [spellings[0] for spellings in known.files if _find(root, spellings) is None]


def present(root: Path, known: Known) -> list[Path]:
    """The files that are there, in the order of the entry."""
    return [path for spellings in known.files if (path := _find(root, spellings)) is not None]


def require(name: str, known: Known, root: Path) -> list[Path]:
    """The files of the data set, or an error that says what is missing and how to get it."""
    absent = missing(root, known)
    if not absent:
        return present(root, known)
    if not root.is_dir():
        what = f"the data root {root} does not exist"
    elif len(absent) < len(known.files):
        what = f"only part of it is under {root} ({', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''} missing)"
    else:
        what = f"not under {root} ({absent[0]} is missing)"
    raise UserError(f"{name}: {what}; {way_out(name, known, root)}")


def way_out(name: str, known: Known, root: Path) -> str:
    """How the data set gets under `root`."""
    if known.obtain == BUILT_IN:
        return BUILT_IN
    prepare = PREPARE.format(name=name) + (f" -data {root}" if str(root) != "data" else "")
    return f"{prepare} downloads it there" if known.obtain == PREPARE else known.obtain.format(root=root, prepare=prepare)


def _find(root: Path, spellings: Sequence[str]) -> Path | None:
    return next((root / spelling for spelling in spellings if (root / spelling).exists()), None)
