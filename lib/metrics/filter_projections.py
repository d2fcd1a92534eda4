"""How the filters of a layer are oriented towards the all-ones vector, and how far weights have moved.

Gamba et al., "Hyperplane Arrangements of Trained ConvNets Are Biased", 2023. A weight (N, ...) is N filters of D numbers
each. Under any symmetric initialisation a filter points to either side with probability 1/2, so that N times the mass is
binomial: its intervals and p-values (`binomial`) are exact.
"""

import numpy as np
import torch
from torch import Tensor


def projections(weight: Tensor, normalize: bool = False) -> np.ndarray:
    """(N,) float64: the inner product of each filter with the all-ones vector; with `normalize` the cosine, in [-1, 1].

    The cosine of an all-zero filter is NaN.
    """
    filters = weight.detach().flatten(1)
    n, d = filters.shape
    sums, norms = torch.empty(2, n, dtype=torch.float64, device=weight.device)
    scratch = torch.empty(min(n, max(1, BLOCK // d)), d, dtype=torch.float64, device=weight.device)
    for first in range(0, n, len(scratch)):
        rows = scratch[: n - first].copy_(filters[first : first + len(scratch)])
        torch.sum(rows, 1, out=sums[first : first + len(scratch)])
        if normalize:
            torch.sum(rows.square_(), 1, out=norms[first : first + len(scratch)])
    inner_products = sums / norms.sqrt_() / d**0.5 if normalize else sums
    return inner_products.cpu().numpy()


BLOCK = 2**16  # numbers that are made float64 at a time: half a megabyte, written to over and over, stays in the cache


def mass(projections: np.ndarray) -> float:
    """P(X <= 0): the share, in [0, 1], of filters that do not point towards the all-ones vector; NaN is not counted."""
    counted = projections[~np.isnan(projections)]
    return float((counted <= 0).mean()) if len(counted) else float("nan")


def z_score(mass: float, n: int) -> float:
    """The signed bias index (mass - 1/2) 2 sqrt(n): standard normal, nearly, without a preferred side."""
    return (mass - 0.5) * 2 * n**0.5


@torch.no_grad()
def distances(weight: Tensor, initial: Tensor) -> tuple[float, float]:
    """(||W - W0||_F / ||W0||_F, max |W - W0| / max |W0|), each 0 or more; infinite or NaN for W0 = 0."""
    (far, furthest), (squares, largest) = _size(weight, initial), _size(initial)
    return (far / squares).sqrt().item(), (furthest / largest).item()


def _size(weight: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The sum of squares, in float64, and the largest absolute value of the weights, less `start` if that is given."""
    flat = weight.detach().flatten()
    squares = largest = torch.zeros((), dtype=torch.float64, device=weight.device)
    difference, scratch = (
        torch.empty(min(BLOCK, len(flat)), dtype=kind, device=weight.device) for kind in (weight.dtype, torch.float64)
    )
    for first in range(0, len(flat), BLOCK):
        part = flat[first : first + BLOCK]
        if start is not None:
            part = torch.sub(part, start.flatten()[first : first + BLOCK], out=difference[: len(part)])
        low, high = part.aminmax()
        largest = torch.maximum(largest, torch.maximum(-low, high))
        values = scratch[: len(part)].copy_(part)
        squares = squares + values @ values
    return squares, largest


def folding(norm: dict[str, Tensor], eps: float) -> Tensor:
    """(N,) float64: gamma / sigma, with which a batch normalisation behind a layer multiplies the layer's filters.

    From the norm's tensors `running_var` and, where it has one, `weight`.
    """
    scale = (norm["running_var"].double() + eps).rsqrt()
    return scale * norm["weight"].double() if "weight" in norm else scale


def fold(weight: Tensor, scale: Tensor) -> Tensor:
    """The effective filters: `weight` (N, ...) with filter n multiplied by scale[n]."""
    return weight * scale.to(weight.dtype).view(-1, *[1] * (weight.ndim - 1))
