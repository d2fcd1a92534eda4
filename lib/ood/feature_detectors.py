"""Scores of outliers from features, of whatever layer: fitted to in-distribution features (f, d), then a function of
features (b, d) to scores (b,), higher for outliers.

`flag` begins the sentence that says why a score cannot be fitted.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.ood import aggregate, standardize

FeatureScore = Callable[[Tensor], Tensor]  # features (b, d) -> (b,)


def knn(features: Tensor) -> FeatureScore:
    """Distance to the 50th nearest in-distribution image, features on the unit sphere (Sun et al. 2022)."""

    def unit(features: Tensor):
        return torch.nn.functional.normalize(features.float(), dim=1).cpu().numpy()

    distance = aggregate.neighbour_distance(unit(features))
    return lambda features: torch.from_numpy(distance(unit(features)))


def mahalanobis(features: Tensor, labels: Tensor, flag: str) -> FeatureScore:
    """Squared distance to the nearest class mean under one covariance of all classes (Lee et al. 2018).

    labels (f,), -1 for an image without one. The covariance is shrunk after Ledoit & Wolf, which the paper does not do: it
    has an inverse for few images too.
    """
    features, places, means = class_means(features, labels, flag)
    distances = _squared_distances(means, features - means[places], flag)
    return lambda features: distances(features).amin(1)


def relative_mahalanobis(features: Tensor, labels: Tensor, flag: str) -> FeatureScore:
    """The Mahalanobis distance to the nearest class less that to one Gaussian of all images (Ren et al. 2021).

    Directions in which all in-distribution images vary alike say nothing of the class, and cancel. Both covariances are
    shrunk after Ledoit & Wolf.
    """
    features, places, means = class_means(features, labels, flag)
    distances = _squared_distances(means, features - means[places], flag)
    middle = features.mean(0, keepdim=True)
    background = _squared_distances(middle, features - middle, flag)
    return lambda features: distances(features).amin(1) - background(features)[:, 0]


def prototype(features: Tensor, labels: Tensor, flag: str) -> FeatureScore:
    """Minus the largest cosine with a class mean, in [-1, 1]: what is like no class in direction.

    The cosine classifier's confidence as a score (after Techapanurak et al. 2020), with class means for weights, so that
    it exists at any layer.
    """
    _, _, means = class_means(features, labels, flag)
    directions = torch.nn.functional.normalize(means, dim=1)
    return lambda features: -(torch.nn.functional.normalize(features.double().cpu(), dim=1) @ directions.T).amax(1)


def class_means(features: Tensor, labels: Tensor, flag: str) -> tuple[Tensor, Tensor, Tensor]:
    """The features that have a label, which of the means each belongs to, and the means (k, d); float64, on the CPU."""
    known = labels >= 0
    features, labels = features[known.to(features.device)].double().cpu(), labels[known].cpu()
    present = labels.unique()
    if len(present) < 2:
        raise UserError(f"{flag}: the fitting images have {len(present)} classes; it takes two or more")
    places = torch.searchsorted(present, labels)
    return features, places, torch.stack([features[places == number].mean(0) for number in range(len(present))])


def _squared_distances(means: Tensor, centred: Tensor, flag: str) -> Callable[[Tensor], Tensor]:
    """Squared Mahalanobis distances (b, k) from each of k means, under the shrunk covariance of centred features (f, d)."""
    precision = torch.from_numpy(standardize.shrunk_precision(centred.numpy(), flag))
    whiten = torch.linalg.cholesky(precision)  # x' P x = |whiten' x|^2
    return lambda features: torch.cdist(features.double().cpu() @ whiten, means @ whiten).square()
