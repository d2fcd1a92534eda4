"""Probes of streamed features: all layers, ranks and settings learn from the same passes of the network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.probing import solvers
from lib.probing.feature_sources import FeatureName, ProbeSite, StreamedSource
from lib.probing.feature_transform import Directions, FeatureSpread, FeatureTransform
from lib.probing.fit import CPU, Candidate, FittedProbes, Group, ProbeRecipe, ProbeTraining, restricted, steps
from lib.probing.stacked_probes import Linear, Setting, combined, moved
from lib.probing.training_sets import TrainingSet
from lib.representations.features import Tap


@dataclass(frozen=True)
class _Reading:
    """The groups that read one name of a source, and what each sees of it."""

    tap: Tap
    groups: list[Group]
    transforms: list[FeatureTransform]

    def transformed(self, rows: Tensor) -> list[Tensor]:
        """What each group sees of rows (b, d)."""
        return [transform.apply(rows) for transform in self.transforms]


def fit_streamed(
    source: StreamedSource,
    learnt: TrainingSet,
    sites: dict[FeatureName, list[ProbeSite]],
    settings: list[Setting],
    classes: int,
    recipe: ProbeRecipe,
    directions: dict[str, Directions],
    warm: dict[Tap, Linear],
) -> dict[FeatureName, FittedProbes]:
    """The probes of one training set at all sites, with a pass per epoch: what `lib.probing.fit.fit` makes of kept features.

    sites         those that learn from each name of the source, each a group of the fitted probes
    directions    of layers, for sites with a rank
    warm          weights (k, d) that the probes of a tap start from
    """
    readings = {name: _reading(name, learnt, several, directions, recipe) for name, several in sites.items()}
    if recipe.standardise:
        readings = _standardised(source, learnt, readings)
    if recipe.solver == "ridge":
        return _ridge(source, learnt, readings, settings, classes, recipe)
    trainings = {
        name: ProbeTraining(source.dim(name), one.groups, one.transforms, settings, classes, recipe, warm.get(one.tap))
        for name, one in readings.items()
    }
    if not recipe.epochs:
        for training in trainings.values():
            training.finish(0)
    for epoch in range(1, recipe.epochs + 1):
        _epoch(source, learnt, readings, trainings, epoch, recipe)
    return {name: training.fitted() for name, training in trainings.items()}


def _reading(
    name: FeatureName,
    learnt: TrainingSet,
    sites: list[ProbeSite],
    directions: dict[str, Directions],
    recipe: ProbeRecipe,
) -> _Reading:
    """Where a name is a site, its features are restricted already."""
    tap, ranked = (name, True) if isinstance(name, Tap) else (name.tap, False)
    groups = [learnt.group(site.rank if ranked else None) for site in sites]
    return _Reading(tap, groups, [restricted(group, directions.get(tap.layer), recipe.device) for group in groups])


def _views(learnt: TrainingSet) -> list[int | None]:
    """The views that are learnt from; None for the images as they are."""
    return list(range(learnt.views)) if learnt.views else [None]


def _standardised(
    source: StreamedSource, learnt: TrainingSet, readings: dict[FeatureName, _Reading]
) -> dict[FeatureName, _Reading]:
    """The same readings with features standardised by the images that are learnt from: one pass per view."""
    spreads = {name: [FeatureSpread() for _ in one.groups] for name, one in readings.items()}
    for view in _views(learnt):
        for _, rows in source.batches(list(readings), learnt.positions, view=view):
            for name, one in readings.items():
                for spread, seen in zip(spreads[name], one.transformed(rows[name]), strict=True):
                    spread.add(seen)
    return {
        name: _Reading(
            one.tap,
            one.groups,
            [spread.standardising(transform) for spread, transform in zip(spreads[name], one.transforms, strict=True)],
        )
        for name, one in readings.items()
    }


def _epoch(
    source: StreamedSource,
    learnt: TrainingSet,
    readings: dict[FeatureName, _Reading],
    trainings: dict[FeatureName, ProbeTraining],
    epoch: int,
    recipe: ProbeRecipe,
) -> None:
    """One pass: every batch is a step of every probe."""
    batches = [(positions[0], rate) for positions, rate in steps([learnt.group()], epoch, recipe)]
    order = learnt.positions[torch.cat([positions for positions, _ in batches])]
    view = (epoch - 1) % learnt.views if learnt.views else None
    features = source.batches(list(trainings), order, recipe.batch_size, view)
    for (_, rows), (positions, rate) in zip(features, batches, strict=True):
        for name, training in trainings.items():
            seen = torch.stack(readings[name].transformed(rows[name]))
            training.step(seen, learnt.labels[positions].expand(len(seen), -1), rate)
    for training in trainings.values():
        training.finish(epoch)


def _ridge(
    source: StreamedSource,
    learnt: TrainingSet,
    readings: dict[FeatureName, _Reading],
    settings: list[Setting],
    classes: int,
    recipe: ProbeRecipe,
) -> dict[FeatureName, FittedProbes]:
    """Two passes over the images that are learnt from: one for the Gram matrices, one that leaves each image out."""
    names, penalties = list(readings), [setting.l2 for setting in settings]
    labels = torch.full((len(source.split),), -1)
    labels[learnt.positions] = learnt.labels
    grams = {name: [solvers.GramRidge(classes) for _ in one.groups] for name, one in readings.items()}
    for view in _views(learnt):
        for positions, rows in source.batches(names, learnt.positions, view=view):
            for name, one in readings.items():
                for gram, seen in zip(grams[name], one.transformed(rows[name]), strict=True):
                    gram.add(seen, labels[positions].to(seen.device, non_blocking=True))
    solved = {name: [gram.solve(penalties) for gram in grams.pop(name)] for name in names}
    left_out = {name: [[] for _ in one.groups] for name, one in readings.items()}
    leaves_out = learnt.views < 2  # another view of an image that is left out would not be
    if leaves_out:
        for positions, rows in source.batches(names, learnt.positions, view=_views(learnt)[0]):
            for name, one in readings.items():
                for parts, ridge, seen in zip(left_out[name], solved[name], one.transformed(rows[name]), strict=True):
                    truth = labels[positions].to(seen.device, non_blocking=True)
                    parts.append(ridge.left_out(seen, truth) == truth)
    candidates = [Candidate(setting, recipe.epochs) for setting in settings]
    fitted = {}
    for name, one in readings.items():
        probes = [
            moved(transform.folded(ridge.linear.single_precision()), CPU)
            for transform, ridge in zip(one.transforms, solved[name], strict=True)
        ]
        right = torch.stack([torch.cat(parts, 1) for parts in left_out[name]]).cpu() if leaves_out else None
        fitted[name] = FittedProbes(combined(torch.stack, probes), candidates, right)
    return fitted
