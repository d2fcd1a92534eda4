"""How alike two representations of the same n inputs are.

A representation is a matrix, a row per input. CKA, the means of canonical correlations, RSA and the overlap of neighbours
are similarities: higher is more alike. PWCCA, Procrustes and disagreement are distances: lower is more alike. All are
computed in float64. Directions whose variance is below 1e-12 of the largest do not count as directions.

Rank-limited variants take blocks: in the coordinates of its principal components, the best rank-r approximation of a
representation is its first r columns.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

FLOOR = 1e-12  # of the largest eigenvalue: smaller ones are rounding
SVCCA_VARIANCE = 0.99
NEIGHBOURS = 10
FEWEST_DEBIASED = 4  # inputs


def linear_cka(x: Tensor, y: Tensor) -> float:
    """In [0, 1], 1 if equal up to rotation, scale and shift. x (n, p), y (n, q). Kornblith et al. 2019, the biased form.

    Through products of features where they are fewer than inputs, else through n x n Gram matrices; both are the same.
    """
    x, y = _centred(x), _centred(y)
    if x.shape[1] + y.shape[1] > 2 * len(x):
        return _cosine(x @ x.T, y @ y.T)
    return ((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def debiased_cka(x: Tensor, y: Tensor) -> float:
    """At most 1; 0 in the mean for independent representations. x (n, p), y (n, q). Nguyen et al. 2021, eq. 3.

    Raises `ValueError` for fewer than 4 inputs: the estimate has n - 3 in its denominator.
    """
    grams = GramProducts(len(x), 1, 1, x.device)
    grams.add(0, *((z @ z.T)[None] for z in (_centred(x), _centred(y))))
    return debiased_cka_grid(grams).item()


def procrustes(x: Tensor, y: Tensor) -> float:
    """In [0, 2], 0 if equal up to rotation, scale and shift; symmetric. x (n, p), y (n, q).

    Squared distance after the best rotation of matrices of Frobenius norm 1 (Ding et al. 2021, section 2).
    """
    x, y = _centred(x), _centred(y)
    return procrustes_distance(Side(x.T @ x), Side(y.T @ y), x.T @ y)


def pwcca(x: Tensor, y: Tensor) -> float:
    """In [0, 1], 0 if x is a linear function of y; not symmetric. x (n, p), y (n, q). Morcos et al. 2018.

    1 - sum w_i rho_i, where w_i measures how much of x the i-th canonical variate accounts for. Published for an x that has
    no more directions than y: the authors' code takes the smaller side for x, the stitching paper's the first.
    """
    x, y = _centred(x), _centred(y)
    return pwcca_distance(Side(x.T @ x), Side(y.T @ y), x.T @ y)


def canonical_correlations(x: Tensor, y: Tensor) -> Tensor:
    """The correlations (min of the ranks,), descending, in [0, 1]. x (n, p), y (n, q)."""
    x, y = _centred(x), _centred(y)
    return _correlations(Side(x.T @ x), Side(y.T @ y), x.T @ y)


def disagreement(first: Tensor, second: Tensor) -> float:
    """The share of inputs, in [0, 1], that two networks put into different classes. Logits (n, k) and (n, k)."""
    return (first.argmax(1) != second.argmax(1)).double().mean().item()


@dataclass(frozen=True)
class Side:
    """One representation in the measures on moments: its covariance and whitening.

    covariance (p, p), not divided by n; basis (c, p): the coordinates in terms of the c original features, None if they
    are the features themselves.
    """

    covariance: Tensor
    basis: Tensor | None = None
    values: Tensor = field(init=False)  # (r,), the variances of the directions that count, descending
    vectors: Tensor = field(init=False)  # (p, r), those directions

    def __post_init__(self) -> None:
        values, vectors = torch.linalg.eigh(self.covariance)
        kept = values > FLOOR * values[-1].clamp_min(0)
        object.__setattr__(self, "values", values[kept].flip(0))
        object.__setattr__(self, "vectors", vectors[:, kept].flip(1))

    @property
    def total(self) -> Tensor:
        return self.covariance.diagonal().sum()

    @property
    def whitening(self) -> Tensor:
        """(p, r): coordinates -> uncorrelated coordinates of unit sum of squares."""
        return self.vectors / self.values.sqrt()

    @property
    def roots(self) -> Tensor:
        """(r, c): by how much each whitened direction moves each feature."""
        root = (self.vectors * self.values.sqrt()).T
        return root if self.basis is None else root @ self.basis.T

    def leading(self, variance: float) -> int:
        """The number of directions that explain this share of the variance."""
        return int((self.values.cumsum(0) < variance * self.values.sum() * (1 - 1e-15)).sum()) + 1


def procrustes_distance(x: Side, y: Side, cross: Tensor) -> float:
    """`procrustes` from the sides and their cross-moments (p, q)."""
    # what is below 0 is rounding
    return (2 - 2 * torch.linalg.svdvals(cross).sum() / (x.total * y.total).sqrt()).clamp_min(0).item()


def pwcca_distance(x: Side, y: Side, cross: Tensor) -> float:
    """`pwcca` from the sides and their cross-moments (p, q).

    Where x has more directions than y, those without a partner have correlation 0. They are not unique, and their
    weights depend on the choice; ours is the principal directions of x among them. The papers' code has those that its SVD
    happens to give, so that its number may differ, by up to .17 in what was tried.
    """
    directions, correlations, _ = torch.linalg.svd(x.whitening.T @ cross @ y.whitening, full_matrices=False)
    if directions.shape[1] < len(directions):
        full = torch.linalg.qr(directions, mode="complete").Q[:, directions.shape[1] :]
        _, rotation = torch.linalg.eigh(full.T @ (x.values[:, None] * full))
        directions = torch.cat([directions, full @ rotation], 1)
    weights = (directions.T @ x.roots).abs().sum(1)
    return (1 - (weights[: len(correlations)] * correlations).sum() / weights.sum()).clamp_min(0).item()  # below is rounding


def weighing(x: Side, y: Side) -> str:
    """Which side `pwcca_distance` takes the weights of, and whether the published rule defines that: one of `WEIGHING`."""
    return WEIGHING[len(x.values) > len(y.values)]


WEIGHING = ("first", "first, of more directions")


def mean_correlation(x: Side, y: Side, cross: Tensor) -> float:
    """The mean of the canonical correlations, in [0, 1]."""
    return _correlations(x, y, cross).mean().item()


def svcca(x: Side, y: Side, cross: Tensor) -> float:
    """The mean canonical correlation of the principal directions that explain 99 % of each (Raghu et al. 2017)."""
    p, q = x.leading(SVCCA_VARIANCE), y.leading(SVCCA_VARIANCE)
    return torch.linalg.svdvals(x.whitening[:, :p].T @ cross @ y.whitening[:, :q]).mean().item()


def _correlations(x: Side, y: Side, cross: Tensor) -> Tensor:
    return torch.linalg.svdvals(x.whitening.T @ cross @ y.whitening)


class Grams:
    """Centred Gram matrices (n, n) of m representations, kept as their upper triangles (m, n (n-1) / 2) and diagonals.

    order   (n,) of the inputs, that in which they came
    """

    def __init__(self, matrices: list[Tensor]) -> None:
        self.n = n = len(matrices[0])
        upper = torch.triu(torch.ones(n, n, dtype=torch.bool, device=matrices[0].device), 1)
        self.upper = torch.stack([matrix[upper] for matrix in matrices])
        self.diagonal = torch.stack([matrix.diagonal() for matrix in matrices])
        self.sums = torch.stack([matrix.sum(1) for matrix in matrices]) - self.diagonal  # of rows without the diagonal
        self.mask = upper
        self.order = torch.arange(n, device=upper.device)

    def distances(self, number: int) -> Tensor:
        """Squared distances (n, n) between the inputs in one representation."""
        products = torch.zeros_like(self.mask, dtype=self.upper.dtype)
        products[self.mask] = self.upper[number]
        products = products + products.T
        diagonal = self.diagonal[number]
        distances = (diagonal[:, None] + diagonal - 2 * products).clamp_min(0)
        return distances.fill_diagonal_(0)

    @cached_property
    def pairs(self) -> Tensor:
        """Row and column of each number of the upper triangle, (2, n (n-1) / 2)."""
        return torch.triu_indices(self.n, self.n, 1, device=self.order.device)

    @cached_property
    def squares(self) -> Tensor:
        """The sums (m,) of the squares of each matrix without its diagonal."""
        return 2 * self.upper.square().sum(1)

    @cached_property
    def norms(self) -> Tensor:
        """The Frobenius norms (m,) of the matrices."""
        return (self.squares + self.diagonal.square().sum(1)).sqrt()

    @cached_property
    def ranks(self) -> Tensor:
        """The ranks (m, n (n-1) / 2) of the distances, centred and of length 1."""
        from scipy.stats import rankdata

        rows = [
            torch.from_numpy(rankdata(self.distances(number)[self.mask].cpu().numpy())) for number in range(len(self.upper))
        ]
        centred = (torch.stack(rows) - (len(rows[0]) + 1) / 2).to(self.diagonal.device)
        return centred / centred.norm(dim=1, keepdim=True)

    def nearest(self, k: int) -> Tensor:
        """The k nearest other inputs of each, (m, n, k)."""
        distances = (self.distances(number).fill_diagonal_(torch.inf) for number in range(len(self.diagonal)))
        return torch.stack([one.topk(k, largest=False).indices for one in distances])

    @cached_property
    def neighbours(self) -> tuple[Tensor, Tensor]:
        """Of `NEIGHBOURS` nearest others, or all if there are fewer: which they are (m, n, k), and whether (m, n, n)."""
        nearest = self.nearest(min(NEIGHBOURS, self.n - 1))
        whether = torch.zeros(len(nearest), self.n, self.n, dtype=torch.bool, device=nearest.device)
        return nearest, whether.scatter_(2, nearest, True)

    @cached_property
    def unit_columns(self) -> Tensor:
        """The upper triangles over the norms, as float32 columns (n (n-1) / 2, m): what permutations read fastest."""
        return (self.upper / self.norms[:, None]).T.float().contiguous()

    @cached_property
    def rank_columns(self) -> Tensor:
        """`ranks`, as float32 columns."""
        return self.ranks.T.float().contiguous()


class PermutedGrams:
    """The same Gram matrices with the inputs in another order (n,), for the second side of the grids.

    What has no order is that of the source; products of triangles are of float32.
    """

    def __init__(self, source: Grams, order: Tensor) -> None:
        self.source, self.order = source, order.to(source.order.device)
        self.diagonal, self.sums = source.diagonal[:, self.order], source.sums[:, self.order]
        self.squares, self.norms, self.neighbours = source.squares, source.norms, source.neighbours

    @cached_property
    def places(self) -> Tensor:
        """Where the numbers of the upper triangle are in the source's, (n (n-1) / 2,)."""
        n, (rows, columns) = self.source.n, self.source.pairs
        one, two = self.order[rows], self.order[columns]
        first, second = torch.minimum(one, two), torch.maximum(one, two)
        return first * (2 * n - first - 1) // 2 + second - first - 1

    @cached_property
    def unit_columns(self) -> Tensor:
        return self.source.unit_columns.index_select(0, self.places)

    @cached_property
    def rank_columns(self) -> Tensor:
        return self.source.rank_columns.index_select(0, self.places)


