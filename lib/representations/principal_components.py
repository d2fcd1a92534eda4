"""Representations restricted to their first principal directions, at every rank from one decomposition.

Stitching paper, section 2.5 and its appendix on rank: x -> (x - mean) V_r V_r' + mean, V_r the r leading eigenvectors of
the covariance of channels over images and positions of one fixed set of images. The mean is kept. A rank equal to the
number of channels changes nothing, rank 0 leaves the mean alone. Everything is float64 until it is applied.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


def _none_yet() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


@dataclass
class Moments:
    """Mean (c,) and covariance (c, c) of rows that come in batches; the order and size of batches do not matter.

    total (c,) and products (c, c) are the sums of the rows and of their outer products, in float64.
    """

    count: int = 0
    total: Tensor = field(default_factory=_none_yet, repr=False)
    products: Tensor = field(default_factory=_none_yet, repr=False)

    @classmethod
    def of(cls, rows: Tensor) -> "Moments":
        """Those of rows (m, c)."""
        rows = rows.detach().double()
        return cls(len(rows), rows.sum(0), rows.T @ rows)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    def cpu(self) -> "Moments":
        return Moments(self.count, self.total.cpu(), self.products.cpu())

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        return self.products / self.count - torch.outer(self.mean, self.mean)


def channel_rows(activation: Tensor) -> Tensor:
    """One row per image and position: (b, c, h, w) -> (b h w, c), (b, t, c) -> (b t, c), (b, c) as it is."""
    if activation.ndim == 4:
        return activation.permute(0, 2, 3, 1).flatten(0, 2)
    return activation.flatten(0, 1) if activation.ndim == 3 else activation


def basis(covariance: Tensor) -> Tensor:
    """The eigenvectors (c, c) of a covariance (c, c) as columns, the largest eigenvalue first; float64.

    Of each column the entry of largest size is positive, so that the same covariance has the same basis everywhere.
    """
    return _signed(torch.linalg.eigh(covariance.double()).eigenvectors.flip(1))


def directions(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (c,) of rows (m, c) and the directions (c, k) in which they vary, as `basis` has them; float64.

    Of fewer rows than channels the Gram matrix (m, m) has the same eigenvalues as the covariance, and only the k < m
    directions that are not constant are found: in no other do these rows, or sums of them with weights of one, differ
    from their mean.
    """
    m, c = rows.shape
    if m >= c:
        moments = Moments.of(rows)
        return moments.mean, basis(moments.covariance)
    mean = rows.double().mean(0)
    centred = rows.double() - mean
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    varying = values > values[-1].clamp_min(0) * c * torch.finfo(values.dtype).eps
    # orthonormal also where small eigenvalues leave few digits; the larger ones come first
    found = torch.linalg.qr(centred.T @ vectors[:, varying].flip(1)).Q
    return mean, _signed(found)


def _signed(vectors: Tensor) -> Tensor:
    """Columns (c, k) each with its entry of largest size positive."""
    if not vectors.shape[1]:
        return vectors
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0)


def project(features: Tensor, mean: Tensor, basis: Tensor, rank: int) -> Tensor:
    """Features (..., c) restricted to the first `rank` columns of the basis around the mean; of the features' type.

    Pooling over positions before or after makes no difference, since it acts on the other axis.
    """
    leading, mean = basis[:, :rank].to(features.dtype), mean.to(features.dtype)
    return ((features - mean) @ leading) @ leading.T + mean
