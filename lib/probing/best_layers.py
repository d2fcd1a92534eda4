"""Which layers' probes may be the best, and by how much they are better than the last one's, after a look at all of them.

The images are those that test, the probes those that a rule took at every layer. See `lib.metrics.best_set` for what holds.
"""

from dataclasses import dataclass

import numpy as np
import torch

from lib.metrics import best_set
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


def best_layers(study: ProbeStudy, scores: list[Scores], ruled: RuleChoices, numbers: list[int]) -> BestLayers | None:
    """By the mean metric over some OOD sets, and over all seeds.

    None for a single layer, where a rule leaves several candidates of a layer, and for worst groups: the lowest of several
    accuracies is no mean over images, and where groups are equal nothing near normal.
    """
    sites, metric = ruled.sweep.sites, study.metric
    if len(sites) < 2 or metric.name == "worst-group" or not ruled.choices and len(ruled.sweep.candidates) > 1:
        return None
    entries, ids, values = [], [], []
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
            ).double()  # (sites, n)
            groups = test.groups[positions] if metric.name == "adjusted" else torch.zeros_like(positions)
            sizes = metric.sizes.double() if metric.name == "adjusted" else torch.ones(1, dtype=torch.float64)
            members = torch.nn.functional.one_hot(groups, len(sizes)).double()
            tested = members.sum(0)
            shares = sizes * (tested > 0) / (sizes * (tested > 0)).sum()
            means = correct @ members / tested.clamp_min(1)  # (sites, groups)
            values.append(means @ shares)
            weights = members @ (shares / tested.clamp_min(1))
            entries.append((correct - means @ members.T) * weights)  # what each image moves the metric by
            ids.append(test.indices[positions])
    unique = torch.cat(ids).unique()
    moved = torch.zeros(len(unique), len(sites), dtype=torch.float64)
    for one, entry in zip(ids, entries, strict=True):
        moved.index_add_(0, torch.searchsorted(unique, one), entry.T / len(entries))
    covariance = (moved.T @ moved).numpy()
    seeds = len(study.seeds)
    by_seed = torch.stack(values).view(-1, seeds, len(sites)).mean(0).numpy()  # (seeds, sites): seeds run faster
    between = np.cov(by_seed, rowvar=False) / seeds if seeds > 1 else None
    mean = by_seed.mean(0)
    bounds = best_set.gain_bounds(mean, covariance, np.array([len(sites) - 1]), between, seeds)
    within = best_set.best_set(mean, covariance, between, seeds)
    return BestLayers([site.tap.layer for site in sites], within.tolist(), bounds.tolist())
