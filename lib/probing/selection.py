"""Choosing a layer and its setting by a stated rule, the rules side by side.

Intermediate-layers paper, section 2.4. A score table holds (sites, candidates) numbers, sites being layers in execution
order and candidates settings with epochs. The baseline is the last site, the penultimate layer, with its own best
candidate under the same rule: both sides search equally long.

    ood-val       settings on OOD images (probe-val), the layer on others (layer-val)
    id-val        settings and layer on in-distribution images
    transfer      as ood-val, but on the other OOD sets: what is chosen there is tested here
    last-but-one  the site before the last; settings as the protocol validates them
    oracle        settings and layer on the test images: what no honest selection can exceed by much
    none          nothing is chosen: every site and candidate is reported

Free of torch.
"""

import math
from dataclasses import dataclass

from lib.core.errors import UserError

RULES = ("ood-val", "id-val", "transfer", "last-but-one", "oracle", "none")


@dataclass(frozen=True)
class Choice:
    """The number of the chosen site, the candidate of every site, and among how many different pairs of both was chosen."""

    site: int
    candidates: tuple[int, ...]
    searched: int


def roles_of(rule: str, protocol: str, available: set[str], candidates: int) -> tuple[str | None, str | None]:
    """The roles whose scores choose (settings, layer); None where nothing has to be chosen.

    available    the roles that have scores; "loo" are exact leave-one-out scores of the training images, "other ..." those
                 of the other OOD sets

    Raises `UserError` if the protocol has no images for the rule.
    """
    learns_inside = protocol in ("id", "zero-shot")  # else what is left out are OOD images
    inside = ("loo", "id-val") if learns_inside else ("probe-val", "loo")
    inner = (("loo", "id-val"), ("id-val", "loo")) if learns_inside else (("id-val",), ("id-val",))
    preferred = {
        "ood-val": (("probe-val",), ("layer-val", "probe-val")),
        "id-val": inner,
        "transfer": (("other probe-val",), ("other layer-val", "other probe-val")),
        "last-but-one": ((*inside, "probe-val"), ()),
        "oracle": (("test",), ("test",)),
    }[rule]
    settings = next((role for role in preferred[0] if role in available), None)
    layer = next((role for role in preferred[1] if role in available), None)
    lacking = (settings is None and candidates > 1) or (layer is None and preferred[1])
    if lacking and rule == "transfer":
        raise UserError("--select transfer: it takes two or more OOD sets, and --roles that leave validation images of them")
    if lacking:
        raise UserError(f"--select {rule}: --protocol {protocol} has no images for it under these --roles")
    return settings, layer


def choose(
    rule: str,
    settings: list[list[float]] | None,
    layer: list[list[float]] | None,
    sites: int,
    last: bool = True,
    copies: int = 0,
) -> Choice:
    """The choice of a rule, from the tables (sites, candidates) of the roles that `roles_of` names; the first of equals.

    settings and layer are None where nothing has to be chosen. Scores that do not exist (NaN) are never chosen, and the last
    site is only where it may be: it is the baseline. `copies` of the sites are the same representation as another one, and
    do not count as searched.
    """
    candidates = tuple(_best(row) for row in settings) if settings is not None else (0,) * sites
    width = len(settings[0]) if settings is not None else 1
    if rule == "last-but-one":
        return Choice(max(0, sites - 2), candidates, width)
    if layer is None:
        raise ValueError(f"{rule} needs scores that choose the layer")
    scores = [row[candidate] for row, candidate in zip(layer, candidates, strict=True)]
    scores = scores if last or sites == 1 else scores[:-1]
    return Choice(_best(scores), candidates, (len(scores) - copies) * width)


def _best(scores: list[float]) -> int:
    """The number of the highest score, the first of equals."""
    return max(range(len(scores)), key=lambda number: (not math.isnan(scores[number]), scores[number], -number))
