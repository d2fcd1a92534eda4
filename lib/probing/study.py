"""A study of probes on one network, before any pass: its layers, the roles of the images, the training sets.

Intermediate-layers paper, section 2. What follows reads it and changes nothing of it:

    prepare                  -> ProbeStudy          what is asked for, what is drawn
    feature_provider.plan    -> FeatureProvider     where features come from
    study_fit.fit            -> FittedStudy         the probes
    scores.score             -> list[Scores]        whether they are right on the images of every OOD set
    study_choices.choose     -> list[RuleChoices]   what every rule chooses
    rows, network_rows, shift_rows                  what a record keeps of all that
"""

import warnings
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
    unseen     positions of training images that the network has not learnt from; None where nobody knows
    """

    name: str
    train: Split
    train_origin: str
    shifts: list[Shift]
    classes: tuple[str, ...]
    channels: int
    size: int
    members: tuple[tuple[int, ...], ...] = ()
    unseen: Tensor | None = None


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

    @property
    def validates_on_test(self) -> bool:
        """Whether images of OOD sets choose and test both, as in the notebook."""
        return _validates_on_test(self.options) and any(shift.val is None for shift in self.data.shifts)

    @property
    def known_of_held_out(self) -> str:
        """What is known of the network and the held-out in-distribution images, in words; nothing if it is untrained."""
        if self.label == "untrained":
            return ""
        if self.data.unseen is None:
            return "that the network may have learnt from"
        return "that the network has not seen" if len(self.data.unseen) else "that the network has learnt from"

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
    held_out = ID_VAL if validates else 0
    inner = {seed: divide_inner(len(data.train), held_out, seed, data.unseen) for seed in protocol.seeds}
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
    study = ProbeStudy(options, label, network, data, shares, inner, layout, compared, metric, sets, parts)
    _warn_of_shared_images(study)
    return study


def _validates_on_test(options: ProbeOptions) -> bool:
    return options.protocol.roles == "paper" and options.protocol.name == "zero-shot"


def _warn_of_shared_images(study: ProbeStudy) -> None:
    """Says where the notebooks' division gives an image two roles, or one image to several OOD sets."""
    seed = study.seeds[0]
    if study.validates_on_test:
        number = next(number for number, shift in enumerate(study.data.shifts) if shift.val is None)
        chosen, tested = len(study.role(number, seed, "probe-val")[1]), len(study.tested(number, seed))
        warnings.warn(
            f"--roles paper: {chosen} of the {tested} test images also choose settings and layer, as in the notebook; "
            "--roles clean keeps them apart",
            stacklevel=3,
        )
    if study.options.protocol.roles == "paper" and len(study.data.shifts) > 1 and study.parts:
        warnings.warn(
            "--roles paper: images are drawn for every OOD set anew, as in the notebook, so that one is learnt from under "
            "several; --roles clean gives each to one OOD set",
            stacklevel=3,
        )


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
            if role == "test" and which == "test" and shift.val is None and _validates_on_test(options):
                positions = positions[~torch.isin(positions, shift.role("probe-val", shares[number])[1])]
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
