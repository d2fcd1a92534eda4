"""Whether images from elsewhere are unfamiliar: the nearest-category paper asks about classes that were not seen."""

from collections.abc import Iterable

from lib.datasets import names
from lib.datasets.split import Split
from lib.models.checkpoints import Description


def seen_in_training(descriptions: Iterable[Description], split: Split, name: str) -> bool | None:
    """Whether any of these networks was, as its description says, trained on classes that the images of a split are of.

    name: of the split's data set. None where no description says what its network was trained on.
    """
    known = [one for one in descriptions if one.dataset]
    return any(_of_its_classes(one, split, name) for one in known) if known else None


def _of_its_classes(description: Description, split: Split, name: str) -> bool:
    trained, asked = names.parse(description.dataset), names.parse(name)
    same = (trained.base, trained.path) == (asked.base, asked.path)
    return same and description.epoch != 0 and bool(set(map(str, description.classes)) & set(map(str, split.classes)))
