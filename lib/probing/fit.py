"""From features to fitted probes: every group and setting of a tap at once.

What the probes see may be restricted to leading directions or standardised; both are folded into their weights at the
end, so that fitted probes always take features as they are.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.core.randomness import generator
from lib.probing import solvers
from lib.probing.stacked_probes import Linear, Mlp, Setting, Stack, combined, initial, initial_mlp
from lib.representations.feature_files import PIECE
from lib.representations.features import Features, SideBySide, Tap, Views

STEPWISE = ("adam", "sgd")  # solvers that need a batch at a time only
CHUNK = 4096  # rows that are read at once where all are passed through
COPIES = 3  # of the features in float64 that the other solvers hold

Probes = Linear | Mlp


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
class Recipe:
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

    def kept(self) -> list[int]:
        return sorted({*[epoch for epoch in self.keep if epoch <= self.epochs], self.epochs})


@dataclass(frozen=True)
class Fitted:
    """Probes (g, c) of one tap: candidate c is a setting and the number of epochs it was trained for."""

    linear: Probes  # weights (g, c, k, d)
    candidates: list[tuple[Setting, int]]
    left_out: Tensor | None = None  # (g, c, n): whether each example is right when left out; ridge only

    def of_group(self, number: int) -> Probes:
        return combined(lambda values: values[0][number], [self.linear])


@dataclass(frozen=True)
class Directions:
    """The mean and the principal directions of a layer's channels, for groups with a rank."""

    mean: Tensor
    basis: Tensor

    def projector(self, rank: int) -> Tensor:
        leading = self.basis[:, :rank]
        return leading @ leading.T


@dataclass(frozen=True)
class Sight:
    """How probes see features: restricted to directions around their mean, then shifted and scaled; None: as they are."""

    mean: Tensor | None = None
    projector: Tensor | None = None
    shift: Tensor | None = None
    scale: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        """(b, d) in float32."""
        if self.projector is not None:
            mean = self.mean.to(rows)
            rows = (rows - mean) @ self.projector.to(rows) + mean
        return rows if self.shift is None else (rows - self.shift) / self.scale

    def taken_in(self, linear: Linear) -> Linear:
        """A probe (k, d) of the features as one of what is seen of them, which `folded` undoes."""
        if self.shift is None:
            return linear
        return Linear(linear.weights * self.scale, linear.biases + linear.weights @ self.shift)

    def folded(self, probes: Probes) -> Probes:
        """The probes as they act on the features themselves."""
        if self.shift is not None:
            probes = probes.folded(shift=self.shift, scale=self.scale)
        if self.projector is not None:
            probes = probes.folded(matrix=self.projector, shift=self.mean)
        return probes


def sight(group: Group, directions: Directions | None) -> Sight:
    """What a group sees before anything is standardised."""
    return Sight() if group.rank is None else Sight(directions.mean, directions.projector(group.rank))


