"""Every registered data set: its files, splits and sizes, and how it is obtained. Free of torch.

An entry's `files` are relative to the data root; each item lists the spellings of one file or folder, of which one
suffices. The layouts are those of torchvision and of the archives' authors.
"""

from dataclasses import dataclass

from lib.datasets import corruptions

PREPARE = "python exec_data.py prepare {name}"


@dataclass(frozen=True)
class Known:
    """What can be said about a data set without reading it."""

    about: str
    files: tuple[tuple[str, ...], ...] = ()
    splits: tuple[str, ...] = ("train", "test")  # () = not divided
    sizes: tuple[int, ...] = ()  # images per split, or in all; () = as many as there are
    classes: int | None = None  # None: unlabelled, or only its files tell
    obtain: str = PREPARE  # a command, or a sentence on what to put where
    groups: tuple[tuple[int, ...], ...] = ()  # images per split and group


BUILT_IN = "built in"


def _idx(folder: str) -> tuple[tuple[str, ...], ...]:
    stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple((f"{folder}/raw/{stem}-ubyte", f"{folder}/raw/{stem}-ubyte.gz") for stem in stems)


_CIFAR10_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
_CIFAR10 = tuple((f"cifar-10-batches-py/{file}",) for file in _CIFAR10_FILES)
_CIFAR100 = tuple((f"cifar-100-python/{file}",) for file in ("train", "test", "meta"))

_CORRUPTIONS = (*corruptions.CORRUPTIONS, "labels")
_IMAGENET = tuple(
    tuple(f"{folder}{spelling}" for folder in ("imagenet/", "") for spelling in spellings)
    for spellings in (("train", "training_data"), ("val", "validation_data"))
)
_IMAGENET_BY_HAND = "put its class folders into {root}/imagenet/train/<wnid> and {root}/imagenet/val/<wnid>"

_FACES = (
    ("celeba/img_align_celeba/img_align_celeba", "celeba/img_align_celeba"),
    ("celeba/list_attr_celeba.csv", "celeba/list_attr_celeba.txt"),
    ("celeba/list_eval_partition.csv", "celeba/list_eval_partition.txt"),
)
_FACES_BY_HAND = (
    "put list_attr_celeba and list_eval_partition, .txt or .csv, into {root}/celeba (torchvision's layout), and the aligned "
    "images into {root}/celeba/img_align_celeba, or img_align_celeba.zip beside the lists, and {prepare} unpacks it"
)


def _by_hand(archive: str) -> str:
    return f"put the authors' {archive} into {{root}}, and {{prepare}} unpacks it"


def _outliers(about: str, *spellings: str) -> Known:
    """One of OpenOOD's sets of outliers, a folder of images under one of its spellings."""
    obtain = f"put its images, in any folders, into {{root}}/{spellings[0]} (OpenOOD v1.5 distributes them)"
    return Known(about, (spellings,), splits=(), obtain=obtain)


