"""Deep feature reweighting, at any layer.

Kirichenko, Izmailov & Wilson, "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", ICLR 2023, as
in section 6.3 of the intermediate-layers paper: features standardised by the network's training images; logistic
regression with an L1 penalty on as many images of each group as the smallest has; the penalty chosen on half of the images;
weights averaged over draws of balanced images out of all of them. Without groups the classes are balanced.
"""

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.core.randomness import generator, stream
from lib.probing import solvers
from lib.probing.feature_sources import Kept, Unit
from lib.probing.fit import COPIES, Sight, Spread
from lib.probing.roles import draw_balanced
from lib.probing.stacked_probes import Linear
from lib.representations.features import Features, Tap

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C, by which the sum of the losses is multiplied beside |W|_1
DRAWS = {True: 10, False: 20}  # by whether the network's own training images are learnt from
ITERATIONS, TOLERANCE = 1000, 1e-5


def scale(inner: Kept, tap: Tap, positions: Tensor) -> Sight:
    """What standardises features: the mean and deviation of training images."""
    spread = Spread()
    for _, rows in inner.batches([tap], positions):
        spread.add(rows[tap])
    return spread.sight(Sight())


def fit(
    tap: Tap, features: Features, unit: Unit, classes: int, metric, look: Sight, draws: int, gib: float
) -> tuple[Linear, float]:
    """The averaged probe (1, k, d) of what a unit learns from, and the C that was chosen by `metric` on half of it."""
    if COPIES * len(unit.positions) * features.dim * 8 > gib / 2 * 2**30:
        raise UserError(
            f"--baselines dfr: the {len(unit.positions)} x {features.dim} features of layer {tap.layer} do not "
            f"fit into half of --cache-gib {gib:g} in float64; --reduce gap makes them fewer"
        )
    x, kinds = look(features.rows(unit.positions)), unit.groups if int(unit.groups.max()) > 0 else unit.labels
    order = torch.randperm(len(x), generator=generator(unit.seed, "dfr halves"))
    half = order[: len(x) // 2].sort().values, order[len(x) // 2 :].sort().values
    tried = _regressions(x, unit.labels, draw_balanced(half[0], kinds, unit.seed), classes, STRENGTHS)
    right = tried.logits(x[half[1]].double()).argmax(-1) == unit.labels[half[1]]
    values = metric.values(right, unit.groups[half[1]])
    strength = STRENGTHS[max(range(len(values)), key=lambda place: (values[place], -place))]
    balanced = [draw_balanced(torch.arange(len(x)), kinds, stream(unit.seed, "dfr", number)) for number in range(draws)]
    total = [_regressions(x, unit.labels, chosen, classes, (strength,)) for chosen in balanced]
    mean = Linear(
        torch.stack([one.weights for one in total]).mean(0).float(),
        torch.stack([one.biases for one in total]).mean(0).float(),
    )
    return look.folded(mean), strength


def _regressions(x: Tensor, labels: Tensor, chosen: Tensor, classes: int, strengths: tuple[float, ...]) -> Linear:
    """One logistic regression per C: the loss C sum + |W|_1 is C n times the mean loss with l1 = 1 / (C n)."""
    penalties = [(1 / (strength * len(chosen)), 0.0) for strength in strengths]
    return solvers.proximal(x[chosen], labels[chosen], classes, penalties, ITERATIONS, TOLERANCE)
