"""The baselines of `lib.probing.baselines` that are probes, fitted beside the plain ones from cached features."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from lib.probing import dfr
from lib.probing.feature_provider import together
from lib.probing.feature_sources import CachedSource, ProbeSite
from lib.probing.fit import STEPWISE, Candidate, ProbeRecipe
from lib.probing.layers import head_of
from lib.probing.probe_bank import ProbeBank, fit_cached, fit_each, joined
from lib.probing.stacked_probes import Linear
from lib.probing.study import ProbeStudy
from lib.representations.features import Tap

HIDDEN = 256


def fit(study: ProbeStudy, plain: ProbeBank, sources: Sequence[CachedSource], train: CachedSource | None) -> ProbeBank:
    """All of a study's baselines that are probes.

    plain      the plain probes of the same training sets
    sources    what the training sets are positions in
    train      the features of the in-distribution training images, where they are needed
    """
    names, recipe, banks = study.baselines, study.options.recipe, []
    for sweep in study.layout.sweeps:
        if "mlp" in names:
            banks.append(_stacked(study, sources, "mlp", sweep, replace(recipe, hidden=HIDDEN)))
        if "concatenated" in names:
            banks.append(_stacked(study, sources, "concatenated", [together(sweep)], recipe))
        if "averaged" in names:
            banks.append(_averaged(study, plain, sweep))
        if "dfr" in names and train is not None:
            banks.append(_reweighted(study, sources, train, sweep))
    penultimate = study.layout.penultimate
    if "last-layer" in names and penultimate is not None:
        banks.append(_stacked(study, sources, "last-layer", [penultimate], recipe))
        if recipe.solver in STEPWISE:  # where the others end does not depend on the start
            warm = head_of(study.network, study.layout.head)
            banks.append(_stacked(study, sources, "last-layer-warm", [penultimate], recipe, warm))
    return joined(banks)


def _stacked(
    study: ProbeStudy,
    sources: Sequence[CachedSource],
    kind: str,
    taps: list[Tap],
    recipe: ProbeRecipe,
    warm: Linear | None = None,
) -> ProbeBank:
    """Probes of one kind at some taps, with the settings of the plain probes."""
    settings = study.options.settings

    def of_tap(tap: Tap) -> ProbeBank:
        return fit_cached(tap, sources, study.sets, settings, study.classes, recipe, warm=warm, kind=kind)

    fitted = fit_each(taps, of_tap, study.options.batching)
    sweep = ProbeBank(sweeps={kind: [[ProbeSite(tap, kind=kind) for tap in taps]]})
    return joined([fitted, sweep])


def _averaged(study: ProbeStudy, plain: ProbeBank, taps: list[Tap]) -> ProbeBank:
    """The mean of logits is one linear probe on all features: weights side by side, over the number of layers."""
    site, means = ProbeSite(together(taps), kind="averaged"), {}
    for number in range(len(study.sets)):
        probes = [plain.probes[ProbeSite(tap), number] for tap in taps]
        means[site, number] = Linear(
            torch.cat([probe.weights for probe in probes], -1) / len(probes),
            torch.stack([probe.biases for probe in probes]).mean(0),
        )
    return ProbeBank(means, {"averaged": plain.candidates["probe"]}, {"averaged": [[site]]})


def _reweighted(study: ProbeStudy, sources: Sequence[CachedSource], train: CachedSource, taps: list[Tap]) -> ProbeBank:
    """Deep feature reweighting at every tap; its features are standardised by the network's training images."""
    inside = study.options.protocol.learns_inside
    sites, probes, strengths = [ProbeSite(tap, kind="dfr") for tap in taps], {}, {}
    for site in sites:
        for number, learnt in enumerate(study.sets):
            standardised = dfr.scale(train, site.tap, learnt.positions if inside else study.inner[learnt.seed].train)
            features, draws = sources[learnt.source].features[site.tap], dfr.DRAWS[inside]
            probes[site, number], strengths[site, number] = dfr.fit(
                site.tap,
                features,
                learnt,
                study.classes,
                study.metric,
                standardised,
                draws,
                study.options.recipe.gib,
                study.options.recipe.device,
            )
    return ProbeBank(probes, {"dfr": [Candidate(None, 0)]}, {"dfr": [sites]}, strengths=strengths)
