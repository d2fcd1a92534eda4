"""Names of several OOD sets at once: `near`, `far`, and a corrupted set without its variant. Free of torch.

Near and far are those of OpenOOD v1.5 (arXiv:2306.09301). Its lists leave single images out of some sets, those that show
classes of the in-distribution set; here the sets are used whole.
"""

import warnings
from pathlib import Path

from lib import datasets
from lib.core.errors import UsageError, UserError
from lib.datasets import corruptions, names

_FAR = ("mnist", "svhn", "textures", "places365")
_IMAGENET = {"near": ("ssb_hard", "ninco"), "far": ("inaturalist", "textures", "openimage_o")}
GROUPS = {
    "cifar10": {"near": ("cifar100", "tinyimagenet"), "far": _FAR},
    "cifar100": {"near": ("cifar10", "tinyimagenet"), "far": _FAR},
    "imagenet200": _IMAGENET,
    "imagenet": _IMAGENET,
}


def group(inside: str, outside: str) -> str | None:
    """Which group of an in-distribution set another set belongs to; both are plain names, without split."""
    return next((word for word, members in GROUPS.get(inside, {}).items() if outside in members), None)


def expand(outliers: tuple[str, ...], inside: str, root: str | Path) -> list[str]:
    """The sets that `-ood` names, each once: of near and far those that are there, of `<name>-c` every corruption."""
    expanded = []
    for text in outliers:
        expanded += _members(text, inside, root) if text in ("near", "far") else _variants(text, Path(root))
    return list(dict.fromkeys(expanded))


def _members(word: str, inside: str, root: str | Path) -> list[str]:
    if not inside:
        raise UsageError(
            f"-ood {word}: which sets these are depends on -d, which must be given: the network does not say "
            "what it was trained on"
        )
    base = names.parse(inside).base
    if base not in GROUPS:
        raise UsageError(f"-ood {word}: OpenOOD has no such group for {base}; it has for {', '.join(GROUPS)}")
    members, present = GROUPS[base][word], []
    for name in members:
        try:
            datasets.check(name, root)
            present.append(name)
        except UserError:
            continue
    absent = [name for name in members if name not in present]
    if not present:
        raise UserError(
            f"-ood {word}: none of {', '.join(members)} is under {root}; python exec_data.py list says how to get them"
        )
    if absent:
        warnings.warn(f"-ood {word}: without {', '.join(absent)}, not under {root}", stacklevel=2)
    return present


def _variants(text: str, root: Path) -> list[str]:
    data = names.parse(text)
    if data.variant or data.path is not None or not data.base.endswith("-c") or (root / data.base).is_dir():
        return [text]
    return [f"{text}/{kind}-{severity}" for kind in corruptions.CORRUPTIONS for severity in corruptions.SEVERITIES]
