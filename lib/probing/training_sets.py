"""Who learns from what: the draws of images of every seed, share and OOD set."""

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.core.randomness import generator
from lib.datasets.split import Split
from lib.probing.feature_sources import Unit
from lib.probing.roles import draw_balanced, draw_fraction, draw_shots


def inside(config, train: Split, inner: dict[int, tuple[Tensor, Tensor]]) -> list[Unit]:
    """A unit per seed that learns from in-distribution images; `inner` has the positions that train and validate."""
    found = []
    for seed in config.seed:
        rows = _balanced(config, train, inner[seed][0], seed)
        found.append(Unit(seed, 0, rows, train.labels[rows], train.groups[rows], views=config.augment))
    return found


def outside(config, shifts: list, shares: dict, classes: int) -> list[Unit]:
    """A unit per OOD set, seed and share that learns from images of this set; its source is the number of the set."""
    units = []
    for number, shift in enumerate(shifts):
        split = shift.learnt
        for seed in config.seed:
            _, pool = shift.role("probe-train", shares[number, seed])
            for share in config.fraction or (None,):
                rows = _drawn(
                    config, split, pool, share, seed, number if config.tuning == "shared" else None, len(shifts), classes
                )
                rows = _balanced(config, split, rows, seed)
                units.append(Unit(seed, number, rows, split.labels[rows], split.groups[rows], share, number))
    return units


def pooled(units: list[Unit]) -> tuple[list[Unit], list[list[Unit]]]:
    """One unit per seed and share for all OOD sets, each with a source of its own: the images of these units in turn."""
    parts = [
        [unit for unit in units if (unit.seed, unit.fraction) == key]
        for key in dict.fromkeys((unit.seed, unit.fraction) for unit in units)
    ]
    joined = []
    for number, several in enumerate(parts):
        labels, groups = (torch.cat([getattr(unit, name) for unit in several]) for name in ("labels", "groups"))
        joined.append(Unit(several[0].seed, number, torch.arange(len(labels)), labels, groups, several[0].fraction))
    return joined, parts


def _drawn(
    config, split: Split, pool: Tensor, share: float | None, seed: int, part: int | None, parts: int, classes: int
) -> Tensor:
    """The rows that a probe learns from; `part` is the shift's number where all of `parts` shifts share one probe."""
    if config.how == "full-ood":
        return pool
    if config.shots:
        return draw_shots(split.labels, pool, classes, config.shots, seed)
    if part is None:
        count = round((share or 0.1) * len(split)) if config.roles == "clean" or share else len(pool)
        return draw_fraction(pool, count, seed)
    # every image of the pool under one corruption only, as many under each
    each = (len(pool) if share is None else round(share * len(split))) // parts
    if not each:
        raise UserError(f"--tuning shared: {len(pool)} images are too few for {parts} OOD sets")
    chosen = draw_fraction(pool, each * parts, seed)
    order = torch.randperm(len(chosen), generator=generator(seed, "parts"))
    return chosen[order[part * each : (part + 1) * each]].sort().values


def _balanced(config, split: Split, positions: Tensor, seed: int) -> Tensor:
    if config.class_balance == "none":
        return positions
    return draw_balanced(positions, split.groups if config.class_balance == "groups" else split.labels, seed)
