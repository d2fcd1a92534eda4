"""Which layers' probes may be the best, and by how much they are better than the last one's, after a look at all of them.

The images are those that test, the probes those that a rule took at every layer. See `lib.metrics.best_set` for what holds,
and `lib.metrics.exchange_null` for what gains are by chance.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.core.randomness import numpy_generator
from lib.metrics import best_set
from lib.metrics.exchange_null import exchanged
from lib.metrics.permutation_null import Null
from lib.probing.scores import Scores
from lib.probing.study import ProbeStudy
from lib.probing.study_choices import RuleChoices


@dataclass(frozen=True)
class BestLayers:
    """Of the sites of a sweep: which may have the best probe, (sites,), and lower bounds of their gains over the last one.

    sites   the layers' names
    """

    sites: list[str]
    within: list[bool]
    bounds: list[float]

    @property
    def words(self) -> str:
        """The layers that may be the best."""
        return " ".join(dict.fromkeys(site for site, there in zip(self.sites, self.within, strict=True) if there))


@dataclass(frozen=True)
class _Compared:
    """The answers of the probes of all sites for one OOD set and seed.

    correct  (sites, n)
    members  which group an image is in, (n, groups)
    tested   images of every group, (groups,)
    shares   what every group weighs in the metric, (groups,)
    ids      of the clean images, (n,)
    """

    correct: Tensor
    members: Tensor
    tested: Tensor
    shares: Tensor
    ids: Tensor

    @property
    def weights(self) -> Tensor:
        """What every image weighs in the metric, (n,)."""
        return self.members @ (self.shares / self.tested.clamp_min(1))


def best_layers(study: ProbeStudy, scores: list[Scores], ruled: RuleChoices, numbers: list[int]) -> BestLayers | None:
    """By the mean metric over some OOD sets, and over all seeds.

    None for a single layer, where a rule leaves several candidates of a layer, and for worst groups: the lowest of several
    accuracies is no mean over images, and where groups are equal nothing near normal.
    """
    compared, sites = _compared(study, scores, ruled, numbers), ruled.sweep.sites
    if compared is None:
        return None
    entries, values = [], []
    for one in compared:
        means = one.correct @ one.members / one.tested.clamp_min(1)  # (sites, groups)
        values.append(means @ one.shares)
        entries.append((one.correct - means @ one.members.T) * one.weights)  # what each image moves the metric by
    moved = _by_image(entries, compared)
    covariance = (moved.T @ moved).numpy()
    seeds = len(study.seeds)
    by_seed = torch.stack(values).view(-1, seeds, len(sites)).mean(0).numpy()  # (seeds, sites): seeds run faster
    between = np.cov(by_seed, rowvar=False) / seeds if seeds > 1 else None
    mean = by_seed.mean(0)
    bounds = best_set.gain_bounds(mean, covariance, np.array([len(sites) - 1]), between, seeds)
    within = best_set.best_set(mean, covariance, between, seeds)
    return BestLayers([site.tap.layer for site in sites], within.tolist(), bounds.tolist())


def gain_null(study: ProbeStudy, scores: list[Scores], ruled: RuleChoices, numbers: list[int], seed: int) -> Null | None:
    """What the gains of all sites but the last over it are by chance: the mean metric over some OOD sets and over all seeds.

    None where no draws are asked for, where `best_layers` has none, and where the rule chose settings on these very images:
    p_best is of a look at all layers, not at all settings. The noise of training is not in it.
    """
    if not study.options.draws or ruled.rule == "oracle" and len(ruled.sweep.candidates) > 1:
        return None
    compared = _compared(study, scores, ruled, numbers)
    if compared is None:
        return None
    gains = _by_image([(one.correct[:-1] - one.correct[-1]) * one.weights for one in compared], compared)
    return exchanged(gains.numpy(), study.options.draws, numpy_generator(seed, "null", len(gains)))


def _compared(study: ProbeStudy, scores: list[Scores], ruled: RuleChoices, numbers: list[int]) -> list[_Compared] | None:
    """The answers for some OOD sets, of all seeds, which run faster; None where `best_layers` says nothing."""
    sites, metric = ruled.sweep.sites, study.metric
    if len(sites) < 2 or metric.name == "worst-group" or not ruled.choices and len(ruled.sweep.candidates) > 1:
        return None
    compared = []
    for number in numbers:
        test = study.data.shifts[number].test
        for seed in study.seeds:
            positions, learnt = study.tested(number, seed), ruled.sweep.sets[seed, number]
            if len(positions) < 2:
                return None
            picked = ruled.choices[seed, number].candidates if ruled.choices else (0,) * len(sites)
            correct = torch.stack(
                [
                    scores[number].correct[site, learnt]["test"][candidate][positions]
                    for site, candidate in zip(sites, picked, strict=True)
                ]
            ).double()
            groups = test.groups[positions] if metric.name == "adjusted" else torch.zeros_like(positions)
            sizes = metric.sizes.double() if metric.name == "adjusted" else torch.ones(1, dtype=torch.float64)
            members = torch.nn.functional.one_hot(groups, len(sizes)).double()
            tested = members.sum(0)
            shares = sizes * (tested > 0) / (sizes * (tested > 0)).sum()
            compared.append(_Compared(correct, members, tested, shares, test.indices[positions]))
    return compared


def _by_image(entries: list[Tensor], compared: list[_Compared]) -> Tensor:
    """Numbers of every image (sites, n), the mean over entries, summed by the clean image: (images, sites)."""
    unique = torch.cat([one.ids for one in compared]).unique()
    moved = torch.zeros(len(unique), len(entries[0]), dtype=torch.float64)
    for one, entry in zip(compared, entries, strict=True):
        moved.index_add_(0, torch.searchsorted(unique, one.ids), entry.T / len(entries))
    return moved
