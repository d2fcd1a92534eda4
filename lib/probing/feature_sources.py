"""Where probes take features from: what is kept, or the network, run again whenever they are asked for.

Both give batches of rows by name, all in one pass. A name is a tap; where directions are fitted on each batch of images, it
is a place (a tap and a rank), since every rank then sees other features.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models.normalized import Normalized
from lib.probing import solvers
from lib.probing.fit import Directions, Fitted, Group, Probes, Recipe, Sight, Spread, Training, predicted, sight, steps
from lib.probing.stacked_probes import Linear, Setting, combined
from lib.representations import principal_components
from lib.representations.features import Features, SideBySide, Tap
from lib.representations.passes import View, reduced_outputs

NUMBERS = 2**23  # features and logits that are held at once while kept features are gone through


@dataclass(frozen=True)
class Place:
    """Where a probe reads: a tap, restricted to `rank` directions unless None; and what kind of probe it is."""

    tap: Tap
    rank: int | None = None
    kind: str = "probe"


@dataclass(frozen=True)
class Unit:
    """Probes of one seed that learn from `positions` of a source; `shift` is the number of the OOD set, None for all.

    views is the number of augmented views of the images, 0 for the images as they are.
    """

    seed: int
    source: int
    positions: Tensor
    labels: Tensor
    groups: Tensor | None = None
    fraction: float | None = None
    shift: int | None = None
    views: int = 0

    def group(self, rank: int | None = None) -> Group:
        return Group(self.positions, self.labels, self.seed, rank, self.source, max(1, self.views))


class Kept:
    """Features of a split that are kept, by tap."""

    def __init__(self, features: dict[Tap, Features | SideBySide]) -> None:
        self.features = features

    def rows(self, name: Tap, index: Tensor) -> Tensor:
        return self.features[name].rows(index)

    def dim(self, name: Tap) -> int:
        return self.features[name].dim

    def batches(self, names: list[Tap], order: Tensor | None = None) -> Iterator[tuple[Tensor, dict[Tap, Tensor]]]:
        """(positions (b,), rows (b, d) by name) over all images, or over those in `order`."""
        n = len(next(iter(self.features.values()))) if order is None else len(order)
        chunk = max(1, NUMBERS // max(1, sum(self.features[name].dim for name in names)))
        positions = torch.arange(n) if order is None else order
        for begin in range(0, n, chunk):
            part = slice(begin, begin + chunk)  # of a mapped file it is read in one go
            index = part if order is None else order[part]
            yield positions[part], {name: self.features[name].rows(index) for name in names}


class Live:
    """Features of a split that are computed whenever they are asked for, all layers in one pass of the network."""

    def __init__(
        self,
        network: Normalized,
        split: Split,
        reduce: dict[str, Callable[[Tensor], dict]],
        sizes: dict,
        batching: Batching,
        seed: int = 0,
    ) -> None:
        self.network, self.split, self.reduce, self.sizes = network, split, reduce, sizes
        self.batching, self.seed = batching, seed

    def rows(self, name: Tap | Place, index: Tensor) -> Tensor:
        return torch.cat([rows[name] for _, rows in self.batches([name], index)])

    def dim(self, name: Tap | Place) -> int:
        return self.sizes[name]

    def batches(
        self, names: list, order: Tensor | None = None, batch_size: int | None = None, view: int | None = None
    ) -> Iterator[tuple[Tensor, dict]]:
        """As `Kept.batches`, in batches of a given size, of a view of the images."""
        batching = self.batching if batch_size is None else replace(self.batching, batch_size=batch_size)
        seen = None if view is None else View(view, self.seed)
        layers = {(name.tap if isinstance(name, Place) else name).layer for name in names}
        reduce = {layer: function for layer, function in self.reduce.items() if layer in layers}
        for positions, rows in reduced_outputs(self.network, self.split, reduce, batching, order=order, view=seen):
            yield positions, {name: rows[name].cpu() for name in names}


def limited_in_batch(made: dict[Tap, Callable[[Tensor], Tensor]], ranks: tuple[int, ...]) -> Callable[[Tensor], dict]:
    """From a layer's output on a batch to its features at every rank, in the directions of that very batch.

    The stitching paper's released way (section 3.8): what an image is turned into depends on the images beside it.
    """

    def reduced(output: Tensor) -> dict[Tap | Place, Tensor]:
        moments = principal_components.Moments()
        moments.add(principal_components.channel_rows(output))
        basis = principal_components.basis(moments.covariance)
        # pooling and projecting commute
        pooled = {tap: reduce(output).float().clone() for tap, reduce in made.items()}
        return pooled | {
            Place(tap, rank): principal_components.project(rows, moments.mean, basis, rank)
            for tap, rows in pooled.items()
            for rank in ranks
        }

    return reduced


def fit_live(
    live: Live,
    unit: Unit,
    places: dict[Tap | Place, list[Place]],
    settings: list[Setting],
    classes: int,
    recipe: Recipe,
    directions: dict[str, Directions],
    warm: dict[Tap, Linear],
) -> dict[Place, tuple[Probes, Fitted, int]]:
    """The probes of one unit at all places, with a pass per epoch: what `lib.probing.fit.fit` makes of kept features.

    places    those that learn from each name of the source
    """
    groups = {
        name: [unit.group(place.rank if isinstance(name, Tap) else None) for place in read] for name, read in places.items()
    }
    sights = {name: [sight(group, directions.get(_tap(name).layer)) for group in groups[name]] for name in places}
    views = range(unit.views) if unit.views else (None,)
    if recipe.standardise:
        spreads = {name: [Spread() for _ in found] for name, found in sights.items()}
        for view in views:
            for _, rows in live.batches(list(places), unit.positions, view=view):
                for name, found in sights.items():
                    for look, spread in zip(found, spreads[name], strict=True):
                        spread.add(look(rows[name]))
        sights = {
            name: [spread.sight(look) for look, spread in zip(found, spreads[name], strict=True)]
            for name, found in sights.items()
        }
    if recipe.solver == "ridge":
        fitted = _ridge(live, unit, sights, settings, classes, recipe)
    else:
        trainings = {
            name: Training(
                _tap(name), live.dim(name), groups[name], sights[name], settings, classes, recipe, warm.get(_tap(name))
            )
            for name in places
        }
        if not recipe.epochs:
            for training in trainings.values():
                training.finish(0)
        for epoch in range(1, recipe.epochs + 1):
            _epoch(live, unit, trainings, epoch, recipe)
        fitted = {name: training.fitted() for name, training in trainings.items()}
    return {
        place: (fitted[name].of_group(number), fitted[name], number)
        for name, read in places.items()
        for number, place in enumerate(read)
    }


def scored(source: Kept | Live, probes: dict, labels: Tensor, order: Tensor | None = None) -> dict:
    """Whether each image is right: name of a probe -> (c, n), from {name: (where it reads, probes (c, k, d))}."""
    names, found = list(dict.fromkeys(place for place, _ in probes.values())), {key: [] for key in probes}
    if not probes:
        return {}
    for positions, rows in source.batches(names, order):
        for key, (place, probe) in probes.items():
            step = max(1, NUMBERS // probe.biases.numel())
            found[key] += [
                predicted(probe, part) == labels[positions[begin * step : begin * step + len(part)]]
                for begin, part in enumerate(rows[place].split(step))
            ]
    return {key: torch.cat(parts, -1) for key, parts in found.items()}


def class_means(source: Kept | Live, taps: list[Tap], unit: Unit, classes: int) -> dict[Tap, Linear]:
    """The nearest class mean (Euclidean) as a linear probe (1, k, d); a class without images is never the nearest."""
    totals = {tap: torch.zeros(classes, source.dim(tap)) for tap in taps}
    label = torch.full((int(unit.positions.max()) + 1,), -1)
    label[unit.positions] = unit.labels
    for positions, rows in source.batches(taps, unit.positions):
        for tap in taps:
            totals[tap].index_add_(0, label[positions], rows[tap])
    count = torch.bincount(unit.labels, minlength=classes)
    means = {tap: total / count.clamp_min(1)[:, None] for tap, total in totals.items()}
    return {
        tap: Linear(mean[None], torch.where(count > 0, -0.5 * mean.square().sum(1), -torch.inf)[None])
        for tap, mean in means.items()
    }


def _epoch(live: Live, unit: Unit, trainings: dict, epoch: int, recipe: Recipe) -> None:
    """One pass: every batch is a step of every probe."""
    plan = [(places[0], rate) for places, rate in steps([unit.group()], epoch, recipe)]
    order = unit.positions[torch.cat([places for places, _ in plan])]
    view = (epoch - 1) % unit.views if unit.views else None
    batches = live.batches(list(trainings), order, recipe.batch_size, view)
    for (_, rows), (places, rate) in zip(batches, plan, strict=True):
        for name, training in trainings.items():
            seen = torch.stack([look(rows[name]) for look in training.sights])
            training.step(seen, unit.labels[places].expand(len(seen), -1), rate)
    for training in trainings.values():
        training.finish(epoch)


def _ridge(
    live: Live, unit: Unit, sights: dict[object, list[Sight]], settings: list[Setting], classes: int, recipe: Recipe
) -> dict[object, Fitted]:
    """Two passes over the unit's images: one for the Gram matrices, one that leaves each image out."""
    grams = {name: [solvers.GramRidge(classes) for _ in found] for name, found in sights.items()}
    known = torch.full((len(live.split),), -1)
    known[unit.positions] = unit.labels
    for view in range(unit.views) if unit.views else (None,):
        for positions, rows in live.batches(list(sights), unit.positions, view=view):
            for name, found in sights.items():
                for look, gram in zip(found, grams[name], strict=True):
                    gram.add(look(rows[name]), known[positions])
    solved = {name: [gram.solve([setting.l2 for setting in settings]) for gram in found] for name, found in grams.items()}
    left_out = {name: [[] for _ in found] for name, found in grams.items()}
    if unit.views < 2:  # another view of an image that is left out would not be
        for positions, rows in live.batches(list(sights), unit.positions, view=0 if unit.views else None):
            for name, found in sights.items():
                for number, (look, gram) in enumerate(zip(found, grams[name], strict=True)):
                    labels = known[positions]
                    left_out[name][number].append(gram.left_out(look(rows[name]), labels) == labels)
    fitted = {}
    for name, found in solved.items():
        linears = [
            look.folded(Linear(linear.weights.float(), linear.biases.float()))
            for look, linear in zip(sights[name], found, strict=True)
        ]
        right = None if unit.views > 1 else torch.stack([torch.cat(parts, 1) for parts in left_out[name]])
        fitted[name] = Fitted(combined(torch.stack, linears), [(setting, recipe.epochs) for setting in settings], right)
    return fitted


def _tap(name: Tap | Place) -> Tap:
    return name if isinstance(name, Tap) else name.tap
