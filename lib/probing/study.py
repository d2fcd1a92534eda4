"""A study of probes on one network, before any pass: its layers, who is what among the images, who learns from what.

Intermediate-layers paper, section 2. What follows reads it and changes nothing of it:

    prepare                  -> ProbeStudy          what is asked for, what is drawn
    feature_provider.plan    -> FeatureProvider     where features come from
    study_fit.fit            -> FittedStudy         the probes
    scores.score             -> list[Scores]        whether they are right on the images of every OOD set
    study_choices.choose     -> list[RuleChoices]   what every rule chooses
    rows, network_rows, shift_rows                  what a record keeps of all that
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.datasets.split import Split
from lib.models.normalized import Normalized
from lib.probing import baselines, training_sets
from lib.probing.evaluation import Metric
from lib.probing.layers import Layout, choose
from lib.probing.options import ProbeOptions
from lib.probing.roles import ID_VAL, ROLES, InnerDivision, Shares, divide_inner, refuse_overlap
from lib.probing.shifts import Shift
from lib.probing.training_sets import TrainingSet


@dataclass(frozen=True)
class ProbeData:
    """What a study reads: the training split and its labels' classes, OOD sets, and how images are given.

    members    the network's outputs that answer for each class, where they are others than the classes
    """

    name: str
    train: Split
    train_origin: str
    shifts: list[Shift]
    classes: tuple[str, ...]
    channels: int
    size: int
    members: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class ProbeStudy:
    """One network under some options.

    label     of the network, as rows name it
    shares    who is what among the ids of every OOD set, by its number and the seed, then by split
    inner     who is what among the in-distribution training images, by seed
    baselines those that are asked for and possible
    sets      who learns from what; probes are known by the number of their training set
    parts     with shared tuning the sets of single OOD sets that each of `sets` is made of, else none
    """

    options: ProbeOptions
    label: str
    network: Normalized
    data: ProbeData
    shares: dict[tuple[int, int], dict[str, Shares]]
    inner: dict[int, InnerDivision]
    layout: Layout
    baselines: tuple[str, ...]
    metric: Metric
    sets: list[TrainingSet]
    parts: list[list[TrainingSet]]

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.options.protocol.seeds

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.data.classes)

    @property
    def reads_train(self) -> bool:
        """Whether features of the in-distribution training images are needed."""
        return (
            self.options.protocol.learns_inside
            or any(len(division.held_out) for division in self.inner.values())
            or any(name in self.baselines for name in baselines.OF_TRAINING_IMAGES)
        )

    def role(self, number: int, seed: int, role: str) -> tuple[str, Tensor]:
        """Of an OOD set the split ("test" or "val") that a role's images are in, and their positions."""
        return self.data.shifts[number].role(role, self.shares[number, seed])

    def tested(self, number: int, seed: int) -> Tensor:
        """The positions of the images of an OOD set that test, in its test split."""
        return self.role(number, seed, "test")[1]

    def group_sizes(self, split: Split) -> Tensor:
        """The sizes in training (groups,) of a split's groups; none where training has other groups."""
        return self.metric.sizes if split.group_names == self.data.train.group_names else self.metric.sizes[:0]


def prepare(options: ProbeOptions, label: str, network: Normalized, data: ProbeData) -> ProbeStudy:
    """The study of a network; raises `UserError` for what cannot be done with it, or with the data."""
    protocol = options.protocol
    shares = {
        (number, seed): shift.shares(protocol.name, protocol.roles, seed)
        for number, shift in enumerate(data.shifts)
        for seed in protocol.seeds
    }
    validates = protocol.roles == "clean" and (protocol.learns_inside or "id-val" in options.rules)
    inner = {seed: divide_inner(len(data.train), ID_VAL if validates else 0, seed) for seed in protocol.seeds}
    for seed in protocol.seeds:
        _refuse_overlap(options, data, {number: shares[number, seed] for number in range(len(data.shifts))}, inner[seed])
    layout = choose(options, network, data.channels, data.size)
    compared = baselines.possible(options, layout, network, len(data.classes))
    metric = _metric(options.metric, data)
    parts = []
    if protocol.learns_inside:
        sets = training_sets.inside(protocol, data.train, inner)
    else:
        sets = training_sets.outside(protocol, data.shifts, shares, len(data.classes))
        if protocol.shared:
            sets, parts = training_sets.pooled(sets)
    if not any(len(one.positions) for one in sets):
        raise UserError("there is no image to learn from")
    return ProbeStudy(options, label, network, data, shares, inner, layout, compared, metric, sets, parts)


def _refuse_overlap(
    options: ProbeOptions, data: ProbeData, shares: dict[int, dict[str, Shares]], inner: InnerDivision
) -> None:
    """Raises `UserError` where an image has two roles under one seed; `shares` by number of the OOD set."""
    ids: dict[str, dict[str, set[int]]] = {role: {} for role in ROLES}

    def add(role: str, origin: str, split: Split, positions: Tensor) -> None:
        ids[role].setdefault(origin, set()).update(split.indices[positions].tolist())

    add("id-val", data.train_origin, data.train, inner.held_out)
    if options.protocol.learns_inside:
        add("probe-train", data.train_origin, data.train, inner.train)
    for number, shift in enumerate(data.shifts):
        for role in ("probe-train", "probe-val", "layer-val", "test"):
            which, positions = shift.role(role, shares[number])
            add(role, shift.origin if which == "test" else shift.val_origin, shift.splits[which], positions)
    refuse_overlap(ids, (("probe-val", "layer-val"),) if options.protocol.roles == "paper" else ())


def _metric(name: str, data: ProbeData) -> Metric:
    """The metric of that name, or the one that suits the data; raises `UserError` where they have no groups for it."""
    count = max(len(data.train.group_names), 1)
    grouped = count > 1 and all(shift.test.group_names == data.train.group_names for shift in data.shifts)
    if name == "auto":
        name = "worst-group" if grouped else "accuracy"
    if name != "accuracy" and not grouped:
        raise UserError(f"--metric {name}: {data.name} and the OOD sets have no groups in common")
    return Metric(name, torch.bincount(data.train.groups, minlength=count))
