"""Direct matching: the stitch whose output is nearest to the target activation, in least squares.

The stitching paper, section 3.5 of its code. Sums of products stream in float64, centred and merged as Chan et al. (1983)
do it, so that memory does not grow with the images, parts can be added, and every pair of layers of a grid, at every rank,
is solved from one pass. Where maps are enlarged, products are taken at the source's resolution with the adjoint of the
resizing, which is the same number for less work.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.stitching import Stitch, resize_matrix

CUTOFF = 1e-12  # of the largest eigenvalue of the centred covariance: smaller ones are no directions
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
        return Sums(rows, self.x + share * dx, self.y + share * dy,
                    self.xy + other.xy + torch.outer(dx, (self.rows * share) * dy))


def products(x: Tensor, y: Tensor | None = None) -> Sums:
    """The sums over rows x (m, p), y (m, q); of x with itself without y."""
    x = x.double()
    x_mean = x.mean(0)
    x = x - x_mean
    if y is None:
        return Sums(len(x), x_mean, x_mean, x.T @ x)
    y = y.double()
    y_mean = y.mean(0)
    return Sums(len(x), x_mean, y_mean, x.T @ (y - y_mean))


class Statistics:
    """What direct matching needs of all pairs of layers of a grid; `add` takes a batch, `merge` another part's statistics.

    pairs: (front layer, end layer) -> an untrained stitch, which says how rows are paired.
    """

    def __init__(self, pairs: dict[tuple[str, str], Stitch], ranks: bool = False) -> None:
        self.pairs, self.ranks = pairs, ranks
        self.sums: dict[tuple, Sums] = {}
        self.squares: dict[tuple, Tensor] = {}
        self.images = 0

    @torch.no_grad()
    def add(self, sources: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
        """Adds a batch of activations (b, ...) of front and end layers."""
        batch = _Batch(sources, targets)
        found = {}
        for (front, end), stitch in self.pairs.items():
            key = _geometry(stitch)
            if ("xx", front, key) not in found:
                found["xx", front, key] = batch.source(front, stitch)
            target = ("yy", end, stitch.learns_token)
            if target not in found:
                found[target] = batch.target(end, stitch)
            found["xy", front, end] = batch.cross(front, end, stitch)
            if stitch.learns_token:
                found["token", end] = products(targets[end][:, 0])
        if self.ranks:
            for front in {front for front, _ in self.pairs}:
                found["own", front] = products(_rows(sources[front]))
        for key, sums in found.items():
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
    """The least-squares solution from the eigenvectors of the centred covariance; of x within `basis` (p, r) if given."""
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


class Triangle:
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
        means = self.factor[0, 1:] / self.factor[0, 0]
        u, s, v = torch.linalg.svd(self.factor[1:width + 1, 1:width + 1], full_matrices=False)
        kept = s > CUTOFF * s[0]
        weight = v[kept].T @ ((u[:, kept].T @ self.factor[1:width + 1, width + 1:]) / s[kept][:, None])
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
    """One batch in float64, what several pairs need of it taken once."""

    def __init__(self, sources: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
        self.sources, self.targets = sources, targets
        self.known: dict[tuple, object] = {}

    def source(self, front: str, stitch: Stitch) -> Sums:
        if not _enlarges(stitch):
            return self._whole(front, stitch)
        mean, centred = self._small(front, stitch)
        rows, columns = self._axes(stitch)
        spread = _along(centred, rows.T @ rows, columns.T @ columns).flatten(0, 2)
        return Sums(len(centred) * stitch.size[0] * stitch.size[1], mean, mean, centred.flatten(0, 2).T @ spread)

    def target(self, end: str, stitch: Stitch) -> Sums:
        """The squares alone: xy holds the sum of squares of each channel."""
        centred, mean = self._centred_target(end, stitch)
        return _Squares(len(centred.flatten(0, 1)), mean, mean, centred.square().sum((0, 1)))

    def cross(self, front: str, end: str, stitch: Stitch) -> Sums:
        y, y_mean = self._centred_target(end, stitch)
        count = len(y) * y.shape[1]
        if not _enlarges(stitch):
            x, x_mean = self._rows(front, stitch)
            return Sums(count, x_mean, y_mean, x.flatten(0, 1).T @ y.flatten(0, 1))
        x_mean, x = self._small(front, stitch)
        key = ("adjoint", end, stitch.source[1:], stitch.upsample)
        if key not in self.known:
            rows, columns = self._axes(stitch)
            self.known[key] = _along(y.unflatten(1, stitch.size), rows.T, columns.T).flatten(0, 2)
        return Sums(count, x_mean, y_mean, x.flatten(0, 2).T @ self.known[key])

    def _whole(self, front: str, stitch: Stitch) -> Sums:
        x, mean = self._rows(front, stitch)
        flat = x.flatten(0, 1)
        return Sums(len(flat), mean, mean, flat.T @ flat)

    def _rows(self, front: str, stitch: Stitch) -> tuple[Tensor, Tensor]:
        key = ("rows", front, _geometry(stitch))
        if key not in self.known:
            rows = stitch.rows_of_source(self.sources[front]).double()
            mean = rows.mean((0, 1))
            self.known[key] = rows - mean, mean
        return self.known[key]

    def _centred_target(self, end: str, stitch: Stitch) -> tuple[Tensor, Tensor]:
        key = ("target", end, stitch.learns_token)
        if key not in self.known:
            rows = stitch.rows_of_target(self.targets[end]).double()
            mean = rows.mean((0, 1))
            self.known[key] = rows - mean, mean
        return self.known[key]

    def _small(self, front: str, stitch: Stitch) -> tuple[Tensor, Tensor]:
        """The mean over the enlarged maps, and the maps (b, h, w, c) at their own size minus that mean."""
        key = ("small", front, _geometry(stitch))
        if key not in self.known:
            maps = self.sources[front].movedim(1, -1).double()
            rows, columns = self._axes(stitch)
            weights = torch.outer(rows.sum(0), columns.sum(0)) / (stitch.size[0] * stitch.size[1])
            mean = torch.einsum("bhwc,hw->c", maps, weights) / len(maps)
            self.known[key] = mean, maps - mean
        return self.known[key]

    def _axes(self, stitch: Stitch) -> tuple[Tensor, Tensor]:
        key = ("axes", stitch.source[1:], stitch.size, stitch.upsample)
        if key not in self.known:
            device = next(iter(self.sources.values())).device
            self.known[key] = tuple(resize_matrix(before, after, stitch.upsample).to(device)
                                    for before, after in zip(stitch.source[1:], stitch.size, strict=True))
        return self.known[key]


class _Squares(Sums):
    """Sums of squares of each column alone."""

    def merge(self, other: Sums) -> Sums:
        rows = self.rows + other.rows
        shift, share = other.x - self.x, other.rows / rows
        mean = self.x + share * shift
        return _Squares(rows, mean, mean, self.xy + other.xy + self.rows * share * shift.square())


def _enlarges(stitch: Stitch) -> bool:
    """Whether maps are resized to larger ones, so that the adjoint is worth it."""
    return (stitch.kind in ("rc2c_pre", "rc2c_post") and stitch.source[1:] != stitch.size
            and stitch.source[1] * stitch.source[2] < stitch.size[0] * stitch.size[1])


def _geometry(stitch: Stitch) -> tuple:
    """What the rows of a source depend on besides the source."""
    return stitch.kind.replace("_post", "_pre"), stitch.size, stitch.upsample, stitch.to_class_token, stitch.from_class


def _along(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Matrices applied along height and width of (b, h, w, c)."""
    return torch.einsum("Hh,bhwc,Ww->bHWc", rows, maps, columns)


def _rows(activation: Tensor) -> Tensor:
    """(b, c, h, w) or (b, t, d) -> rows (m, channels)."""
    return activation.movedim(1, -1).flatten(0, 2) if activation.ndim == 4 else activation.flatten(0, 1)