class Spread:
    """Mean and standard deviation per feature of rows that come in batches, in float64."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, rows: Tensor) -> None:
        rows = rows.double()
        self.count += len(rows)
        self.total, self.squares = self.total + rows.sum(0), self.squares + rows.square().sum(0)

    def sight(self, found: Sight) -> Sight:
        """`found`, whose rows were taken in, standardised by them; a feature that never changes is only shifted."""
        mean = self.total / self.count
        deviation = (self.squares / self.count - mean.square()).clamp_min(0).sqrt()
        flat = deviation <= 1e-6 * (1e-12 + mean.abs())
        return Sight(found.mean, found.projector, mean.float(), torch.where(flat, 1.0, deviation).float())


class Training:
    """The probes of one tap in training: they take batches of what they see, and are kept where the recipe says."""

    def __init__(
        self,
        name: Tap,
        dim: int,
        groups: list[Group],
        sights: list[Sight],
        settings: list[Setting],
        classes: int,
        recipe: Recipe,
        warm: Linear | None = None,
    ) -> None:
        self.sights, self.settings, self.recipe, self.kept = sights, settings, recipe, []
        seeds, label = [group.seed for group in groups], f"{name.layer}/{name.reduce}"
        if recipe.hidden:
            start = initial_mlp(dim, recipe.hidden, classes, seeds, len(settings), label)
        else:
            start = initial(dim, classes, seeds, len(settings), label, recipe.start)
        if warm is not None:
            heads = combined(torch.stack, [look.taken_in(warm) for look in sights])
            start = combined(lambda values: values[0][:, None].expand_as(values[1]).clone(), [heads, start])
        self.stack = Stack(start, settings, recipe.solver, recipe.momentum, recipe.weight_decay)

    def step(self, seen: Tensor, labels: Tensor, rate: float) -> None:
        """One step from what the groups see (g, b, d) and labels (g, b)."""
        self.stack.step(seen, labels, rate)

    def finish(self, epoch: int) -> None:
        if epoch in self.recipe.kept():
            self.kept.append(self.stack.now())

    def fitted(self) -> Fitted:
        together = combined(lambda values: torch.cat(values, 1), self.kept)
        parts = [
            look.folded(combined(lambda values, place=place: values[0][place], [together]))
            for place, look in enumerate(self.sights)
        ]
        return Fitted(
            combined(torch.stack, parts), [(setting, epoch) for epoch in self.recipe.kept() for setting in self.settings]
        )


def fit(
    name: Tap,
    sources: list[Features | SideBySide | Views],
    groups: list[Group],
    settings: list[Setting],
    classes: int,
    recipe: Recipe,
    directions: Directions | None = None,
    warm: Linear | None = None,
) -> Fitted:
    """The probes of one tap, from its kept features; `groups` have equally many examples.

    warm    weights (k, d) that every probe starts from
    """
    sights = [_sight(sources[group.source], group, directions, recipe) for group in groups]
    if recipe.solver not in STEPWISE:
        return _closed(name, sources, groups, sights, settings, classes, recipe)
    training = Training(name, sources[groups[0].source].dim, groups, sights, settings, classes, recipe, warm)
    inputs = _inputs(sources, groups, sights, recipe)
    if not recipe.epochs:
        training.finish(0)
    for epoch in range(1, recipe.epochs + 1):
        for places, rate in steps(groups, epoch, recipe):
            labels = torch.stack([group.labels[place] for group, place in zip(groups, places, strict=True)])
            training.step(inputs(places, epoch), labels, rate)
        training.finish(epoch)
    return training.fitted()


def steps(groups: list[Group], epoch: int, recipe: Recipe) -> Iterator[tuple[list[Tensor], float]]:
    """Per step of an epoch (from 1) the places of each group's batch and the factor of the learning rate."""
    n = len(groups[0].rows)
    rate = 0.1 ** sum(epoch > milestone for milestone in recipe.milestones)
    orders = {group.seed: torch.randperm(n, generator=generator(group.seed, "probe order", epoch)) for group in groups}
    for begin in range(0, n, recipe.batch_size):
        yield [orders[group.seed][begin : begin + recipe.batch_size] for group in groups], rate


