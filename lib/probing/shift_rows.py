"""How far each OOD set lies from the training images at every layer, by group: rows of `--sensitivity`.

Intermediate-layers paper, section 2.5: training images of a group against its test images. Beside each score stands what
sampling alone would give.
"""

import torch
from torch import Tensor

from lib.datasets.split import Split
from lib.metrics import shift_sensitivity
from lib.probing.feature_provider import FeatureProvider
from lib.probing.feature_sources import ProbeSite
from lib.probing.probe_bank import ProbeBank
from lib.probing.roles import spread
from lib.probing.rows import common
from lib.probing.study import ProbeStudy
from lib.probing.study_choices import RuleChoices
from lib.representations.features import Tap

MOST_IMAGES = 1000  # of a group on either side, evenly spread; fewer where they take more than half of --cache-gib
MOST_UNITS = 4096  # with histograms, evenly spread
DRAWS = 40  # random divisions behind a null
HISTOGRAM_DRAWS = 3  # behind that of histograms


def rows(study: ProbeStudy, provider: FeatureProvider, bank: ProbeBank, choices: list[RuleChoices]) -> list[dict]:
    """A row per OOD set, layer and group of its images, compared with the training images of the group of that name.

    Where training has no such group, with all of them. `row_space` is of the probes that the first rule chose for the first
    seed.
    """
    train, learnt, rows = study.data.train, study.sets[0].positions, []
    inner = provider.source(train)
    for number, shift in enumerate(study.data.shifts):
        tested = study.tested(number, study.seeds[0])
        outer = provider.source(shift.test)
        for tap in study.layout.taps:
            most = provider.affordable(tap, MOST_IMAGES, copies=2)
            for name in shift.test.group_names or ("all",):
                before = spread(_members(train, learnt, name), most)
                after = spread(_members(shift.test, tested, name), most)
                if min(len(before), len(after)) < 2:
                    continue
                about = common(
                    study,
                    number,
                    None,
                    probe="sensitivity",
                    layer=tap.layer,
                    reduce=tap.reduce,
                    dim=provider.dims[tap],
                    group=name,
                    n=len(after),
                )
                weights = _weights(study, bank, choices, tap, number)
                rows.append(about | scores(inner.rows(tap, before), outer.rows(tap, after), weights))
    return rows


def scores(x: Tensor, y: Tensor, weights: Tensor) -> dict[str, float]:
    """All scores of a displacement from x (n, d) to y (m, d), for probes with weights (k, d)."""
    units = spread(torch.arange(x.shape[1]), MOST_UNITS)
    narrow = x[:, units], y[:, units]
    between, n, m, scored = shift_sensitivity.distances(x, y), len(x), len(y), {}
    members = torch.cat([shift_sensitivity.division(n, m), shift_sensitivity.divisions(n, m, DRAWS)])
    for name, values in (
        ("s", shift_sensitivity.ratios(between, members)),
        ("s_moments", shift_sensitivity.ratios(between.square(), members)),
        ("energy_distance", shift_sensitivity.energies(between, members)),
    ):
        low, high = torch.quantile(values[1:], torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
        scored |= {name: values[0].item(), f"{name}_null_low": low, f"{name}_null_high": high}
    return scored | {
        "tvd": shift_sensitivity.total_variation(*narrow).mean().item(),
        "tvd_null": shift_sensitivity.null(_mean_variation, *narrow, draws=HISTOGRAM_DRAWS).mean().item(),
        "tvd_debiased": shift_sensitivity.debiased_variation(*narrow).mean().item(),
        "row_space": shift_sensitivity.row_space_share(x.mean(0)[None], y.mean(0)[None], weights),
    }


def _weights(study: ProbeStudy, bank: ProbeBank, choices: list[RuleChoices], tap: Tap, number: int) -> Tensor:
    """The weights (k, d) of a layer's probe: the one that the first rule chose for an OOD set, else the first candidate."""
    site, key = ProbeSite(tap), (study.seeds[0], number)
    for ruled in choices:
        if ruled.choices and site in ruled.sweep.sites:
            candidate = ruled.choices[key].candidates[ruled.sweep.sites.index(site)]
            return bank.probes[site, ruled.sweep.sets[key]].weights[candidate]
    return next(probes.weights[0] for (one, _), probes in bank.probes.items() if one == site)


def _members(split: Split, positions: Tensor, name: str) -> Tensor:
    """Those of the positions that are of the group of this name; all of them where the split has no such group."""
    names = list(split.group_names)
    return positions[split.groups[positions] == names.index(name)] if name in names else positions


def _mean_variation(x: Tensor, y: Tensor) -> float:
    return shift_sensitivity.total_variation(x, y).mean().item()
