"""From features to fitted probes: every group and setting of a tap at once."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.core.randomness import generator
from lib.probing import solvers
from lib.probing.feature_transform import Directions, FeatureSpread, FeatureTransform
from lib.probing.stacked_probes import (
    FeatureClassifiers,
    Linear,
    Probes,
    Setting,
    Stack,
    combined,
    initial,
    initial_mlp,
    moved,
)
from lib.representations.feature_cache import GIB
from lib.representations.feature_files import PIECE
from lib.representations.features import AnyFeatures, Tap

STEPWISE = ("adam", "sgd")  # solvers that need a batch at a time only
CHUNK = 4096  # rows that are read at once where all are passed through
CPU = torch.device("cpu")
COPIES = 3  # of the features in float64 that the other solvers hold


@dataclass(frozen=True)
class Group:
    """Probes that learn from the same examples, in the same order, from the same start.

    source is the number of the features that `rows` (n,) are positions in; labels (n,); rank None for all directions.
    With several views the source holds them behind one another, and epoch e learns from view (e - 1) mod views.
    """

    rows: Tensor
    labels: Tensor
    seed: int = 0
    rank: int | None = None
    source: int = 0
    views: int = 1


@dataclass(frozen=True, kw_only=True)
class ProbeRecipe:
    """How probes are fitted; `keep` are the epochs whose probes are candidates, the last one always is."""

    solver: str = "adam"
    epochs: int = 10
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    keep: tuple[int, ...] = ()
    start: str = "uniform"
    hidden: int = 0  # units of a hidden layer; 0: linear probes
    standardise: bool = False
    gib: float = 2.0  # of memory: half of it for kept features, half for what fitting holds
    device: torch.device = CPU  # where probes are fitted; what is fitted is on the CPU

    def kept_epochs(self) -> list[int]:
        """The epochs whose probes are candidates, in order."""
        return sorted({*[epoch for epoch in self.keep if epoch <= self.epochs], self.epochs})


@dataclass(frozen=True)
class Candidate:
    """What a rule may choose at a site: a setting (None: the method has none) and the epochs of training."""

    setting: Setting | None
    epochs: int


@dataclass(frozen=True)
class FittedProbes:
    """Probes (g, c) of one tap for g groups and c candidates."""

    probes: Probes  # weights (g, c, k, d)
    candidates: list[Candidate]
    left_out: Tensor | None = None  # (g, c, n): whether each example is right when left out; ridge only

    def of_group(self, number: int) -> Probes:
        """Those of one group: weights (c, k, d)."""
        return combined(lambda values: values[0][number], [self.probes])


class ProbeTraining:
    """The probes of one tap in training: they take batches of transformed features, and are kept where the recipe says."""

    def __init__(
        self,
        dim: int,
        groups: list[Group],
        transforms: list[FeatureTransform],
        settings: list[Setting],
        classes: int,
        recipe: ProbeRecipe,
        warm: Linear | None = None,
    ) -> None:
        self.transforms, self.settings, self.recipe = transforms, settings, recipe
        self.kept: list[Probes] = []
        seeds = [group.seed for group in groups]
        if recipe.hidden:
            start = initial_mlp(dim, recipe.hidden, classes, seeds, len(settings))
        else:
            start = initial(dim, classes, seeds, len(settings), recipe.start)
            if warm is not None:
                warm = moved(warm, recipe.device)
                heads = moved(combined(torch.stack, [transform.unfolded(warm) for transform in transforms]), CPU)
                start = combined(lambda values: values[0][:, None].expand_as(values[1]).clone(), [heads, start])
        self.stack = Stack(moved(start, recipe.device), settings, recipe.solver, recipe.momentum, recipe.weight_decay)

    def step(self, rows: Tensor, labels: Tensor, rate: float) -> None:
        """One step from the groups' transformed features (g, b, d) on the recipe's device, and labels (g, b)."""
        self.stack.step(rows, labels.to(rows.device, non_blocking=True), rate)

    def finish(self, epoch: int) -> None:
        """Ends an epoch, counted from 1 (0: before the first)."""
        if epoch in self.recipe.kept_epochs():
            self.kept.append(self.stack.now())

    def fitted(self) -> FittedProbes:
        """The kept probes, of the features as they are."""
        together = combined(lambda values: torch.cat(values, 1), self.kept)
        folded = [
            transform.folded(combined(lambda values, group=group: values[0][group], [together]))
            for group, transform in enumerate(self.transforms)
        ]
        candidates = [Candidate(setting, epoch) for epoch in self.recipe.kept_epochs() for setting in self.settings]
        return FittedProbes(moved(combined(torch.stack, folded), CPU), candidates)


@dataclass(frozen=True)
class _Uploaded:
    """Kept features whose rows are put on a device when they are read."""

    kept: AnyFeatures
    device: torch.device

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def dim(self) -> int:
        return self.kept.dim

    def rows(self, index: Tensor) -> Tensor:
        return self.kept.rows(index).to(self.device, non_blocking=self.device.type == "cuda")


def fit(
    tap: Tap,
    kept: Sequence[AnyFeatures],
    groups: list[Group],
    settings: list[Setting],
    classes: int,
    recipe: ProbeRecipe,
    directions: Directions | None = None,
    warm: Linear | None = None,
) -> FittedProbes:
    """The probes of one tap, from its kept features; `groups` have equally many examples.

    directions    those that groups with a rank are restricted to
    warm          weights (k, d) that every probe starts from
    """
    sources = [_Uploaded(features, recipe.device) for features in kept]
    transforms = [_transform(sources[group.source], group, directions, recipe) for group in groups]
    if recipe.solver not in STEPWISE:
        return _closed(sources, groups, transforms, settings, classes, recipe)
    training = ProbeTraining(sources[groups[0].source].dim, groups, transforms, settings, classes, recipe, warm)
    inputs = _inputs(sources, groups, transforms, recipe)
    if not recipe.epochs:
        training.finish(0)
    for epoch in range(1, recipe.epochs + 1):
        for positions, rate in steps(groups, epoch, recipe):
            labels = torch.stack([group.labels[chosen] for group, chosen in zip(groups, positions, strict=True)])
            training.step(inputs(positions, epoch), labels, rate)
        training.finish(epoch)
    return training.fitted()


def restricted(group: Group, directions: Directions | None, device: torch.device) -> FeatureTransform:
    """The transform of a group's features, on a device, before anything is standardised."""
    if group.rank is None:
        return FeatureTransform()
    if directions is None:
        raise ValueError(f"rank {group.rank}: there are no directions to restrict features to")
    return FeatureTransform(directions.restriction(group.rank, device))


