"""Names of the nearest-category paper's code: its types, as settings of a training, and its checkpoints' files.

A type is `[augNN-]LOSS-vtor2-[pre]ARCH[NormNN]` (section 3.2): without a suffix images go in as they are; Norm01 stands for
ImageNet's mean and deviation, Norm02 for CIFAR's, which in a training are those of its images; aug01 and aug09 pad by four
pixels, crop 32 and mirror. A file's name holds what its training was: attack, batch, data set, epochs, radius, learning
rate, type, momentum, norm, optimiser, seed, weight decay, and the epoch of the snapshot.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lib.core.errors import UsageError
from lib.models.normalisations import IMAGENET

FORM = re.compile(r"(?:(aug\d+)-)?(?:(adv)|trades(\d+(?:\.\d+)?)|(mixup))?(?:K(\d+))?ce-vtor2-(pre(?!act))?(.+?)(Norm\d+)?")
AUGMENTATIONS = {"aug01": "crop-flip", "aug09": "crop-flip"}
NORMALISATIONS = {
    None: {"unnormalize": True},
    "Norm01": dict(zip(("mean", "std"), IMAGENET, strict=True)),
    "Norm02": {},
}
# of that code, but of none of its tables
OTHERS = ("CNN001", "CNN003", "VggMLP", "DenseNet161", "WRN_34_8")
NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
FILE = re.compile(
    rf"[a-z]\w*-(\d+)-((?:aug\d+-)?[a-z]\w*)-(\d+)-({NUMBER})-({NUMBER})-((?:aug\d+-)?\w+-vtor2-\w+)-({NUMBER})-(2|inf)-"
    rf"([a-z]+)-(\d+)-({NUMBER})-ep(\d+)"
)


@dataclass(frozen=True)
class PublishedFile:
    """What the name of a checkpoint says: its type, its data set, finished epochs, and settings of its training."""

    architecture: str
    dataset: str
    epoch: int
    settings: dict


def settings(text: str) -> dict:
    """Type, loss, normalisation and what else a string like `trades6ce-vtor2-WRN_40_10` sets; {} for any other type.

    Raises `UsageError` for a string of this form with a loss, an augmentation or a normalisation that the paper lacks.
    """
    if "-vtor2-" not in text:
        return {}
    augmented, adversarial, beta, mixed, steps, pretrained, architecture, normalised = _parts(text)
    if augmented not in (None, *AUGMENTATIONS):
        raise UsageError(f"type {text}: of augmentations {', '.join(AUGMENTATIONS)} are known")
    flags: dict = {
        "model_type": architecture,
        "loss": "at" if adversarial else "trades" if beta else "mixup" if mixed else "ce",
    }
    flags |= NORMALISATIONS[normalised] | {"augmentation": AUGMENTATIONS.get(augmented or "", "none")}
    flags |= {"pretrained": True} if pretrained else {}
    return flags | ({"beta": float(beta)} if beta else {}) | ({"attack_steps": int(steps)} if steps else {})


def architecture(text: str) -> str:
    """The type that a string names, with its normalisation where that is a type of its own; any other text as it is.

    Raises `UsageError` for networks of that code which its tables do not use, and for half-distance trainings.
    """
    if text in OTHERS:
        raise UsageError(f"type {text} is of the nearest-category paper's code, not of its tables; it is not here")
    if "-vtor2-" not in text:
        return text
    *_, name, normalised = _parts(text)
    return f"{name}{normalised or ''}"


def of_file(path: str | Path) -> PublishedFile | None:
    """What the name of a checkpoint of that code says; None for any other name."""
    match = FILE.fullmatch(Path(path).name.removesuffix(Path(path).suffix))
    if not match:
        return None
    batch, data, epochs, eps, rate, kind, momentum, norm, optimizer, seed, decay, epoch = match.groups()
    told = settings(re.sub(r"^aug\d+-", "", kind))  # augmentations of theirs that are not known are no hindrance
    del told["model_type"], told["augmentation"]
    told |= {
        "batch_size": int(batch),
        "epochs": int(epochs),
        "learning_rate": float(rate),
        "momentum": float(momentum),
        "optimizer": optimizer,
        "seed": int(seed),
        "weight_decay": float(decay),
    }
    if told["loss"] in ("at", "trades"):
        told |= {"eps": float(eps), "norm": norm}
    return PublishedFile(architecture(kind), data, int(epoch), told)


def _parts(text: str) -> tuple[str | None, ...]:
    """(augmentation, adv, beta, mixup, steps, pre, architecture, normalisation) of a type."""
    if text.endswith("-halfclose"):
        raise UsageError(f"type {text}: halfclose is a training of the nearest-category paper's code, not of its tables")
    match = FORM.fullmatch(text)
    if not match:
        raise UsageError(f"type {text}: its loss is none of ce, advce, trades<beta>ce, mixupce")
    *_, architecture, normalised = match.groups()
    if architecture in OTHERS:
        raise UsageError(f"type {text}: {architecture} is of the paper's code, not of its tables; it is not here")
    if normalised not in NORMALISATIONS:
        raise UsageError(f"type {text}: of normalisations Norm01, Norm02 are known")
    return match.groups()
