"""OOD scores of the last layer: baselines for the energies of inner layers.

A score is fitted to what the last linear layer W f + b sees and says on in-distribution images, and is then a function of
features f (b, d) and logits (b, k) to scores (b,), higher for outliers, so that one pass over the data feeds them all.
Settings are those of the papers where they state one.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.core.registry import resolve
from lib.ood import feature_detectors
from lib.ood.flags import BASELINES

LastLayerScore = Callable[[Tensor, Tensor], Tensor]  # features (b, d) and logits (b, k) -> (b,)

NEEDS = {
    "msp": "nothing",
    "max_logit": "nothing",
    "energy": "nothing",
    "ash": "nothing",
    "knn": "ID images",
    "mahalanobis": "labelled ID images",
    "vim": "ID images",
    "react": "ID images",
}
# the temperature of those that have one
TEMPERATURES = {"msp": 1.0, "energy": 1.0, "vim": 1.0, "react": 1.0, "ash": 1.0}
CLIPPED_ABOVE = 0.90  # ReAct: quantile of the in-distribution features
PRUNED = 0.90  # ASH: share of each image's features


@dataclass(frozen=True)
class LastLayer:
    """The last linear layer, and f in-distribution images before and behind it."""

    weight: Tensor  # (k, d)
    bias: Tensor  # (k,)
    features: Tensor  # (f, d)
    logits: Tensor  # (f, k)
    labels: Tensor  # (f,), -1 = unlabelled


def fit(name: str, layer: LastLayer) -> LastLayerScore:
    """The score called `name`, fitted to the last layer and its in-distribution images."""
    return resolve(BASELINES[name])(layer)


def msp(layer: LastLayer) -> LastLayerScore:
    """-log of the largest softmax probability (Hendrycks & Gimpel 2017), which keeps its order where that rounds to 1."""
    return lambda features, logits: logits.double().logsumexp(1) - logits.double().amax(1)


def max_logit(layer: LastLayer) -> LastLayerScore:
    """Minus the largest logit (Hendrycks et al. 2022)."""
    return lambda features, logits: -logits.amax(1)


def energy(layer: LastLayer) -> LastLayerScore:
    """-log sum exp of the logits (Liu et al. 2020)."""
    return lambda features, logits: -logits.logsumexp(1)


def knn(layer: LastLayer) -> LastLayerScore:
    """Distance to the 50th nearest in-distribution image, features on the unit sphere (Sun et al. 2022)."""
    fitted = feature_detectors.knn(layer.features)
    return lambda features, logits: fitted(features)


def mahalanobis(layer: LastLayer) -> LastLayerScore:
    """Squared distance to the nearest class mean under one covariance of all classes (Lee et al. 2018), shrunk."""
    fitted = feature_detectors.mahalanobis(layer.features, layer.labels, "--baselines mahalanobis")
    return lambda features, logits: fitted(features)


def vim(layer: LastLayer) -> LastLayerScore:
    """Virtual-logit matching (Wang et al. 2022): what the features have outside the principal subspace, and the energy.

    The subspace has 1000 dimensions of 2048 or more, 512 of 768 or more, else half; its origin is where all logits are 0.
    The residual counts alpha times, as much as makes its mean over in-distribution images that of their largest logits.
    Warns where that mean, and so alpha, is below 0: what lies outside the subspace then counts against an outlier.
    """
    weight, bias, features = (part.double().cpu() for part in (layer.weight, layer.bias, layer.features))
    d = features.shape[1]
    origin = -torch.linalg.pinv(weight, rtol=1e-6) @ bias  # the weights are float32: less is rounding
    centred = features - origin
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # eigenvalues ascend
    rest = vectors[:, : d - (1000 if d >= 2048 else 512 if d >= 768 else d // 2)]

    def residual(features):
        return ((features.double().cpu() - origin) @ rest).norm(dim=1)

    largest, outside = layer.logits.double().cpu().amax(1).mean(), residual(features).mean()
    if not outside > 1e-9 * centred.norm(dim=1).mean():
        raise UserError("--baselines vim: the features of the fitting images have nothing outside their principal subspace")
    alpha = largest / outside
    if alpha < 0:
        warnings.warn(
            f"--baselines vim: the largest logits of the fitting images have mean {largest:.3g}; below 0 ViM turns round: "
            "a large residual lowers its score",
            stacklevel=2,
        )
    return lambda features, logits: alpha * residual(features) - logits.double().cpu().logsumexp(1)


def react(layer: LastLayer) -> LastLayerScore:
    """The energy of the logits of features clipped at the 90 % quantile of all in-distribution ones (Sun et al. 2021)."""
    clip = float(np.quantile(layer.features.cpu().numpy(), CLIPPED_ABOVE))

    def score(features, logits):
        return -(features.clamp(max=clip) @ layer.weight.T + layer.bias).logsumexp(1)

    return score


def ash(layer: LastLayer) -> LastLayerScore:
    """ASH-S (Djurisic et al. 2023): each image's lowest 90 % of features become 0, the others times exp(s1 / s2).

    s1 and s2 are the sums before and after. The energy of the logits that follow. Defined for features of 0 or more. Of d
    features d - round(0.9 d) are kept, as in the published code, whatever ties there are; of ties the first, and one at
    least.
    """
    if bool((layer.features < 0).any()):
        raise UserError("--baselines ash: the features before the last layer are not behind a ReLU; ash needs them to be")

    def score(features, logits):
        d = features.shape[1]
        kept = features.sort(dim=1, descending=True, stable=True).indices[:, : max(1, d - round(PRUNED * d))]
        pruned = torch.zeros_like(features).scatter(1, kept, features.gather(1, kept))
        ratio = features.sum(1, keepdim=True) / pruned.sum(1, keepdim=True).clamp(min=1e-30)
        return -((pruned * ratio.exp()) @ layer.weight.T + layer.bias).logsumexp(1)

    return score
