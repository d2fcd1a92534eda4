"""The model strings of the nearest-category paper, `[augNN-]LOSS-vtor2-[pre]ARCH[NormNN]`, as settings of a training.

Section 3.2: without a suffix images go in as they are; Norm01 stands for ImageNet's mean and deviation, Norm02 for
CIFAR's, which are those of the training images here; aug01 and aug09 pad by four pixels, crop 32 and mirror.
"""

import re

from lib.core.errors import UsageError

FORM = re.compile(r"(?:(aug\d+)-)?(?:(adv)|trades(\d+(?:\.\d+)?)|(mixup))?(?:K(\d+))?ce-vtor2-(pre(?!act))?(.+?)(Norm\d+)?")
AUGMENTATIONS = {"aug01": "crop-flip", "aug09": "crop-flip"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISATIONS = {None: {"unnormalize": True}, "Norm01": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}, "Norm02": {}}


def settings(text: str) -> dict:
    """Type, loss, normalisation and what else a string like `trades6ce-vtor2-WRN_40_10` sets; {} for any other type.

    Raises `UsageError` for a string of this form with a loss, an augmentation or a normalisation that the paper lacks.
    """
    if "-vtor2-" not in text:
        return {}
    match = FORM.fullmatch(text)
    if not match:
        raise UsageError(f"type {text}: its loss is none of ce, advce, trades<beta>ce, mixupce")
    augmented, adversarial, beta, mixed, steps, pretrained, architecture, normalised = match.groups()
    if augmented not in (None, *AUGMENTATIONS) or normalised not in NORMALISATIONS:
        raise UsageError(
            f"type {text}: of augmentations {', '.join(AUGMENTATIONS)} are known, of normalisations Norm01, Norm02"
        )
    flags = {"model_type": architecture, "loss": "at" if adversarial else "trades" if beta else "mixup" if mixed else "ce"}
    flags |= NORMALISATIONS[normalised] | {"augmentation": AUGMENTATIONS.get(augmented, "none")}
    flags |= {"pretrained": True} if pretrained else {}
    return flags | ({"beta": float(beta)} if beta else {}) | ({"attack_steps": int(steps)} if steps else {})
