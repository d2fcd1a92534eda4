"""From features to fitted probes: every group and setting of a tap at once.

What the probes see may be restricted to leading directions or standardised; both are folded into their weights at the
end, so that fitted probes always take features as they are.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.errors import UserError
from lib.features import Features, Tap
from lib.probes import solvers
from lib.probes.stack import Linear, Setting, Stack, initial
from lib.randomness import generator

STEPWISE = ("adam", "sgd")  # solvers that need a batch at a time only


@dataclass(frozen=True)
class Group:
    """Probes that learn from the same examples, in the same order, from the same start.

    source is the number of the features that `rows` (n,) are positions in; labels (n,); rank None for all directions.
    """

    rows: Tensor
    labels: Tensor
    seed: int = 0
    rank: int | None = None
    source: int = 0


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
    standardise: bool = False
    gib: float = 2.0  # of memory for float features

    def kept(self) -> list[int]:
        return sorted({*[epoch for epoch in self.keep if epoch <= self.epochs], self.epochs})


@dataclass(frozen=True)
class Fitted:
    """Probes (g, c) of one tap: candidate c is a setting and the number of epochs it was trained for."""

    linear: Linear  # weights (g, c, k, d)
    candidates: list[tuple[Setting, int]]
    left_out: Tensor | None = None  # (g, c, n): whether each example is right when left out; ridge only

    def of_group(self, number: int) -> Linear:
        return Linear(self.linear.weights[number], self.linear.biases[number])


@dataclass(frozen=True)
class Directions:
    """The mean and the principal directions of a layer's channels, for groups with a rank."""

    mean: Tensor
    basis: Tensor

    def projector(self, rank: int) -> Tensor:
        leading = self.basis[:, :rank]
        return leading @ leading.T


def fit(name: Tap, sources: list[Features], groups: list[Group], settings: list[Setting], classes: int, recipe: Recipe,
        directions: Directions | None = None, warm: Linear | None = None) -> Fitted:
    """The probes of one tap, from its kept features; `groups` have equally many examples.

    warm    weights (k, d) that every probe starts from
    """
    seen = [_Seen(sources[group.source], group, directions, recipe.standardise) for group in groups]
    if recipe.solver not in STEPWISE:
        return _closed(name, seen, groups, settings, classes, recipe)
    stack = _stack(name, groups, settings, sources[groups[0].source].dim, classes, recipe, warm)
    inputs = _inputs(seen, groups, recipe)
    snapshots = []
    for places, rate, finished in _steps(groups, recipe):
        if finished:
            snapshots.append(stack.linear())
            continue
        labels = torch.stack([group.labels[place] for group, place in zip(groups, places, strict=True)])
        stack.step(inputs(places), labels, rate)
    return _fitted(snapshots, seen, settings, recipe)


