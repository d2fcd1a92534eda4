"""Whether a network was trained on given images, as the sidecar of its checkpoint says."""

from lib.datasets import names
from lib.datasets.names import DataName
from lib.datasets.split import Split
from lib.models.checkpoints import Description

# sets that are parts of another set's images, or all of them with other labels
IMAGES_OF = {
    "cifar100coarse": "cifar100",
    "imagenet100": "imagenet",
    "imagenet200": "imagenet",
    "imagenet200a": "imagenet",
    "imagenet16": "imagenet",
}
OTHER_LABELS = ("cifar100coarse", "imagenet16")


def seen_in_training(description: Description, name: str, split: Split, *, corrupted: bool = True) -> bool | None:
    """Whether the network was trained on the data set `name`, of which `split` holds the images; None where nothing says.

    That it was trained on this set, corrupted in the same way if at all, and on a class that the images are of: a network
    trained on `digits` has seen `digits-wo9:ood`, the nines, one trained on `digits-wo9` has not. Which split of the set it
    was does not matter: the test images of a set that was learnt are not out of distribution either. Published weights
    (`--pretrained`) have seen ImageNet.

    corrupted   whether corrupting images makes another set of them: for a question about classes it does not
    """
    if not description.dataset:
        return None
    if description.epoch == 0:
        return False
    asked, trained = names.parse(name).images, names.parse(description.dataset).images
    if description.config.get("pretrained") and _source(asked, corrupted) == ("imagenet", None, ""):
        return True
    if _source(asked, corrupted) != _source(trained, corrupted):
        return False
    if asked.base != trained.base and (asked.base in OTHER_LABELS or trained.base in OTHER_LABELS):
        return True  # the same images under names that cannot be compared
    present = {split.classes[label] for label in split.labels.unique().tolist() if label >= 0}
    return not present or bool(present & set(description.classes))


def learnt_images(description: Description, name: str, split: Split) -> bool:
    """Whether these very images, or a part of them, are ones that the network was trained on."""
    return split.split in ("train", "all") and bool(seen_in_training(description, name, split))


def _source(data: DataName, corrupted: bool) -> tuple[str, str | None, str]:
    """What two names agree in that are of the same images: set, path, corruption if that is asked for."""
    return IMAGES_OF.get(data.base, data.base), data.path, data.variant if corrupted else ""
