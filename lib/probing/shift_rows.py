"""How far each OOD set lies from the training images at every layer, by group: rows of `--sensitivity`.

Intermediate-layers paper, section 2.5: training images of a group against its test images. Beside each score stands what
sampling alone would give.
"""

import torch
from torch import Tensor

from lib.metrics import shift_sensitivity
from lib.probing.feature_sources import Place
from lib.probing.roles import spread
from lib.probing.rows import common
from lib.probing.run import Run

MOST_IMAGES = 1000  # of a group on either side, evenly spread; fewer where they take more than half of --cache-gib
MOST_UNITS = 4096  # with histograms, evenly spread
DRAWS = 40  # random divisions behind a null


def rows(run: Run) -> list[dict]:
    """A row per OOD set, layer and group of its images, compared with the training images of the group of that name.

    Where training has no such group, with all of them. `row_space` is of the probes that the first rule chose for the first
    seed. `report.rows` comes first.
    """
    train, positions, found = run.data.train, run.units[0].positions, []
    inner = run.supply.source(train)
    for number, shift in enumerate(run.data.shifts):
        _, tested = shift.role("test", run.shares[number, run.config.seed[0]])
        outer = run.supply.source(shift.test)
        for tap in run.layout.taps:
            most = run.affordable(tap, MOST_IMAGES, copies=2)
            for name in shift.test.group_names or ("all",):
                before, after = (
                    spread(_members(split, places, name), most)
                    for split, places in ((train, positions), (shift.test, tested))
                )
                if min(len(before), len(after)) < 2:
                    continue
                values = scores(inner.rows(tap, before), outer.rows(tap, after), _weights(run, tap, number))
                found.append(
                    common(
                        run,
                        number,
                        None,
                        probe="sensitivity",
                        layer=tap.layer,
                        reduce=tap.reduce,
                        dim=run.supply.dims[tap],
                        group=name,
                        n=len(after),
                    )
                    | values
                )
    return found


def scores(x: Tensor, y: Tensor, weights: Tensor) -> dict[str, float]:
    """All scores of a displacement from x (n, d) to y (m, d), for probes with weights (k, d)."""
    units = torch.arange(x.shape[1]) if x.shape[1] <= MOST_UNITS else torch.arange(MOST_UNITS) * x.shape[1] // MOST_UNITS
    narrow = x[:, units], y[:, units]
    between, n, m, found = shift_sensitivity.distances(x, y), len(x), len(y), {}
    members = torch.cat([shift_sensitivity.division(n, m), shift_sensitivity.divisions(n, m, DRAWS)])
    for name, values in (
        ("s", shift_sensitivity.ratios(between, members)),
        ("s_moments", shift_sensitivity.ratios(between.square(), members)),
        ("energy_distance", shift_sensitivity.energies(between, members)),
    ):
        low, high = torch.quantile(values[1:], torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
        found |= {name: values[0].item(), f"{name}_null_low": low, f"{name}_null_high": high}
    return found | {
        "tvd": shift_sensitivity.total_variation(*narrow).mean().item(),
        "tvd_null": shift_sensitivity.null(_mean_variation, *narrow, draws=3).mean().item(),
        "tvd_debiased": shift_sensitivity.debiased_variation(*narrow).mean().item(),
        "row_space": shift_sensitivity.row_space_share(x.mean(0)[None], y.mean(0)[None], weights),
    }


def _weights(run: Run, tap, number: int) -> Tensor:
    """The weights (k, d) of a layer's probe: the one that the first rule chose for an OOD set, else the first candidate."""
    place, seed = Place(tap), run.config.seed[0]
    for places, units, chosen in run.chosen:
        if place in places:
            candidate = chosen[seed, number].candidates[places.index(place)]
            return run.probes[place, units[seed, number]].weights[candidate]
    return next(linear.weights[0] for (one, _), linear in run.probes.items() if one == place)


def _members(split, positions: Tensor, name: str) -> Tensor:
    """Those of the positions that are of the group of this name; all of them where the split has no such group."""
    names = list(split.group_names)
    return positions[split.groups[positions] == names.index(name)] if name in names else positions


def _mean_variation(x: Tensor, y: Tensor) -> float:
    return shift_sensitivity.total_variation(x, y).mean().item()