class GramProducts:
    """Of the centred Gram matrices (n, n) of m1 and of m2 representations what both forms of CKA need: no matrix is kept.

    cross (m1, m2), squares (m1,) and (m2,): products of matrices without their diagonals, summed; diagonals and sums of rows
    without them (m, n).
    """

    def __init__(self, n: int, first: int, second: int, device: torch.device | str = "cpu") -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.n, self.cross = n, zeros(first, second)
        self.squares, self.diagonals, self.sums = (
            [zeros(first, *shape), zeros(second, *shape)] for shape in ((), (n,), (n,))
        )

    def add(self, begin: int, *blocks: Tensor) -> None:
        """Takes in the next rows of all matrices, (m1, b, n - begin) and (m2, b, n - begin): from column `begin` on.

        What lies on and below the diagonal of the blocks is overwritten.
        """
        end = begin + blocks[0].shape[1]
        for side, block in enumerate(blocks):
            self.diagonals[side][:, begin:end] = block.diagonal(dim1=1, dim2=2)
            block.triu_(1)
            self.sums[side][:, begin:end] += block.sum(2)
            self.sums[side][:, begin:] += block.sum(1)
            self.squares[side] += 2 * torch.linalg.vector_norm(block, dim=(1, 2)).square()
        self.cross += 2 * blocks[0].flatten(1) @ blocks[1].flatten(1).T

    @classmethod
    def of(cls, x: Grams, y: Grams | PermutedGrams) -> "GramProducts":
        """The same from stored triangles; those of permuted inputs are multiplied in float32."""
        products = cls(x.n, len(x.diagonal), len(y.diagonal), x.diagonal.device)
        if isinstance(y, PermutedGrams):
            products.cross = 2 * (x.unit_columns.T @ y.unit_columns).double() * x.norms[:, None] * y.norms
        else:
            products.cross = 2 * x.upper @ y.upper.T
        products.squares, products.diagonals = [x.squares, y.squares], [x.diagonal, y.diagonal]
        products.sums = [x.sums, y.sums]
        return products