KNOWN = {
    "digits": Known("scikit-learn's 8x8 digits, enlarged to 32x32 grey", sizes=(1442, 355), classes=10, obtain=BUILT_IN),
    "digits-bg": Known(
        "the digits below five and the others, on backgrounds that go with the label in training; four groups",
        splits=("train", "val", "test"),
        sizes=(1082, 360, 355),
        classes=2,
        obtain=BUILT_IN,
    ),
    "digits-colour": Known(
        "the digits below five and the others, in colours that go with the label in training; four groups",
        (),
        ("train", "val", "test"),
        (1202, 240, 355),
        2,
        BUILT_IN,
    ),
    "patches": Known("32x32 colour patches of two photographs, as outliers", sizes=(1150, 750), classes=2, obtain=BUILT_IN),
    "uniform": Known(
        "uniform noise, colour, of the size that the network takes", splits=(), sizes=(10000,), obtain=BUILT_IN
    ),
    "uniform-grey": Known("the same in grey", splits=(), sizes=(10000,), obtain=BUILT_IN),
    "mnist": Known("handwritten digits, 28x28 grey", _idx("MNIST"), sizes=(60000, 10000), classes=10),
    "fashionmnist": Known("articles of clothing, 28x28 grey", _idx("FashionMNIST"), sizes=(60000, 10000), classes=10),
    "kmnist": Known("Kuzushiji characters, 28x28 grey", _idx("KMNIST"), sizes=(60000, 10000), classes=10),
    "cmnist": Known(
        "coloured MNIST, digits below five and others, in colours that go with the label in training; four groups",
        _idx("MNIST"),
        ("train", "val", "test"),
        (50000, 10000, 10000),
        2,
    ),
    "cmnist-domainbed": Known(
        "DomainBed's coloured MNIST, in two channels, with a quarter of the labels wrong; four groups",
        _idx("MNIST"),
        ("train", "val", "test"),
        (50000, 10000, 10000),
        2,
    ),
    "cifar10": Known("ten classes, 32x32 colour", _CIFAR10, sizes=(50000, 10000), classes=10),
    "cifar100": Known("a hundred fine classes, 32x32 colour", _CIFAR100, sizes=(50000, 10000), classes=100),
    "cifar100coarse": Known("CIFAR-100 in its 20 coarse classes", _CIFAR100, sizes=(50000, 10000), classes=20),
    "svhn": Known(
        "street-view house numbers, 32x32 colour",
        (("train_32x32.mat",), ("test_32x32.mat",)),
        sizes=(73257, 26032),
        classes=10,
    ),
    "cifar5m": Known(
        "six million synthetic images after CIFAR-10, 32x32 colour; its test split is CIFAR-10's",
        tuple((f"cifar5m/cifar5m_part{i}.npz", f"cifar5m/part{i}.npz") for i in range(6)),
        classes=10,
        obtain="put part0.npz to part5.npz of the authors' public bucket into {root}/cifar5m",
    ),
    "300k": Known(
        "300,000 random natural images, 32x32 colour, unlabelled outliers",
        (("300K_random_images.npy", "oe/300K_random_images.npy"),),
        splits=(),
        sizes=(300000,),
        obtain="put 300K_random_images.npy of the outlier-exposure authors into {root} or {root}/oe",
    ),
    "waterbirds": Known(
        "birds on land and on water, of two kinds that go with it in training; four groups",
        (("waterbird_complete95_forest2water2", "waterbirds_v1.0"),),
        ("train", "val", "test"),
        (4795, 1199, 5794),
        2,
        groups=((3498, 184, 56, 1057), (467, 466, 133, 133), (2255, 2255, 642, 642)),
    ),
    "celeba": Known(
        "faces, blond or not, of women and men; four groups",
        (_FACES[0], *((*spellings, "celeba/metadata.csv") for spellings in _FACES[1:])),
        ("train", "val", "test"),
        (162770, 19867, 19962),
        2,
        _FACES_BY_HAND,
        ((71629, 66874, 22880, 1387), (8535, 8276, 2874, 182), (9767, 7535, 2480, 180)),
    ),
    "multiceleba": Known(
        "faces with high cheekbones or not, where age and sex go with it in training; eight groups",
        _FACES,
        ("train", "val", "test"),
        (66898, 19867, 19962),
        2,
        _FACES_BY_HAND,
    ),
    "imagenet": Known("ILSVRC 2012", _IMAGENET, ("train", "val"), (1281167, 50000), 1000, _IMAGENET_BY_HAND),
    "imagenet16": Known(
        "207 of its classes as 16 entry-level categories, those of cue-conflict and silhouette",
        _IMAGENET,
        ("train", "val"),
        (),
        16,
        _IMAGENET_BY_HAND,
    ),
    "imagenet200": Known(
        "its images of the 200 classes of imagenet-r",
        (*_IMAGENET, ("imagenet-r",)),
        ("train", "val"),
        (),
        200,
        _IMAGENET_BY_HAND + ", and imagenet-r beside it",
    ),
    "imagenet200a": Known(
        "its images of the 200 classes of imagenet-a",
        (*_IMAGENET, ("imagenet-a",)),
        ("train", "val"),
        (),
        200,
        _IMAGENET_BY_HAND + ", and imagenet-a beside it",
    ),
    "imagenet-a": Known(
        "natural images that deceive networks, 200 classes of ImageNet",
        (("imagenet-a",),),
        ("test",),
        (7500,),
        200,
        _by_hand("imagenet-a.tar"),
    ),
    "imagenet-r": Known(
        "paintings, toys and other renditions, 200 classes of ImageNet",
        (("imagenet-r",),),
        ("test",),
        (30000,),
        200,
        _by_hand("imagenet-r.tar"),
    ),
    "cue-conflict": Known(
        "shapes of 16 categories in the textures of others",
        (("cue-conflict", "style-transfer-preprocessed-512"),),
        ("test",),
        (1280,),
        16,
        "put the authors' folders (Geirhos et al. 2019), <category>/<shape><n>-<texture><m>.png, into {root}/cue-conflict",
    ),
    "silhouette": Known(
        "black shapes of 16 categories",
        (("silhouette", "filled-silhouettes"),),
        ("test",),
        (160,),
        16,
        "put the authors' folders (Geirhos et al. 2019), <category>/<image>.png, into {root}/silhouette",
    ),
    "imagenet100": Known("a hundred of its classes", _IMAGENET, ("train", "val"), (), 100, _IMAGENET_BY_HAND),
    "tinyimagenet": Known(
        "Tiny ImageNet, 200 classes, 64x64 colour",
        tuple((f"tiny-imagenet-200/{part}",) for part in ("train", "val", "val/val_annotations.txt")),
        ("train", "val"),
        (100000, 10000),
        200,
        _by_hand("tiny-imagenet-200.zip"),
    ),
    "textures": _outliers("Describable Textures, outliers", "textures", "texture", "dtd/images", "dtd/dtd/images"),
    "places365": _outliers("scenes, outliers", "places365"),
    "inaturalist": _outliers("plants, outliers", "inaturalist"),
    "ssb_hard": _outliers("semantic-shift benchmark, hard part, near outliers", "ssb_hard"),
    "ninco": _outliers("no ImageNet class objects, near outliers", "ninco"),
    "openimage_o": _outliers("Open Images, outliers", "openimage_o", "openimageo"),
    "cifar10-c": Known(
        "corrupted CIFAR-10, the official arrays (without them, the corruptions are generated)",
        tuple((f"CIFAR-10-C/{name}.npy",) for name in _CORRUPTIONS),
        ("test",),
        classes=10,
    ),
    "cifar100-c": Known(
        "corrupted CIFAR-100, the official arrays (without them, the corruptions are generated)",
        tuple((f"CIFAR-100-C/{name}.npy",) for name in _CORRUPTIONS),
        ("test",),
        classes=100,
    ),
    "imagenet-c": Known(
        "corrupted ILSVRC 2012, the official folders (without them, CIFAR-10-C's corruptions are generated)",
        (("ImageNet-C",),),
        ("val",),
        classes=1000,
        obtain="unpack the archives of Zenodo 2235448 in {root}/ImageNet-C, so that "
        "{root}/ImageNet-C/blur/defocus_blur/1/<wnid> or {root}/ImageNet-C/defocus_blur/1/<wnid> is there",
    ),
}
