"""Direct matching: the stitch whose output is nearest to the target activation, in least squares.

The stitching paper, section 3.5 of its code. Sums of products stream in float64, centred and merged as Chan et al. (1983)
do it, so that memory does not grow with the images, parts can be added, and every pair of layers of a grid, at every rank,
is solved from one pass. Where maps are enlarged, products are taken at the source's resolution with the adjoint of the
resizing, which is the same number for less work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from lib.stitching.layer import Stitch, resize_matrix, special_tokens

Made = TypeVar("Made")

CUTOFF = 1e-12  # of the largest eigenvalue of the centred covariance: smaller ones are no directions
RESIZING = ("rc2c_pre", "rc2c_post")
ROUNDING = 1e-15  # and below this they are rounding; between the two only the rows themselves can tell


@dataclass
class Sums:
    """Centred sums of products of paired rows x (m, p) and y (m, q): what streams.

    rows    m
    x, y    their means (p,) and (q,)
    xy      (p, q), sum of (x - mean)^T (y - mean)
    """

    rows: int
    x: Tensor
    y: Tensor
    xy: Tensor

    def merge(self, other: "Sums") -> "Sums":
        """The sums over the rows of both."""
        rows = self.rows + other.rows
        dx, dy, share = other.x - self.x, other.y - self.y, other.rows / rows
        return Sums(
            rows, self.x + share * dx, self.y + share * dy, self.xy + other.xy + torch.outer(dx, (self.rows * share) * dy)
        )


class Statistics:
    """What direct matching needs of all pairs of layers of a grid; `add` takes a batch, `merge` another part's statistics.

    pairs: (front layer, end layer) -> an untrained stitch, which says how rows are paired.
    """

    def __init__(self, pairs: dict[tuple[str, str], Stitch], ranks: bool = False) -> None:
        self.pairs, self.ranks = pairs, ranks
        self.sums: dict[tuple, Sums] = {}
        self.images = 0

    @torch.no_grad()
    def add(self, sources: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
        """Adds a batch of activations (b, ...) of front and end layers."""
        batch = _Batch(sources, targets)
        new: dict[tuple, Sums] = {}
        for (front, end), stitch in self.pairs.items():
            source = ("xx", front, _geometry(stitch))
            if source not in new:
                new[source] = batch.source(front, stitch)
            target = ("yy", end, stitch.learns_token)
            if target not in new:
                new[target] = batch.target(end, stitch)
            new["xy", front, end] = batch.cross(front, end, stitch, new[source])
            if stitch.learns_token:
                new["token", end] = batch.class_tokens(end)
        if self.ranks:
            for front in {front for front, _ in self.pairs}:
                new["own", front] = batch.own(front)
        for key, sums in new.items():
            self.sums[key] = self.sums[key].merge(sums) if key in self.sums else sums
        self.images += len(next(iter(sources.values())))

    def merge(self, other: "Statistics") -> None:
        """Adds the statistics of other images."""
        for key, sums in other.sums.items():
            self.sums[key] = self.sums[key].merge(sums) if key in self.sums else sums
        self.images += other.images

    def components(self, front: str, rank: int) -> tuple[Tensor, Tensor]:
        """The mean (c,) and the first principal directions (c, rank) of a front layer's channels at its own resolution."""
        own = self.sums["own", front]
        return own.x, torch.linalg.eigh(own.xy).eigenvectors.flip(1)[:, :rank]

    def problem(self, front: str, end: str) -> "Problem":
        """The least-squares problem of one pair."""
        stitch = self.pairs[front, end]
        source, cross = self.sums["xx", front, _geometry(stitch)], self.sums["xy", front, end]
        target = self.sums["yy", end, stitch.learns_token]
        return Problem(source.rows, cross.x, cross.y, source.xy, cross.xy, target.xy)

    def install(self, stitch: Stitch, front: str, end: str, solution: "Solution") -> None:
        """Gives a stitch the solution, and the mean of the target's class tokens where it has one of its own."""
        with torch.no_grad():
            stitch.weight.copy_(solution.weight.T)
            stitch.bias.copy_(solution.bias)
            if stitch.learns_token:
                stitch.cls_token.copy_(self.sums["token", end].x)


