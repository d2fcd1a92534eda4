"""ImageNet and its relatives as folders of images: subsets of ImageNet-1k, -A, -R, Tiny ImageNet, OpenOOD's outliers."""

from pathlib import Path

import torch

from lib.core.errors import UserError
from lib.datasets import Options, catalogue
from lib.datasets.split import Split
from lib.datasets.storage import image_folders
from lib.datasets.storage.folders import from_listing
from lib.datasets.storage.lazy_images import DecodedImages

# The hundred classes of Tian et al. (CMC), which the nearest-category paper calls ImageNet-100, sorted.
WNIDS_100 = tuple(
    """
    n01558993 n01692333 n01729322 n01735189 n01749939 n01773797 n01820546 n01855672 n01978455 n01980166
    n01983481 n02009229 n02018207 n02085620 n02086240 n02086910 n02087046 n02089867 n02089973 n02090622
    n02091831 n02093428 n02099849 n02100583 n02104029 n02105505 n02106550 n02107142 n02108089 n02109047
    n02113799 n02113978 n02114855 n02116738 n02119022 n02123045 n02138441 n02172182 n02231487 n02259212
    n02326432 n02396427 n02483362 n02488291 n02701002 n02788148 n02804414 n02859443 n02869837 n02877765
    n02974003 n03017168 n03032252 n03062245 n03085013 n03259280 n03379051 n03424325 n03492542 n03494278
    n03530642 n03584829 n03594734 n03637318 n03642806 n03764736 n03775546 n03777754 n03785016 n03787032
    n03794056 n03837869 n03891251 n03903868 n03930630 n03947888 n04026417 n04067472 n04099969 n04111531
    n04127249 n04136333 n04229816 n04238763 n04336792 n04418357 n04429376 n04435653 n04485082 n04493381
    n04517823 n04589890 n04592741 n07714571 n07715103 n07753275 n07831146 n07836838 n13037406 n13040303
""".split()
)


def imagenet(root: Path, split: str, options: Options) -> Split:
    """The thousand classes of ILSVRC 2012, 1,281,167 and 50,000 images: `train/<wnid>/` and `val/<wnid>/`.

    In the folder `imagenet` or in the root itself, also spelt `training_data` and `validation_data`. Classes are called
    by their WordNet ids and sorted by them.
    """
    return from_listing("imagenet", split, image_folders.listing(training(root), split), options)


def imagenet100(root: Path, split: str, options: Options) -> Split:
    """A hundred of the classes of the same folders (nearest-category paper, section 2)."""
    return from_listing("imagenet100", split, image_folders.listing(training(root), split, WNIDS_100), options)


def imagenet200(root: Path, split: str, options: Options) -> Split:
    """The images of the same folders that are of the classes of ImageNet-R: what it is compared with."""
    return _classes_of("imagenet-r", "imagenet200", root, split, options)


def imagenet200a(root: Path, split: str, options: Options) -> Split:
    """Those that are of the classes of ImageNet-A."""
    return _classes_of("imagenet-a", "imagenet200a", root, split, options)


def imagenet_a(root: Path, split: str, options: Options) -> Split:
    """7,500 images of 200 classes, `<wnid>/*.jpg`; intermediate-layers paper, section 3.5."""
    (folder,) = catalogue.require("imagenet-a", catalogue.KNOWN["imagenet-a"], root)
    return from_listing("imagenet-a", split, image_folders.listing(folder, "all"), options)


def imagenet_r(root: Path, split: str, options: Options) -> Split:
    """30,000 images of 200 classes, `<wnid>/*.jpg`; intermediate-layers paper, section 3.5."""
    (folder,) = catalogue.require("imagenet-r", catalogue.KNOWN["imagenet-r"], root)
    return from_listing("imagenet-r", split, image_folders.listing(folder, "all"), options)


def corrupted(name: str, cell: Path, options: Options) -> Split:
    """A cell of ImageNet-C, `<level>/<wnid>/*.JPEG`, of `imagenet` or `imagenet100` (nearest-category paper, section 5).

    Its images are the central squares of 224 px that the clean ones are evaluated at, so that they are resized only: another
    crop would see less of them.
    """
    listing = image_folders.listing(cell, "all", WNIDS_100 if name == "imagenet100" else ())
    images = DecodedImages([listing.folder / file for file in listing.files], options.image_size, transform="square")
    images = images.decoded_by(options.decoder)
    return Split(name, "val", images, torch.tensor(listing.labels), classes=listing.classes, origin="official")


def tinyimagenet(root: Path, split: str, options: Options) -> Split:
    """200 classes, 3 x 64 x 64, 100,000 and 10,000, in the official layout of `tiny-imagenet-200`.

    Its `val/val_annotations.txt` has a line per image: file, WordNet id and a box, separated by tabulators. The test
    images have no published labels and are not used.
    """
    train, val = catalogue.require("tinyimagenet", catalogue.KNOWN["tinyimagenet"], root)[:2]
    classes = image_folders.class_folders(train)
    if split == "train":
        return from_listing("tinyimagenet", split, image_folders.listing(train.parent, "train", classes), options)
    number = {name: label for label, name in enumerate(classes)}
    files, labels = [], []
    for row, line in enumerate((val / "val_annotations.txt").read_text("utf-8").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in number:
            raise UserError(f"{val / 'val_annotations.txt'}: line {row} names no class of {train}")
        files.append(f"images/{fields[0]}")
        labels.append(number[fields[1]])
    if not files:
        raise UserError(f"{val / 'val_annotations.txt'}: names no image")
    return from_listing("tinyimagenet", split, image_folders.Listing(val, tuple(files), tuple(labels), classes), options)


def textures(root: Path, split: str, options: Options) -> Split:
    """The Describable Textures, 5,640 images."""
    return _outliers("textures", root, split, options)


def places365(root: Path, split: str, options: Options) -> Split:
    """Scenes, OpenOOD's selection."""
    return _outliers("places365", root, split, options)


def inaturalist(root: Path, split: str, options: Options) -> Split:
    """Plants, 10,000 images."""
    return _outliers("inaturalist", root, split, options)


def ssb_hard(root: Path, split: str, options: Options) -> Split:
    """The hard part of the semantic-shift benchmark, 49,000 images of ImageNet-21k."""
    return _outliers("ssb_hard", root, split, options)


def ninco(root: Path, split: str, options: Options) -> Split:
    """No ImageNet class objects, 5,879 images."""
    return _outliers("ninco", root, split, options)


def openimage_o(root: Path, split: str, options: Options) -> Split:
    """Outliers among Open Images, 17,632 images."""
    return _outliers("openimage_o", root, split, options)


def _classes_of(other: str, name: str, root: Path, split: str, options: Options) -> Split:
    (folder,) = catalogue.require(other, catalogue.KNOWN[other], root)
    return from_listing(
        name, split, image_folders.listing(training(root), split, image_folders.class_folders(folder)), options
    )


def training(root: Path) -> Path:
    """The folder with ImageNet's `train` and `val`."""
    return catalogue.require("imagenet", catalogue.KNOWN["imagenet"], root)[0].parent


def _outliers(name: str, root: Path, split: str, options: Options) -> Split:
    """Every image below the folder, unlabelled: whatever folders they are sorted into are no classes of ours."""
    (folder,) = catalogue.require(name, catalogue.KNOWN[name], root)
    files = tuple(image_folders.files_below(folder))
    if not files:
        raise UserError(f"{folder}: holds no image")
    return from_listing(name, split, image_folders.Listing(folder, files, (-1,) * len(files), ()), options)
