"""The training sets of probes: the images drawn for every seed, share and OOD set."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.core.randomness import generator, stream
from lib.datasets.split import Split
from lib.probing.fit import Group
from lib.probing.options import ProbeProtocol
from lib.probing.roles import InnerDivision, Shares, draw_balanced, draw_fraction, draw_shots
from lib.probing.shifts import Shift

FEW = 0.1  # of an OOD set: the share that few-shot probes learn from unless another is asked for


@dataclass(frozen=True)
class TrainingSet:
    """The images that probes of one seed learn from: `positions` in a source of features, with labels and groups, (n,).

    fraction    the share of the OOD set that was asked for
    shift       the number of the OOD set that the probes are for, None for all
    views       the number of augmented views of the images, 0 for the images as they are
    """

    seed: int
    source: int
    positions: Tensor
    labels: Tensor
    groups: Tensor
    fraction: float | None = None
    shift: int | None = None
    views: int = 0

    def group(self, rank: int | None = None) -> Group:
        """The probes that learn from it, as a group of a stack."""
        return Group(self.positions, self.labels, self.seed, rank, self.source, max(1, self.views))

    def serves(self, shift: int) -> bool:
        """Whether its probes are for the OOD set of this number."""
        return self.shift is None or self.shift == shift


def inside(protocol: ProbeProtocol, train: Split, inner: dict[int, InnerDivision]) -> list[TrainingSet]:
    """A training set per seed, of in-distribution images; `inner` by seed."""
    drawn = []
    for seed in protocol.seeds:
        rows = _balanced(protocol, train, inner[seed].train, seed)
        drawn.append(TrainingSet(seed, 0, rows, train.labels[rows], train.groups[rows], views=protocol.views))
    return drawn


def outside(
    protocol: ProbeProtocol, shifts: Sequence[Shift], shares: dict[tuple[int, int], dict[str, Shares]], classes: int
) -> list[TrainingSet]:
    """A training set per OOD set, seed and share, of images of this set; its source is the number of the set.

    shares    by number of the OOD set and seed
    """
    drawn = []
    for number, shift in enumerate(shifts):
        split = shift.learnt
        for seed in protocol.seeds:
            _, pool = shift.role("probe-train", shares[number, seed])
            for fraction in protocol.fractions or (None,):
                part = (number, len(shifts)) if protocol.shared else None
                rows = _drawn(protocol, split, pool, fraction, seed, part, classes)
                rows = _balanced(protocol, split, rows, seed)
                drawn.append(TrainingSet(seed, number, rows, split.labels[rows], split.groups[rows], fraction, number))
    return drawn


def pooled(sets: list[TrainingSet]) -> tuple[list[TrainingSet], list[list[TrainingSet]]]:
    """One training set per seed and share for all OOD sets, each with a source of its own: the images of `sets` in turn."""
    parts = [
        [one for one in sets if (one.seed, one.fraction) == key]
        for key in dict.fromkeys((one.seed, one.fraction) for one in sets)
    ]
    joined = []
    for number, several in enumerate(parts):
        labels, groups = torch.cat([one.labels for one in several]), torch.cat([one.groups for one in several])
        joined.append(TrainingSet(several[0].seed, number, torch.arange(len(labels)), labels, groups, several[0].fraction))
    return joined, parts


def _drawn(
    protocol: ProbeProtocol,
    split: Split,
    pool: Tensor,
    fraction: float | None,
    seed: int,
    part: tuple[int, int] | None,
    classes: int,
) -> Tensor:
    """The rows that a probe learns from; `part` is (number of the OOD set, of how many) where all share one probe."""
    if protocol.name == "full-ood":
        return pool
    if protocol.shots:
        return draw_shots(split.labels, pool, classes, protocol.shots, seed)
    if part is None:
        count = round((fraction or FEW) * len(split)) if protocol.roles == "clean" or fraction else len(pool)
        return draw_fraction(pool, count, seed)
    number, parts = part
    each = (len(pool) if fraction is None else round(fraction * len(split))) // parts
    if not each:
        raise UserError(f"--tuning shared: {len(pool)} images are too few for {parts} OOD sets")
    if protocol.roles == "paper":  # the notebook draws for every corruption anew
        return draw_fraction(pool, each, stream(seed, "shift", number))
    # every image of the pool under one corruption only, as many under each
    chosen = draw_fraction(pool, each * parts, seed)
    order = torch.randperm(len(chosen), generator=generator(seed, "parts"))
    return chosen[order[number * each : (number + 1) * each]].sort().values


def _balanced(protocol: ProbeProtocol, split: Split, positions: Tensor, seed: int) -> Tensor:
    if protocol.class_balance == "none":
        return positions
    return draw_balanced(positions, split.groups if protocol.class_balance == "groups" else split.labels, seed)
