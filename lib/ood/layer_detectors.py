"""Detectors of outliers at every layer: `exec_ood_layers.py --layer-detectors`.

They look at what the pass for the energies leaves of each layer's output: the mean over its positions, and for `gram` the
row sums of its Gram matrices. Each is fitted to the fitting images of that layer alone, and scores are higher for outliers.
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.models.reducers import Reducer
from lib.ood import feature_detectors

POWERS = tuple(range(1, 11))  # of activations in a Gram matrix, as the paper has them

LayerScore = Callable[["Features", Tensor], Tensor]  # features of a layer and predicted classes (b,) -> (b,)


class Features(NamedTuple):
    """What is kept of a layer's output: its mean over positions (b, d), and the Gram sums (b, P, c), else (b, 0, c)."""

    pooled: Tensor
    sums: Tensor


def features(output: Tensor, gram: bool = False) -> Features:
    """Of an output (b, c, h, w), (b, t, d) or (b, d)."""
    output = output.detach()
    pooled = Reducer("gap")(output.float()).clone()
    return Features(pooled.cpu(), gram_sums(output).cpu() if gram else pooled.new_empty(len(pooled), 0, pooled.shape[1]))


def gram_sums(output: Tensor, powers: tuple[int, ...] = POWERS) -> Tensor:
    """Row sums of the p-th order Gram matrices (F^p F^p')^(1/p) of c channels, (b, P, c), float32.

    F (c, positions); powers are of each activation, roots of each sum, with its sign (Sastry & Oore 2020, eq. 2, and their
    code). No matrix is made: a row's sum is the row times the sum of all rows.
    """
    maps = output.double()[:, :, None] if output.ndim == 2 else output.double().flatten(2)
    maps = maps.transpose(1, 2) if output.ndim == 3 else maps
    scale = maps.abs().amax((1, 2), keepdim=True).clamp(min=1e-30)  # high powers of large activations overflow
    unit, found = maps / scale, []
    for power in powers:
        raised = unit**power
        sums = (raised * raised.sum(1, keepdim=True)).sum(2)
        found.append(sums.sign() * sums.abs() ** (1 / power) * scale[:, :, 0] ** 2)
    return torch.stack(found, 1).float()


def gram(sums: Tensor, predicted: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """How far the Gram sums leave the range that in-distribution images of the predicted class have (Sastry & Oore 2020).

    sums (f, P, c), predicted (f,) classes. Each excess is divided by the bound that it is over, and all are added up. A
    class that no fitting image was predicted as has the range of all.
    """
    classes = int(predicted.max()) + 1
    low, high = (end(sums, 0).expand(classes, -1, -1).clone() for end in (torch.amin, torch.amax))
    for label in predicted.unique():
        low[label], high[label] = (end(sums[predicted == label], 0) for end in (torch.amin, torch.amax))

    def score(sums: Tensor, predicted: Tensor) -> Tensor:
        known = predicted.clamp(max=classes)
        below, above = (
            torch.cat([bound, overall[None]])[known] for bound, overall in ((low, low.amin(0)), (high, high.amax(0)))
        )
        excess = (below - sums).relu() / (below + 1e-6).abs() + (sums - above).relu() / (above + 1e-6).abs()
        return excess.double().sum((1, 2))

    return score


def fit(
    names: tuple[str, ...], features: Mapping[str, Features], labels: Tensor, predicted: Tensor
) -> dict[str, dict[str, LayerScore]]:
    """name -> column -> score, fitted to the features of every column; labels (f,), -1 = unlabelled, predicted classes (f,).

    What cannot be fitted at a layer is left out there with a warning, and `UserError` if it can be nowhere.
    """
    found: dict[str, dict[str, LayerScore]] = {name: {} for name in names}
    for name in names:
        problems = {}
        for column, (pooled, sums) in features.items():
            try:
                found[name][column] = _fit(name, pooled, sums, labels, predicted)
            except UserError as error:
                problems[column] = error
        if problems and not found[name]:
            raise next(iter(problems.values()))
        for column, error in problems.items():
            warnings.warn(f"{error} ({column}); left out", stacklevel=3)
    return found


def _fit(name: str, pooled: Tensor, sums: Tensor, labels: Tensor, predicted: Tensor) -> LayerScore:
    if name == "gram":
        score = gram(sums, predicted)
        return lambda features, predicted: score(features.sums, predicted)
    if name == "knn":
        fitted = feature_detectors.knn(pooled)
    else:
        fitted = FITTED_TO_CLASSES[name](pooled, labels, f"--layer-detectors {name}")
    return lambda features, predicted: fitted(features.pooled)


FITTED_TO_CLASSES = {
    "mahalanobis": feature_detectors.mahalanobis,
    "relative_mahalanobis": feature_detectors.relative_mahalanobis,
    "prototype": feature_detectors.prototype,
}


def reduction(names: tuple[str, ...]) -> Callable[[Tensor], Features]:
    """What has to be kept of each layer's output for these detectors."""
    return functools.partial(features, gram="gram" in names)