@dataclass(frozen=True)
class Problem:
    """Least squares from rows x (m, p) to y (m, q): m, means, centred products, and y's centred sums of squares (q,)."""

    rows: int
    x_mean: Tensor
    y_mean: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    def residual(self, weight: Tensor, bias: Tensor) -> float:
        """||x weight + bias - y||^2 / ||y||^2, uncentred, for weight (p, q) and bias (q,)."""
        shift = self.y_mean - self.x_mean @ weight - bias
        error = self.yy.sum() - 2 * (weight * self.xy).sum() + (weight * (self.xx @ weight)).sum()
        error = error.clamp_min(0) + self.rows * shift.square().sum()
        return (error / (self.yy.sum() + self.rows * self.y_mean.square().sum())).item()


@dataclass(frozen=True)
class Solution:
    """weight (p, q), bias (q,), the number of directions of x that it uses, and the ratio of their extreme variances.

    doubtful: whether x has directions that squared sums are too coarse for.
    """

    weight: Tensor
    bias: Tensor
    effective_rank: int
    condition: float
    doubtful: bool = False


def exact(problem: Problem, basis: Tensor | None = None) -> Solution:
    """The default solver: least squares by the centred covariance's eigenvectors; of x within `basis` (p, r) if given."""
    xx, xy = problem.xx, problem.xy
    if basis is not None:
        xx, xy = basis.T @ xx @ basis, basis.T @ xy
    values, vectors = torch.linalg.eigh(xx)
    largest = values[-1].clamp_min(0)
    kept = values > CUTOFF * largest
    doubtful = bool((~kept & (values > ROUNDING * len(values) * largest)).any())
    values, vectors = values[kept], vectors[:, kept]
    weight = vectors @ ((vectors.T @ xy) / values[:, None])
    weight = weight if basis is None else basis @ weight
    condition = (values[-1] / values[0]).item() if len(values) else 1.0
    return Solution(weight, problem.y_mean - problem.x_mean @ weight, len(values), condition, doubtful)


class StreamedQR:
    """Least squares by a QR decomposition of [1, x, y] that streams: no sum of squares halves the digits.

    It costs (p + q) / min(p, q) times more than the sums, and serves where those are too coarse.
    """

    def __init__(self) -> None:
        self.factor: Tensor | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """Adds rows x (m, p) and y (m, q)."""
        rows = torch.cat([x.new_ones(len(x), 1), x, y], 1).double()
        stacked = rows if self.factor is None else torch.cat([self.factor, rows])
        self.factor = torch.linalg.qr(stacked, mode="r").R

    def solve(self, width: int) -> Solution:
        """The solution for x of this width; singular values below 1e-12 of the largest are no directions."""
        if self.factor is None:
            raise ValueError("no rows were added")
        means = self.factor[0, 1:] / self.factor[0, 0]
        u, s, v = torch.linalg.svd(self.factor[1 : width + 1, 1 : width + 1], full_matrices=False)
        kept = s > CUTOFF * s[0]
        weight = v[kept].T @ ((u[:, kept].T @ self.factor[1 : width + 1, width + 1 :]) / s[kept][:, None])
        condition = (s[0] / s[kept][-1]).item() ** 2
        return Solution(weight, means[width:] - means[:width] @ weight, int(kept.sum()), condition)


