"""Accuracy where images fall into groups, and how sure a difference between two classifiers is.

Intermediate-layers paper, sections 2.2, 2.4 and 3.2. `correct` is boolean (..., n), groups (n,) numbers from 0; every
accuracy is a fraction. A group without images has no accuracy (NaN), and the worst group is then one of the others.
"""

import math

import torch
from torch import Tensor

from lib.core.randomness import generator


def group_accuracies(correct: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Accuracies (..., count), NaN for a group without images, and the number of images per group (count,)."""
    members = torch.nn.functional.one_hot(groups, count).double()
    sizes = members.sum(0)
    return correct.double() @ members / sizes, sizes.long()


def worst_group(accuracies: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest accuracy (...,) and its group (...,), of accuracies (..., groups); groups without images do not count."""
    worst = accuracies.nan_to_num(math.inf).min(-1)
    return worst.values, worst.indices


def adjusted_average(accuracies: Tensor, sizes: Tensor) -> Tensor:
    """The average (...,) of group accuracies (..., groups) weighted by the groups' sizes in training (groups,).

    Groups without test images are left out.
    """
    weights = sizes.double() * ~accuracies.isnan()
    return (accuracies.nan_to_num(0.0) * weights).sum(-1) / weights.sum(-1)


def adjusted_standard_error(accuracies: Tensor, sizes: Tensor, tested: Tensor) -> float:
    """The standard error of `adjusted_average` for accuracies (groups,) over `tested` (groups,) images."""
    there = tested > 0
    weights = sizes.double()[there] / sizes.double()[there].sum()
    variances = accuracies[there] * (1 - accuracies[there]) / tested[there]
    return (weights.square() * variances).sum().sqrt().item()


def paired_gain(
    first: list[Tensor],
    second: list[Tensor],
    ids: list[Tensor],
    *,
    groups: list[Tensor] | None = None,
    sizes: Tensor | None = None,
    seeds: int = 1,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How much more accurate the first classifier is than the second, in [-1, 1], and the 95% interval of that.

    One entry per data set and seed of training, seeds running faster: correct (n,) of either classifier on the same images,
    whose clean `ids` (n,) are what the paired bootstrap draws, together for all entries. With groups (n,) the difference is
    that of the worst groups, with their sizes in training (groups,) as well that of the adjusted averages.

    With several seeds the interval is over other trainings and other images. Seeds that are drawn anew as images are show
    half of their spread where they are two (coverage 0.7), so every draw of images is moved by Student's t with seeds - 1
    degrees of freedom, times the standard error between seeds: Behrens and Fisher's interval, which is wide rather than
    narrow. With one seed the interval knows nothing of the noise of training.

    The lowest of several accuracies lies lower than the accuracy of equal groups, in a bootstrap twice so. For worst groups
    the interval therefore reaches to either side as far as to that on which it reaches further, and by the bootstrap's bias
    more: quantiles alone cover .6 to .8 where four or eight groups are equal.
    """
    unique = torch.cat(ids).unique()
    rows_of = [torch.searchsorted(unique, one) for one in ids]
    kinds = 1 if groups is None else max(int(one.max()) for one in groups) + 1 if sizes is None else len(sizes)
    sums = [_sums_by_id(correct, rows_of, groups, len(unique), kinds) for correct in (first, second)]
    counts = _sums_by_id([torch.ones_like(one) for one in first], rows_of, groups, len(unique), kinds)
    by_seed = _gains(*sums, counts, torch.ones(1, len(unique), dtype=torch.float64), sizes).view(-1, seeds).mean(0)
    draw, parts = generator(seed, "bootstrap"), []
    for begin in range(0, draws, 100):
        count = min(100, draws - begin)
        chosen = torch.randint(len(unique), (count, len(unique)), generator=draw)
        weights = torch.zeros(count, len(unique)).scatter_add_(1, chosen, torch.ones(chosen.shape)).double()
        parts.append(_gains(*sums, counts, weights, sizes).mean(1))
    gains, mean = torch.cat(parts), by_seed.mean().item()
    bias = gains.nanmean().item() - mean
    if seeds > 1:
        gains += _training_noise(by_seed, draws, draw)
    low, high = torch.quantile(gains[~gains.isnan()], torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    if groups is not None and sizes is None:
        reach = max(high - mean, mean - low) + abs(bias)
        low, high = mean - reach, mean + reach
    return mean, max(low, -1.0), min(high, 1.0)


def _training_noise(by_seed: Tensor, draws: int, draw: torch.Generator) -> Tensor:
    """Quantiles (draws,) of Student's t in random order, times the standard error of the mean of `by_seed` (seeds,)."""
    from scipy.special import stdtrit

    seeds = len(by_seed)
    places = ((torch.randperm(draws, generator=draw) + 0.5) / draws).double()
    return torch.from_numpy(stdtrit(seeds - 1, places.numpy())) * by_seed.std() / seeds**0.5


def _sums_by_id(correct: list[Tensor], rows_of: list[Tensor], groups: list[Tensor] | None, count: int, kinds: int) -> Tensor:
    """Per clean id, entry and group the number of correct images: (ids, entries, groups)."""
    sums = torch.zeros(count, len(correct), kinds, dtype=torch.float64)
    for entry, (right, rows) in enumerate(zip(correct, rows_of, strict=True)):
        group = torch.zeros_like(rows) if groups is None else groups[entry]
        sums[:, entry].index_put_((rows, group), right.double(), accumulate=True)
    return sums


def _gains(first: Tensor, second: Tensor, counts: Tensor, weights: Tensor, sizes: Tensor | None) -> Tensor:
    """The difference (draws, entries) of the lowest group accuracies, or of their averages adjusted by sizes, under weights
    (draws, ids)."""
    drawn, scores = weights @ counts.flatten(1), []
    for sums in (first, second):
        accuracies = (weights @ sums.flatten(1) / drawn).view(len(weights), *counts.shape[1:])
        scores.append(worst_group(accuracies)[0] if sizes is None else adjusted_average(accuracies, sizes))
    return scores[0] - scores[1]