def cka_grid(grams: GramProducts) -> Tensor:
    """`linear_cka` of all pairs (m1, m2)."""
    one, two = grams.diagonals
    norms = [(squares + own.square().sum(1)).sqrt() for squares, own in zip(grams.squares, grams.diagonals, strict=True)]
    return (grams.cross + one @ two.T) / (norms[0][:, None] * norms[1])


def debiased_cka_grid(grams: GramProducts) -> Tensor:
    """`debiased_cka` of all pairs (m1, m2): the unbiased HSIC_1 of Song et al. 2012 in place of the biased one."""
    n = grams.n
    if n < FEWEST_DEBIASED:
        raise ValueError(f"debiased CKA of {n} inputs does not exist; {FEWEST_DEBIASED} are the fewest")

    def hsic(products, sums, totals):
        return products + totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * sums

    one, two = grams.sums
    own = [
        hsic(squares, sums.square().sum(1), sums.sum(1).square())
        for squares, sums in zip(grams.squares, grams.sums, strict=True)
    ]
    both = hsic(grams.cross, one @ two.T, one.sum(1)[:, None] * two.sum(1))
    return both / (own[0].sqrt()[:, None] * own[1].sqrt())


def rsa_grid(x: Grams, y: Grams | PermutedGrams) -> Tensor:
    """Spearman's correlation, in [-1, 1], between the distances of all pairs of inputs, for all pairs (m1, m2).

    Representational similarity analysis (Kriegeskorte et al. 2008) with Euclidean distances.
    """
    if isinstance(y, PermutedGrams):
        return (x.rank_columns.T @ y.rank_columns).double()
    return x.ranks @ y.ranks.T


def knn_grid(x: Grams, y: Grams | PermutedGrams) -> Tensor:
    """The mean Jaccard overlap, in [0, 1], of the `NEIGHBOURS` nearest other inputs, for all pairs (m1, m2)."""
    (mine, _), (_, theirs) = x.neighbours, y.neighbours
    both = theirs[:, y.order[:, None], y.order[mine]].sum(3).double()  # (m2, m1, n)
    return (both / (2 * mine.shape[2] - both)).mean(2).T


def _centred(x: Tensor) -> Tensor:
    x = x.double()
    return x - x.mean(0)


def _cosine(a: Tensor, b: Tensor) -> float:
    return ((a * b).sum() / (a.norm() * b.norm())).item()