def predictions(linear: Linear, features: Features, most: int = 1 << 26) -> Tensor:
    """The predicted class (c, n), int16, of probes with weights (c, k, d)."""
    chunk = max(1, most // max(linear.biases.numel(), features.dim))
    parts = [linear.logits(features.rows(slice(begin, begin + chunk))).argmax(-1).to(torch.int16)
             for begin in range(0, len(features), chunk)]
    return torch.cat(parts, -1)


class _Seen:
    """What the probes of a group see of its features."""

    def __init__(self, source: Features, group: Group, directions: Directions | None, standardise: bool) -> None:
        self.source, self.group = source, group
        self.projector = directions.projector(group.rank) if group.rank is not None else None
        self.mean = directions.mean if group.rank is not None else None
        self.shift = self.scale = None
        if standardise:
            moments = _spread(self.rows(group.rows[begin:begin + 4096]) for begin in range(0, len(group.rows), 4096))
            self.shift, self.scale = moments

    def rows(self, index: Tensor) -> Tensor:
        """(b, d) in float32."""
        found = self.source.rows(index)
        if self.projector is not None:
            mean = self.mean.to(found)
            found = (found - mean) @ self.projector.to(found) + mean
        if self.shift is not None:
            found = (found - self.shift) / self.scale
        return found

    def folded(self, linear: Linear) -> Linear:
        """The probes as they act on the source's features."""
        if self.shift is not None:
            linear = linear.folded(shift=self.shift, scale=self.scale)
        if self.projector is not None:
            linear = linear.folded(matrix=self.projector, shift=self.mean)
        return linear


def _spread(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per feature; 1 where a feature never changes."""
    count, total, squares = 0, 0.0, 0.0
    for part in parts:
        part = part.double()
        count, total, squares = count + len(part), total + part.sum(0), squares + part.square().sum(0)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    flat = deviation <= 1e-6 * (1e-12 + mean.abs())
    return mean.float(), torch.where(flat, 1.0, deviation).float()


def _stack(name, groups, settings, dim, classes, recipe, warm) -> Stack:
    seeds = [group.seed for group in groups]
    start = initial(dim, classes, seeds, len(settings), f"{name.layer}/{name.reduce}", recipe.start)
    if warm is not None:
        start = Linear(warm.weights.expand_as(start.weights).clone(), warm.biases.expand_as(start.biases).clone())
    return Stack(start, settings, recipe.solver, recipe.momentum, recipe.weight_decay)


def _steps(groups: list[Group], recipe: Recipe):
    """Per step (the places of each group's batch, the factor of the learning rate, False); (None, 1, True) where the
    probes of an epoch are kept."""
    n, kept = len(groups[0].rows), recipe.kept()
    if recipe.epochs == 0:
        yield None, 1.0, True
    for epoch in range(1, recipe.epochs + 1):
        rate = 0.1 ** sum(epoch > milestone for milestone in recipe.milestones)
        orders = {group.seed: torch.randperm(n, generator=generator(group.seed, "probe order", epoch)) for group in groups}
        for begin in range(0, n, recipe.batch_size):
            yield [orders[group.seed][begin:begin + recipe.batch_size] for group in groups], rate, False
        if epoch in kept:
            yield None, 1.0, True


def _inputs(seen: list[_Seen], groups: list[Group], recipe: Recipe) -> Callable[[list[Tensor]], Tensor]:
    """A function from the places of each group's batch to its features (g, b, d); made beforehand where memory allows."""
    keys = [(group.source, group.rows.data_ptr(), group.rank) for group in groups]
    distinct = dict(zip(keys, seen, strict=True))
    size = sum(len(view.group.rows) * view.source.dim * 4 for view in distinct.values())
    if size <= recipe.gib * 2 ** 30:
        made = {key: view.rows(view.group.rows) for key, view in distinct.items()}
        return lambda places: torch.stack([made[key][place] for key, place in zip(keys, places, strict=True)])
    return lambda places: torch.stack([view.rows(view.group.rows[place])
                                       for view, place in zip(seen, places, strict=True)])


def _fitted(snapshots: list[Linear], seen: list[_Seen], settings: list[Setting], recipe: Recipe) -> Fitted:
    weights = torch.cat([snapshot.weights for snapshot in snapshots], 1)
    biases = torch.cat([snapshot.biases for snapshot in snapshots], 1)
    parts = [view.folded(Linear(weights[place], biases[place])) for place, view in enumerate(seen)]
    linear = Linear(torch.stack([part.weights for part in parts]), torch.stack([part.biases for part in parts]))
    return Fitted(linear, [(setting, epoch) for epoch in recipe.kept() for setting in settings])


def _closed(name: Tap, seen: list[_Seen], groups: list[Group], settings: list[Setting], classes: int,
            recipe: Recipe) -> Fitted:
    n, d = len(groups[0].rows), seen[0].source.dim
    size = n * d * 8 / 2 ** 30
    if size > recipe.gib:
        raise UserError(f"--solver {recipe.solver}: {n} x {d} features of layer {name.layer} take {size:.1f} GiB, more than "
                        f"--cache-gib {recipe.gib:g}, and this solver needs all of them; --reduce gap makes them fewer, "
                        "--solver adam takes them in batches")
    linears, left_out = [], []
    for view, group in zip(seen, groups, strict=True):
        features = view.rows(group.rows)
        if recipe.solver == "ridge":
            solved = solvers.ridge(features, group.labels, classes, [setting.l2 for setting in settings])
            linear = solved.linear
            left_out.append(solved.left_out == group.labels)
        elif recipe.solver == "lbfgs":
            linear = solvers.lbfgs(features, group.labels, classes, [setting.l2 for setting in settings], recipe.epochs)
        else:
            linear = solvers.proximal(features, group.labels, classes, [(setting.l1, setting.l2) for setting in settings],
                                      recipe.epochs)
        linears.append(view.folded(Linear(linear.weights.float(), linear.biases.float())))
    linear = Linear(torch.stack([one.weights for one in linears]), torch.stack([one.biases for one in linears]))
    return Fitted(linear, [(setting, recipe.epochs) for setting in settings],
                  torch.stack(left_out) if left_out else None)