def reference(x: Tensor, y: Tensor, rank: int | None = None) -> Solution:
    """The published solver: a float32 pseudo-inverse of [x, 1] (m, p + 1), cut off at max(m, p + 1) 2^-23.

    It drops true directions, the more of them the more rows there are. With a rank, x is first replaced by its best
    approximation of that rank around its mean.
    """
    x, y = x.float(), y.float()
    if rank is not None:
        mean = x.mean(0)
        u, s, v = torch.linalg.svd(x - mean, full_matrices=False)
        x = (u[:, :rank] * s[:rank]) @ v[:rank] + mean
    augmented = torch.cat([x, x.new_ones(len(x), 1)], 1)
    u, s, v = torch.linalg.svd(augmented, full_matrices=False)
    kept = s > max(augmented.shape) * 2.0**-23 * s[0]
    solution = v[kept].T @ ((u[:, kept].T @ y) / s[kept][:, None])
    condition = (s[0] / s[kept][-1]).item() ** 2
    return Solution(solution[:-1].double(), solution[-1].double(), int(kept.sum()), condition)


def permutation(problem: Problem) -> Solution:
    """The pairing of channels with the largest sum of correlations, as a matrix of zeros and ones without bias.

    Li et al. 2016, one-to-one matching. Of unequal widths the wider side keeps channels without a partner.
    """
    from scipy.optimize import linear_sum_assignment

    scale = torch.outer(problem.xx.diagonal(), problem.yy).sqrt()
    correlations = torch.where(scale > 0, problem.xy / scale.clamp_min(1e-300), torch.zeros_like(problem.xy))
    rows, columns = linear_sum_assignment(-correlations.cpu().numpy())
    weight = torch.zeros_like(problem.xy)
    weight[rows, columns] = 1
    return Solution(weight, torch.zeros_like(problem.y_mean), len(rows), 1.0)


