"""What a network has learnt from, by its sidecar: sets, classes, corruptions, splits."""

import pytest
import torch

from lib.datasets.split import Split
from lib.models.checkpoints import Description
from lib.runs import training_data

DIGITS = tuple("0123456789")


def trained_on(dataset: str, classes: tuple[str, ...] = DIGITS, **config) -> Description:
    return Description(architecture="lenet", classes=classes, channels=1, image_size=8, dataset=dataset, config=config)


def images_of(classes: tuple[str, ...], labels: list[int], split: str = "test") -> Split:
    labelled = torch.tensor(labels)
    return Split("x", split, torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8), labelled, classes=classes)


ALL, NINES = images_of(DIGITS, [0, 4, 9]), images_of(("9",), [0, 0])


@pytest.mark.parametrize(
    "description, name, split, expected",
    [
        (trained_on("digits"), "digits", ALL, True),
        (trained_on("digits"), "digits:test", ALL, True),  # the split does not matter
        (trained_on("digits:train"), "digits", ALL, True),
        (trained_on("digits"), "digits-wo9:ood", NINES, True),
        (trained_on("digits-wo9", DIGITS[:9]), "digits-wo9:ood", NINES, False),
        (trained_on("digits-wo9", DIGITS[:9]), "digits", ALL, True),
        (trained_on("digits-k3", DIGITS[:3]), "digits", images_of(DIGITS, [7, 9]), False),
        (trained_on("digits"), "digits-c/fog-3", ALL, False),
        (trained_on("digits-c/fog-3"), "digits-c/fog-3", ALL, True),
        (trained_on("digits-c/fog-3"), "digits-c/fog-4", ALL, False),
        (trained_on("digits"), "patches", images_of(("china",), [0]), False),
        (trained_on("cifar100coarse", ("fish",)), "cifar100", images_of(("shark",), [0]), True),
        (trained_on("imagenet100", ("n1", "n2")), "imagenet200", images_of(("n2", "n3"), [0, 1]), True),
        (trained_on("imagenet100", ("n1", "n2")), "imagenet200", images_of(("n2", "n3"), [1]), False),
        (trained_on("cifar10", pretrained=True), "imagenet200", images_of(("n3",), [0]), True),
        (trained_on("cifar10", pretrained=False), "imagenet200", images_of(("n3",), [0]), False),
        (trained_on("npy=a/x.npy"), "npy=a/x.npy", images_of((), [-1]), True),
        (trained_on("npy=a/x.npy"), "npy=b/x.npy", images_of((), [-1]), False),
        (trained_on("features=models/a/model_5.pt:flatten:digits"), "digits", ALL, True),
        (trained_on(""), "digits", ALL, None),
    ],
)
def test_a_set_is_seen_if_its_classes_were_trained_on(description, name, split, expected):
    assert training_data.seen_in_training(description, name, split) is expected


def test_only_images_of_the_training_split_were_learnt_from_themselves():
    network = trained_on("digits")
    assert training_data.learnt_images(network, "digits:train", images_of(DIGITS, [1], "train"))
    assert training_data.learnt_images(network, "digits", images_of(DIGITS, [1], "all"))  # a set that is not divided
    assert not training_data.learnt_images(network, "digits", ALL)
    assert not training_data.learnt_images(network, "patches:train", images_of(("china",), [0], "train"))
    assert not training_data.learnt_images(trained_on(""), "digits:train", images_of(DIGITS, [1], "train"))
