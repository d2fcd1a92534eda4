"""How far each OOD set lies from the training images at every layer, by group: rows of `--sensitivity`.

Intermediate-layers paper, section 2.5: training images of a group against its test images. Beside each score stands what
sampling alone would give.
"""

import torch
from torch import Tensor

from lib.metrics import sensitivity
from lib.probes.report import common
from lib.probes.run import Run
from lib.probes.sources import Place

MOST_IMAGES = 1000  # of a group on either side, evenly spread
MOST_UNITS = 4096  # with histograms, evenly spread
DRAWS = 40  # random divisions behind a null


def rows(run: Run) -> list[dict]:
    """A row per OOD set, layer and group; the probes are the first candidate of the first seed."""
    train, positions, found = run.data.train, run.units[0].positions, []
    inner = run.supply.source(train)
    for number, shift in enumerate(run.data.shifts):
        _, tested = shift.role("test", run.shares[number, run.config.seed[0]])
        outer = run.supply.source(shift.test)
        for tap in run.layout.taps:
            weights = next(linear.weights[0] for (place, _), linear in run.probes.items() if place == Place(tap))
            for group, name in enumerate(shift.test.group_names or ("all",)):
                before = _spread(positions[train.groups[positions] == group])
                after = _spread(tested[shift.test.groups[tested] == group])
                if min(len(before), len(after)) < 2:
                    continue
                values = scores(inner.rows(tap, before), outer.rows(tap, after), weights)
                found.append(common(run, number, None, probe="sensitivity", layer=tap.layer, reduce=tap.reduce,
                                    dim=run.supply.dims[tap], group=name, n=len(after)) | values)
    return found


def scores(x: Tensor, y: Tensor, weights: Tensor) -> dict[str, float]:
    """All scores of a displacement from x (n, d) to y (m, d), for probes with weights (k, d)."""
    units = torch.arange(x.shape[1]) if x.shape[1] <= MOST_UNITS else torch.arange(MOST_UNITS) * x.shape[1] // MOST_UNITS
    narrow = x[:, units], y[:, units]
    band = sensitivity.pairwise_null(x, y, DRAWS)
    low, high = torch.quantile(band, torch.tensor([0.025, 0.975])).tolist()
    return {
        "s": sensitivity.pairwise_ratio(x, y), "s_null_low": low, "s_null_high": high,
        "s_moments": sensitivity.moment_ratio(x, y), "energy_distance": sensitivity.energy_distance(x, y),
        "tvd": sensitivity.total_variation(*narrow).mean().item(),
        "tvd_null": sensitivity.null(_mean_variation, *narrow, draws=3).mean().item(),
        "tvd_debiased": sensitivity.debiased_variation(*narrow).mean().item(),
        "row_space": sensitivity.row_space_share(x.mean(0)[None], y.mean(0)[None], weights),
    }


def _mean_variation(x: Tensor, y: Tensor) -> float:
    return sensitivity.total_variation(x, y).mean().item()


def _spread(positions: Tensor) -> Tensor:
    """At most `MOST_IMAGES` of the positions."""
    if len(positions) <= MOST_IMAGES:
        return positions
    return positions[torch.arange(MOST_IMAGES) * len(positions) // MOST_IMAGES]