class _Batch:
    """One batch in float64, what several pairs need of it taken once.

    Rows lie as (h, w, b, c) or (t, b, c), so that resizing and sums over rows are products of matrices without a copy.
    """

    def __init__(self, sources: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
        self.sources, self.targets = sources, targets
        self.made: dict[tuple, Any] = {}

    def own(self, front: str) -> Sums:
        """Of a source at its own resolution."""
        return self._once(("own", front), lambda: _squared(*self._own(front)))

    def source(self, front: str, stitch: Stitch) -> Sums:
        if not _enlarges(stitch):
            return self.own(front) if _plain(stitch) else _squared(*self._rows(front, stitch))
        x, mean = self._own(front)
        rows, columns = self._axes(stitch)
        # x is centred at its own resolution; enlarged it has another mean, by little
        weights = torch.outer(rows.sum(0), columns.sum(0)) / (stitch.size[0] * stitch.size[1])
        shift = torch.einsum("hwc,hw->c", x.mean(2), weights)
        count = x.shape[2] * stitch.size[0] * stitch.size[1]
        spread = _along(x, rows.T @ rows, columns.T @ columns)
        return Sums(count, mean + shift, mean + shift, _products(x, spread) - count * torch.outer(shift, shift))

    def target(self, end: str, stitch: Stitch) -> Sums:
        """The squares alone: xy holds the sum of squares of each channel."""
        y, mean = self._target(end, stitch)
        return _Squares(y[..., 0].numel(), mean, mean, y.flatten(0, -2).square().sum(0))

    def class_tokens(self, end: str) -> Sums:
        return _squared(*_centred(_copied(self.targets[end][:, 0])))

    def cross(self, front: str, end: str, stitch: Stitch, source: Sums) -> Sums:
        """`source` holds the mean of the rows on the other side."""
        y, y_mean = self._target(end, stitch)
        if _enlarges(stitch):
            rows, columns = self._axes(stitch)
            y = self._once(("adjoint", end, stitch.source[1:], stitch.upsample), lambda: _along(y, rows.T, columns.T))
        x, _ = self._rows(front, stitch)
        return Sums(source.rows, source.x, y_mean, _products(x, y))  # y sums to nothing, so that no mean of x enters

    def _once(self, key: tuple, make: Callable[[], Made]) -> Made:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def _own(self, front: str) -> tuple[Tensor, Tensor]:
        """A source's centred rows at its own resolution, and their mean."""
        return self._once(("source", front), lambda: _centred(_laid_out(self.sources[front])))

    def _target(self, end: str, stitch: Stitch) -> tuple[Tensor, Tensor]:
        target = self.targets[end][:, special_tokens(stitch.target) :] if stitch.learns_token else self.targets[end]
        return self._once(("target", end, stitch.learns_token), lambda: _centred(_laid_out(target)))

    def _rows(self, front: str, stitch: Stitch) -> tuple[Tensor, Tensor]:
        """The centred rows that the affine map sees, and their mean; of maps that are enlarged those before it."""
        if _plain(stitch) or _enlarges(stitch):
            return self._own(front)
        return self._once(("rows", front, _geometry(stitch)), lambda: self._other_rows(front, stitch))

    def _other_rows(self, front: str, stitch: Stitch) -> tuple[Tensor, Tensor]:
        if stitch.kind in ("c2t", "t2c"):
            return _centred(_laid_out(stitch.rows_of_source(self.sources[front])))
        x, mean = self._own(front)
        reduced, shift = _centred(_along(x, *self._axes(stitch)))
        return reduced, mean + shift

    def _axes(self, stitch: Stitch) -> tuple[Tensor, Tensor]:
        device = next(iter(self.sources.values())).device
        return self._once(
            ("axes", stitch.source[1:], stitch.size, stitch.upsample),
            lambda: (
                resize_matrix(stitch.source[1], stitch.size[0], stitch.upsample).to(device, non_blocking=True),
                resize_matrix(stitch.source[2], stitch.size[1], stitch.upsample).to(device, non_blocking=True),
            ),
        )


class _Squares(Sums):
    """Sums of squares of each column alone."""

    def merge(self, other: Sums) -> Sums:
        rows = self.rows + other.rows
        shift, share = other.x - self.x, other.rows / rows
        mean = self.x + share * shift
        return _Squares(rows, mean, mean, self.xy + other.xy + self.rows * share * shift.square())


def _plain(stitch: Stitch) -> bool:
    """Whether the affine map sees the source as it is."""
    return stitch.kind in ("t2t", "c2c") or stitch.kind in RESIZING and stitch.source[1:] == stitch.size


def _enlarges(stitch: Stitch) -> bool:
    """Whether maps are resized to larger ones, so that the adjoint is worth it."""
    return (
        stitch.kind in RESIZING
        and stitch.source[1:] != stitch.size
        and stitch.source[1] * stitch.source[2] < stitch.size[0] * stitch.size[1]
    )


def _geometry(stitch: Stitch) -> tuple:
    """What the rows of a source depend on besides the source."""
    pooled = special_tokens(stitch.target) if stitch.kind == "c2t" and not stitch.learns_token else 0
    return stitch.kind.replace("_post", "_pre"), stitch.size, stitch.upsample, pooled, stitch.from_class


def _laid_out(activation: Tensor) -> Tensor:
    """(b, c, h, w) -> (h, w, b, c), (b, t, d) -> (t, b, d), in float64."""
    if activation.ndim == 3:
        return _copied(activation.transpose(0, 1).contiguous())
    b, c, h, w = activation.shape
    # a transposed matrix is copied faster than four permuted axes
    return _copied(activation.reshape(b * c, h * w).t().contiguous()).view(h, w, b, c)


def _copied(values: Tensor) -> Tensor:
    """The same in float64, never the tensor itself: what follows works in place."""
    return values.to(torch.float64, copy=True)


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(..., c) less its mean over all rows, which takes its place, and the mean (c,)."""
    mean = rows.flatten(0, -2).mean(0)
    return rows.sub_(mean), mean


def _squared(rows: Tensor, mean: Tensor) -> Sums:
    return Sums(rows[..., 0].numel(), mean, mean, _products(rows, rows))


def _products(x: Tensor, y: Tensor) -> Tensor:
    """The sum over rows (..., p), (..., q) of their outer products: (p, q)."""
    return x.flatten(0, -2).T @ y.flatten(0, -2)


def _along(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Matrices applied along height and width of (h, w, b, c)."""
    h, w, b, c = maps.shape
    high = (rows @ maps.view(h, -1)).view(len(rows), w, b * c)
    return torch.matmul(columns, high).view(len(rows), len(columns), b, c)