def steps(groups: list[Group], epoch: int, recipe: ProbeRecipe) -> Iterator[tuple[list[Tensor], float]]:
    """Per step of an epoch (from 1) the positions of each group's batch among its rows, and the learning rate's factor."""
    n = len(groups[0].rows)
    rate = 0.1 ** sum(epoch > milestone for milestone in recipe.milestones)
    orders = {group.seed: torch.randperm(n, generator=generator(group.seed, "probe order", epoch)) for group in groups}
    for begin in range(0, n, recipe.batch_size):
        yield [orders[group.seed][begin : begin + recipe.batch_size] for group in groups], rate


def predictions(probes: Probes, features: AnyFeatures, most: int = 1 << 26) -> Tensor:
    """The predicted class (c, n), int16, of probes with weights (c, k, d)."""
    chunk = max(1, most // max(probes.biases.numel(), features.dim))
    parts = [predicted(probes, features.rows(slice(begin, begin + chunk))) for begin in range(0, len(features), chunk)]
    return torch.cat(parts, -1)


def predicted(probes: FeatureClassifiers, rows: Tensor) -> Tensor:
    """The predicted class (c, b), int16, of rows (b, d)."""
    return probes.logits(rows).argmax(-1).to(torch.int16)


def _all_rows(source: _Uploaded, group: Group) -> Tensor:
    """The rows of a group's examples in all views, (views n,)."""
    stride = len(source) // group.views
    return torch.cat([group.rows + view * stride for view in range(group.views)])


def _transform(source: _Uploaded, group: Group, directions: Directions | None, recipe: ProbeRecipe) -> FeatureTransform:
    transform = restricted(group, directions, recipe.device)
    if not recipe.standardise:
        return transform
    spread = FeatureSpread()
    for part in _parts(source, group, transform):
        spread.add(part)
    return spread.standardising(transform)


def _parts(source: _Uploaded, group: Group, transform: FeatureTransform) -> Iterator[Tensor]:
    """All of a group's transformed features (b, d), in turn."""
    for rows in _all_rows(source, group).split(CHUNK):
        yield transform.apply(source.rows(rows))


def _inputs(
    sources: Sequence[_Uploaded], groups: list[Group], transforms: list[FeatureTransform], recipe: ProbeRecipe
) -> Callable[[list[Tensor], int], Tensor]:
    """A function from the positions of each group's batch, and the epoch, to its transformed features (g, b, d).

    They are made beforehand where memory allows. What it returns holds until it is called again.
    """
    keys = [(group.source, group.rows.data_ptr(), group.rank) for group in groups]
    distinct = {key: number for number, key in enumerate(keys)}
    strides = [len(sources[group.source]) // group.views for group in groups]
    views, dim = groups[0].views, sources[groups[0].source].dim
    room = torch.empty(len(groups), min(recipe.batch_size, len(groups[0].rows)), dim, device=recipe.device)
    size = sum(len(groups[number].rows) * views * dim * 4 for number in distinct.values())
    whole = {}
    if size <= recipe.gib / 4 * GIB:
        whole = {key: _whole(sources, groups[number], transforms[number]) for key, number in distinct.items()}

    def inputs(positions: list[Tensor], epoch: int) -> Tensor:
        view = (epoch - 1) % views
        for number, (group, chosen) in enumerate(zip(groups, positions, strict=True)):
            batch = room[number, : len(chosen)]
            if whole:
                index = (chosen + view * len(group.rows)).to(batch.device, non_blocking=True)
                torch.index_select(whole[keys[number]], 0, index, out=batch)
                continue
            index = group.rows[chosen] + view * strides[number]
            for part, target in zip(index.split(PIECE), batch.split(PIECE), strict=True):
                target.copy_(transforms[number].apply(sources[group.source].rows(part)))
        return room[:, : len(positions[0])]

    return inputs


def _whole(sources: Sequence[_Uploaded], group: Group, transform: FeatureTransform) -> Tensor:
    """A group's transformed features in all views, (views n, d)."""
    source = sources[group.source]
    return transform.apply(source.rows(_all_rows(source, group)))


def _closed(
    sources: Sequence[_Uploaded],
    groups: list[Group],
    transforms: list[FeatureTransform],
    settings: list[Setting],
    classes: int,
    recipe: ProbeRecipe,
) -> FittedProbes:
    """By the solvers that take all examples at once."""
    n, d = len(groups[0].rows) * groups[0].views, sources[groups[0].source].dim
    fits = _fits(n, d, recipe)
    probes, left_out = [], []
    penalties = [setting.l2 for setting in settings]
    for group, transform in zip(groups, transforms, strict=True):
        labels = group.labels.repeat(group.views).to(recipe.device)
        if recipe.solver == "ridge":
            if fits:
                solved = solvers.ridge(_whole(sources, group, transform), labels, classes, penalties)
            else:
                parts = functools.partial(_parts, sources[group.source], group, transform)
                solved = solvers.streamed_ridge(parts, labels, classes, penalties)
            linear = solved.linear
            if group.views == 1:  # another view of an image that is left out is not left out
                left_out.append(solved.left_out == labels)
        elif recipe.solver == "lbfgs":
            linear = solvers.lbfgs(_whole(sources, group, transform), labels, classes, penalties, recipe.epochs)
        else:
            both = [(setting.l1, setting.l2) for setting in settings]
            linear = solvers.proximal(_whole(sources, group, transform), labels, classes, both, recipe.epochs)
        probes.append(transform.folded(linear.single_precision()))
    return FittedProbes(
        moved(combined(torch.stack, probes), CPU),
        [Candidate(setting, recipe.epochs) for setting in settings],
        torch.stack(left_out).cpu() if left_out else None,
    )


def check_memory(tap: Tap, n: int, d: int, recipe: ProbeRecipe, streams: bool = False, stacked: float = 1.0) -> None:
    """Raises `UserError` unless the solver can learn from n x d features: at once, in batches, or by their Gram matrix.

    streams    they come in batches only, with those of other layers: the Gram matrices take `stacked` times the memory
    """
    if recipe.solver in STEPWISE or _fits(n, d, recipe) and not streams:
        return
    size = stacked * solvers.GRAM_COPIES * d * d * 8 / GIB
    if recipe.solver == "ridge" and size <= recipe.gib / 2:
        return
    lacking = (
        f"and its Gram matrices take {size:.1f} GiB"
        if recipe.solver == "ridge"
        else "and this solver needs all of them at once"
    )
    raise UserError(
        f"--solver {recipe.solver}: the {n} x {d} features of layer {tap.layer} do not fit into half of "
        f"--cache-gib {recipe.gib:g} in float64, {lacking}; --reduce gap makes them fewer, --solver adam takes "
        "them in batches"
    )


def _fits(n: int, d: int, recipe: ProbeRecipe) -> bool:
    return COPIES * n * d * 8 / GIB <= recipe.gib / 2
