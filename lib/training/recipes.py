"""The defaults of the papers' training scripts: `--recipe NAME`. Free of torch.

Sections 3.1 and 4 of the hyperplane paper, 2.1, 2.9 and 5 of the stitching paper, 3.3 and 3.4 of the nearest-category
paper. What a paper's code requires on its command line has no default there, and none here.
"""

from collections.abc import Callable, Mapping

from lib.datasets import names

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# what else says how images are normalised; a recipe's normalisation then stands back
NORMALISING = ("mean", "std", "unnormalize", "per_image_std", "pretrained", "resume_from")
OF_NORMALISATION = ("mean", "std", "unnormalize", "per_image_std")


def settings(recipe: str, given: Mapping, dataset: str, epochs: int) -> dict:
    """The settings that a recipe adds to those that are given, for a data set.

    given    the values that the command line states, which win
    epochs   those of the suite, where neither command line nor recipe has a number
    """
    added = RECIPES[recipe](given, dataset)
    if any(given.get(name) for name in NORMALISING):
        added = {name: value for name, value in added.items() if name not in OF_NORMALISATION}
    if recipe == "ncg":
        added["milestones"] = milestones(given.get("epochs", epochs))
    return {name: value for name, value in added.items() if name not in given}


def milestones(epochs: int) -> tuple[int, ...]:
    """The epochs after which the nearest-category paper's code divides the learning rate by ten, by their number."""
    return next((steps for last, steps in _MILESTONES if epochs <= last), (60, 120))


_MILESTONES = (
    (40, (20, 30)),
    (50, (25, 40)),
    (60, (30, 50)),
    (70, (40, 50, 60)),
    (80, (40, 60, 70)),
    (140, (50, 90, 110)),
    (160, (40, 80, 120, 140)),
    (200, (80, 140, 180)),
)


def _ncg(given: Mapping, dataset: str) -> dict:
    """Its code's defaults; the optimiser, which that requires, is none of them."""
    return {"learning_rate": 0.01, "batch_size": 64, "momentum": 0.9, "weight_decay": 0.0, "augmentation": "none"}


def _stitching(given: Mapping, dataset: str) -> dict:
    """exec_train.py's defaults, whose sgd has no momentum; of ImageNet those of misc/imagenet_train_main.py."""
    if names.parse(dataset).base == "imagenet":
        return {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "batch_size": 256,
            "epochs": 90,
            "schedule": "step",
            "lr_step": 30,
            "lr_decay": 0.1,
            "snapshot_every": 1,
            **IMAGENET,
        }
    return {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "momentum": 0.0,
        "weight_decay": 1e-5,
        "batch_size": 64,
        "epochs": 100,
        "snapshot_every": 1,
        "unnormalize": True,
    }


def _hyperplanes(given: Mapping, dataset: str) -> dict:
    """train.py's defaults: images as they are unless --augmentation is given; with adam no weight decay."""
    plain = given.get("optimizer") == "adam"
    return {
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        **({} if plain else {"momentum": 0.9}),
        "weight_decay": 0.0 if plain else 1e-4,
        "batch_size": 128,
        "epochs": 20,
        "augmentation": "none",
        **(IMAGENET if names.parse(dataset).base == "imagenet" else {"per_image_std": True}),
    }


def _lir(given: Mapping, dataset: str) -> dict:
    """OpenOOD's, by which the jobs train: the paper's code trains nothing, and its own settings are not published."""
    return {
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "batch_size": 128,
        "epochs": 100,
        "schedule": "cosine",
    }


RECIPES: dict[str, Callable[[Mapping, str], dict]] = {
    "ncg": _ncg,
    "stitching": _stitching,
    "hyperplanes": _hyperplanes,
    "lir": _lir,
}
