"""Deep feature reweighting, at any layer.

Kirichenko, Izmailov & Wilson, "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", ICLR 2023, as
in section 6.3 of the intermediate-layers paper: features standardised by the network's training images; logistic
regression with an L1 penalty on as many images of each group as the smallest has; the penalty chosen on half of the images;
weights averaged over draws of balanced images out of all of them. Without groups the classes are balanced.

The published code's solver, liblinear, penalises the intercept as it does the weights, and so does this. Of more than two
classes liblinear makes one regression each against the others, this one regression of all.
"""

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.core.randomness import generator, stream
from lib.probing import solvers
from lib.probing.evaluation import Metric
from lib.probing.feature_sources import CachedSource
from lib.probing.feature_transform import FeatureSpread, FeatureTransform
from lib.probing.fit import COPIES, CPU
from lib.probing.roles import draw_balanced
from lib.probing.stacked_probes import Linear, Probes, combined, moved
from lib.probing.training_sets import TrainingSet
from lib.representations.feature_cache import GIB
from lib.representations.features import AnyFeatures, Tap

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C, by which the sum of the losses is multiplied beside |W|_1
DRAWS = {True: 10, False: 20}  # by whether the network's own training images are learnt from
ITERATIONS, TOLERANCE = 1000, 1e-5


def scale(train: CachedSource, tap: Tap, positions: Tensor) -> FeatureTransform:
    """What standardises features, by the mean and deviation of the training images at some positions."""
    spread = FeatureSpread()
    for _, rows in train.batches([tap], positions):
        spread.add(rows[tap])
    return spread.standardising(FeatureTransform())


def fit(
    tap: Tap,
    features: AnyFeatures,
    learnt: TrainingSet,
    classes: int,
    metric: Metric,
    transform: FeatureTransform,
    draws: int,
    gib: float,
    device: torch.device = CPU,
) -> tuple[Probes, float]:
    """The averaged probe (1, k, d) of a training set, and the C that was chosen by `metric` on half of it.

    transform    standardises the features (`scale`)
    gib          of memory, half of which they may take
    device       where the probes are fitted
    """
    if COPIES * len(learnt.positions) * features.dim * 8 > gib / 2 * GIB:
        raise UserError(
            f"--baselines dfr: the {len(learnt.positions)} x {features.dim} features of layer {tap.layer} do not "
            f"fit into half of --cache-gib {gib:g} in float64; --reduce gap makes them fewer"
        )
    x, labels, seed = transform.apply(features.rows(learnt.positions)).to(device), learnt.labels.to(device), learnt.seed
    kinds = learnt.groups if int(learnt.groups.max()) > 0 else learnt.labels
    order = torch.randperm(len(x), generator=generator(seed, "dfr halves"))
    fitting, choosing = order[: len(x) // 2].sort().values, order[len(x) // 2 :].sort().values
    tried = _regressions(x, labels, draw_balanced(fitting, kinds, seed), classes, STRENGTHS)
    right = (tried.logits(x[choosing].double()).argmax(-1) == labels[choosing]).cpu()
    values = metric.values(right, learnt.groups[choosing])
    strength = STRENGTHS[max(range(len(values)), key=lambda number: (values[number], -number))]
    balanced = [draw_balanced(torch.arange(len(x)), kinds, stream(seed, "dfr", number)) for number in range(draws)]
    drawn = [_regressions(x, labels, chosen, classes, (strength,)) for chosen in balanced]
    mean = moved(combined(lambda values: torch.stack(values).mean(0).float(), drawn), CPU)
    return transform.folded(mean), strength


def _regressions(x: Tensor, labels: Tensor, chosen: Tensor, classes: int, strengths: tuple[float, ...]) -> Linear:
    """One logistic regression per C: the loss C sum + |W|_1 + |b|_1 is C n times the mean loss with l1 = 1 / (C n)."""
    penalties = [(1 / (strength * len(chosen)), 0.0) for strength in strengths]
    return solvers.proximal(x[chosen], labels[chosen], classes, penalties, ITERATIONS, TOLERANCE, free_biases=False)