def predictions(probes: Probes, features: Features | SideBySide, most: int = 1 << 26) -> Tensor:
    """The predicted class (c, n), int16, of probes with weights (c, k, d)."""
    chunk = max(1, most // max(probes.biases.numel(), features.dim))
    parts = [predicted(probes, features.rows(slice(begin, begin + chunk))) for begin in range(0, len(features), chunk)]
    return torch.cat(parts, -1)


def predicted(probes: Probes, rows: Tensor) -> Tensor:
    """The predicted class (c, b), int16, of rows (b, d)."""
    return probes.logits(rows).argmax(-1).to(torch.int16)


def _all_rows(source, group: Group) -> Tensor:
    """The rows of a group's examples in all views, (views n,)."""
    stride = len(source) // group.views
    return torch.cat([group.rows + view * stride for view in range(group.views)])


def _sight(source, group: Group, directions: Directions | None, recipe: Recipe) -> Sight:
    found = sight(group, directions)
    if not recipe.standardise:
        return found
    spread = Spread()
    for part in _parts(source, group, found):
        spread.add(part)
    return spread.sight(found)


def _parts(source, group: Group, look: Sight) -> Iterator[Tensor]:
    """All that a group sees (b, d), in turn."""
    for rows in _all_rows(source, group).split(CHUNK):
        yield look(source.rows(rows))


def _inputs(sources, groups: list[Group], sights: list[Sight], recipe: Recipe) -> Callable[[list[Tensor], int], Tensor]:
    """A function from the places of each group's batch, and the epoch, to what it sees (g, b, d); made beforehand where
    memory allows. What it returns holds until it is called again."""
    keys = [(group.source, group.rows.data_ptr(), group.rank) for group in groups]
    distinct = {key: number for number, key in enumerate(keys)}
    sizes = [len(sources[group.source]) // group.views for group in groups]
    views, dim = groups[0].views, sources[groups[0].source].dim
    room = torch.empty(len(groups), min(recipe.batch_size, len(groups[0].rows)), dim)
    size = sum(len(groups[number].rows) * views * dim * 4 for number in distinct.values())
    made = {}
    if size <= recipe.gib / 4 * 2**30:
        made = {
            key: sights[number](
                sources[groups[number].source].rows(_all_rows(sources[groups[number].source], groups[number]))
            )
            for key, number in distinct.items()
        }

    def inputs(places: list[Tensor], epoch: int) -> Tensor:
        view = (epoch - 1) % views
        for number, (group, place) in enumerate(zip(groups, places, strict=True)):
            mine = room[number, : len(place)]
            if made:
                torch.index_select(made[keys[number]], 0, place + view * len(group.rows), out=mine)
                continue
            index = group.rows[place] + view * sizes[number]
            for part, seen in zip(index.split(PIECE), mine.split(PIECE), strict=True):
                seen.copy_(sights[number](sources[group.source].rows(part)))
        return room[:, : len(places[0])]

    return inputs


def _closed(
    name: Tap, sources, groups: list[Group], sights: list[Sight], settings: list[Setting], classes: int, recipe: Recipe
) -> Fitted:
    n, d = len(groups[0].rows) * groups[0].views, sources[groups[0].source].dim
    whole = _fits(n, d, recipe)
    linears, left_out = [], []
    for group, look in zip(groups, sights, strict=True):
        source, labels = sources[group.source], group.labels.repeat(group.views)
        penalties = [setting.l2 for setting in settings]
        if recipe.solver == "ridge":
            if whole:
                solved = solvers.ridge(look(source.rows(_all_rows(source, group))), labels, classes, penalties)
            else:
                parts = functools.partial(_parts, source, group, look)
                solved = solvers.streamed_ridge(parts, labels, classes, penalties)
            linear = solved.linear
            if group.views == 1:  # another view of an image that is left out is not left out
                left_out.append(solved.left_out == labels)
        elif recipe.solver == "lbfgs":
            linear = solvers.lbfgs(look(source.rows(_all_rows(source, group))), labels, classes, penalties, recipe.epochs)
        else:
            linear = solvers.proximal(
                look(source.rows(_all_rows(source, group))),
                labels,
                classes,
                [(setting.l1, setting.l2) for setting in settings],
                recipe.epochs,
            )
        linears.append(look.folded(Linear(linear.weights.float(), linear.biases.float())))
    return Fitted(
        combined(torch.stack, linears),
        [(setting, recipe.epochs) for setting in settings],
        torch.stack(left_out) if left_out else None,
    )


def check_memory(name: Tap, n: int, d: int, recipe: Recipe, streams: bool = False, stacked: float = 1.0) -> None:
    """Raises `UserError` unless the solver can learn from n x d features: at once, in batches, or by their Gram matrix.

    streams    they come in batches only, with those of other layers: the Gram matrices take `stacked` times the memory
    """
    if recipe.solver in STEPWISE or _fits(n, d, recipe) and not streams:
        return
    size = stacked * solvers.GRAM_COPIES * d * d * 8 / 2**30
    if recipe.solver == "ridge" and size <= recipe.gib / 2:
        return
    lacking = (
        f"and its Gram matrices take {size:.1f} GiB"
        if recipe.solver == "ridge"
        else "and this solver needs all of them at once"
    )
    raise UserError(
        f"--solver {recipe.solver}: the {n} x {d} features of layer {name.layer} do not fit into half of "
        f"--cache-gib {recipe.gib:g} in float64, {lacking}; --reduce gap makes them fewer, --solver adam takes "
        "them in batches"
    )


def _fits(n: int, d: int, recipe: Recipe) -> bool:
    return COPIES * n * d * 8 / 2**30 <= recipe.gib / 2
