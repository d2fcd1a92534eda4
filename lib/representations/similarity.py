"""Similarity of all layers of two networks, at all ranks, from one pass of each over the same images.

The stitching paper, sections 3.7 and 3.9 of its code: CKA compares whole flattened activations. The other indices on
moments compare positions where the two activations have equal shapes, so that every position of every image is a sample,
and means over positions (or tokens) where they have not. A rank limit keeps the first principal components of the
channels (or token features), estimated on the same images.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.metrics import similarity
from lib.metrics.similarity import GramProducts, Grams, Side

CHUNK = 1 << 23  # numbers that are brought to float64 at a time
BLOCK = 128  # rows of a Gram matrix that are computed at a time
GRAMS = 1 << 26  # numbers of the rows of all Gram matrices that are held at a time: half a GiB

GRAM_MEASURES = {
    "cka": similarity.cka_grid,
    "cka_debiased": similarity.debiased_cka_grid,
}
WHOLE_GRAM_MEASURES = {  # that need whole Gram matrices: memory grows with the square of the images
    "rsa": similarity.rsa_grid,
    "knn_jaccard": similarity.knn_grid,
}
MOMENT_MEASURES = {
    "pwcca": similarity.pwcca_distance,
    "procrustes": similarity.procrustes_distance,
    "svcca": similarity.svcca,
    "mean_cca": similarity.mean_correlation,
}


@dataclass(frozen=True)
class Representation:
    """One layer's activations of n images and the principal components of its channels.

    shape    of one image's activation: (c, h, w), (t, d) or (d,)
    values   (n, positions, c), as the network put them out
    mean     (c,), over all positions of all images; float64, as the others
    spectrum (c,), the sums of squares along the principal components, falling
    basis    (c, c), those components as columns
    """

    shape: tuple[int, ...]
    values: Tensor
    mean: Tensor = field(repr=False)
    spectrum: Tensor = field(repr=False)
    basis: Tensor = field(repr=False)

    @property
    def width(self) -> int:
        return self.values.shape[2]

    def pooled(self) -> Tensor:
        """Centred means over positions (n, c), in principal coordinates."""
        means = self.values.mean(1, dtype=torch.float64)
        return (means - means.mean(0)) @ self.basis

    def resampled(self, positions: Tensor) -> "Representation":
        """The representation of the images at `positions`, with principal components of their own."""
        return representation(self.values[positions], self.shape)


def representation(values: Tensor, shape: tuple[int, ...] | None = None) -> Representation:
    """The representation of activations (n, c, h, w), (n, t, d) or (n, d), or of values (n, positions, c) of a shape."""
    if shape is None:
        shape, values = tuple(values.shape[1:]), by_position(values)
    mean = values.mean((0, 1), dtype=torch.float64)
    covariance = sum(part.flatten(0, 1).T @ part.flatten(0, 1) for part in _parts(values, mean))
    spectrum, basis = torch.linalg.eigh(covariance)
    return Representation(shape, values, mean, spectrum.flip(0).clamp_min(0), basis.flip(1))


def by_position(values: Tensor) -> Tensor:
    """Activations (n, c, h, w), (n, t, d) or (n, d) as vectors at positions, (n, positions, c)."""
    return values.flatten(2).transpose(1, 2) if values.ndim == 4 else values if values.ndim == 3 else values[:, None]


def grid(
    first: dict[str, Representation],
    second: dict[str, Representation],
    measures: tuple[str, ...],
    first_ranks: dict[str, list[int]],
    second_ranks: dict[str, list[int]],
) -> list[dict]:
    """A row per pair of layers and of ranks: layer1, layer2, rank1, rank2, rows ("positions" or "images"), measures.

    With PWCCA also pwcca_weighs (`similarity.weighing`). `first_ranks` and `second_ranks` name for each layer the
    ranks it is limited to; the width is no limit.
    """
    left, right = _Network(first, first_ranks), _Network(second, second_ranks)
    tables = {}
    if set(measures) & set(GRAM_MEASURES):
        products = gram_products(left, right)
        tables |= {name: function(products).cpu() for name, function in GRAM_MEASURES.items() if name in measures}
    if set(measures) & set(WHOLE_GRAM_MEASURES):
        grams = left.grams(), right.grams()
        tables |= {name: function(*grams).cpu() for name, function in WHOLE_GRAM_MEASURES.items() if name in measures}
    of_moments, weighs = [name for name in measures if name in MOMENT_MEASURES], "pwcca" in measures
    rows = []
    for one, x in first.items():
        for two, y in second.items():
            aligned = x.shape == y.shape and x.values.shape[1] > 1
            by_moments = _by_moments(left, right, one, two, aligned, of_moments)
            for rank1 in first_ranks[one]:
                for rank2 in second_ranks[two]:
                    cell = left.numbers[one, rank1], right.numbers[two, rank2]
                    measured = {name: table[cell].item() for name, table in tables.items()} | by_moments[rank1, rank2]
                    rows.append(
                        {
                            "layer1": one,
                            "layer2": two,
                            "rank1": rank1,
                            "rank2": rank2,
                            "rows": "positions" if aligned else "images",
                            **{name: measured[name] for name in measures if name in measured},
                            **(_weighing(left.side(one, rank1, aligned), right.side(two, rank2, aligned)) if weighs else {}),
                        }
                    )
    return rows


def gram_rows(layer: Representation, ranks: list[int], begin: int, end: int) -> Tensor:
    """Rows `begin` to `end`, from column `begin` on, of the centred Gram matrices of the flattened activation at each rank.

    (ranks, end - begin, n - begin); a rank's matrix is a cumulative sum of bands of components. Below the diagonal there may
    be zeros.
    """
    edges = [0, *sorted(set(ranks))]
    rotated = edges[1:] != [layer.width]  # the whole of it has the same products in all coordinates
    n = len(layer.values) - begin
    bands = torch.zeros(len(edges) - 1, end - begin, n, dtype=torch.float64, device=layer.values.device)
    for whole in layer.values.split(max(1, CHUNK // (len(layer.values) * layer.width)), 1):
        part = whole[begin:].double() - whole.mean(0, dtype=torch.float64)
        part = part @ layer.basis if rotated else part
        for number, (low, high) in enumerate(itertools.pairwise(edges)):
            flat = part[:, :, low:high].flatten(1)
            for row in range(0, end - begin, BLOCK):  # on and above the diagonal
                rows = flat[row : min(row + BLOCK, end - begin)]
                bands[number, row : row + len(rows), row:].addmm_(rows, flat[row:].T)
    for number in range(1, len(bands)):
        bands[number] += bands[number - 1]
    return bands if ranks == edges[1:] else bands[[edges.index(rank) - 1 for rank in ranks]]


def gram_matrices(layer: Representation, ranks: list[int]) -> list[Tensor]:
    """The centred Gram matrices (n, n) of the flattened activation limited to each rank."""
    upper = gram_rows(layer, ranks, 0, len(layer.values)).triu()
    return list(upper + upper.triu(1).transpose(1, 2))


def gram_products(first: "_Network", second: "_Network") -> GramProducts:
    """Products of the Gram matrices of all layers of two networks, some rows of all of them at a time."""
    sides, n = (first, second), len(next(iter(first.layers.values())).values)
    products = GramProducts(n, *(len(side.numbers) for side in sides), first.device)
    step = max(BLOCK, GRAMS // (n * sum(len(side.numbers) for side in sides)))
    for begin in range(0, n, step):
        products.add(begin, *(side.gram_rows(begin, min(begin + step, n)) for side in sides))
    return products


class _Network:
    """The layers of one network at their ranks, and what of them does not depend on the other network."""

    def __init__(self, layers: dict[str, Representation], ranks: dict[str, list[int]]) -> None:
        self.layers, self.ranks = layers, ranks
        keys = [(layer, rank) for layer in layers for rank in ranks[layer]]
        self.numbers = {key: number for number, key in enumerate(keys)}  # its row or column in tables of Gram measures
        self.means = {name: layer.pooled() for name, layer in layers.items()}
        self.sides: dict[tuple[str, int, bool], Side] = {}

    @property
    def device(self) -> torch.device:
        return next(iter(self.layers.values())).values.device

    def gram_rows(self, begin: int, end: int) -> Tensor:
        """Those of all layers, behind one another."""
        n = len(next(iter(self.layers.values())).values)
        rows = torch.empty(len(self.numbers), end - begin, n - begin, dtype=torch.float64, device=self.device)
        for name, layer in self.layers.items():
            first = self.numbers[name, self.ranks[name][0]]
            rows[first : first + len(self.ranks[name])] = gram_rows(layer, self.ranks[name], begin, end)
        return rows

    def grams(self) -> Grams:
        return Grams([matrix for name, layer in self.layers.items() for matrix in gram_matrices(layer, self.ranks[name])])

    def side(self, name: str, rank: int, positions: bool) -> Side:
        """Covariance and whitening of the first `rank` components, over positions or over means of them."""
        key = (name, rank, positions)
        if key not in self.sides:
            layer = self.layers[name]
            means = self.means[name][:, :rank]
            covariance = torch.diag(layer.spectrum[:rank]) if positions else means.T @ means
            self.sides[key] = Side(covariance, layer.basis[:, :rank])
        return self.sides[key]


def _by_moments(
    first: _Network, second: _Network, one: str, two: str, positions: bool, names: list[str]
) -> dict[tuple[int, int], dict[str, float]]:
    """The named measures on moments of a layer `one` of the first and `two` of the second network, by both ranks."""
    pairs = [(rank1, rank2) for rank1 in first.ranks[one] for rank2 in second.ranks[two]]
    if not names:
        return {pair: {} for pair in pairs}
    cross = _cross(first, second, one, two, positions)
    return {
        (rank1, rank2): {
            name: MOMENT_MEASURES[name](
                first.side(one, rank1, positions), second.side(two, rank2, positions), cross[:rank1, :rank2]
            )
            for name in names
        }
        for rank1, rank2 in pairs
    }


def _weighing(x: Side, y: Side) -> dict[str, str]:
    return {"pwcca_weighs": similarity.weighing(x, y)}


def _cross(first: _Network, second: _Network, one: str, two: str, positions: bool) -> Tensor:
    """Cross-moments of two layers in the principal coordinates of each, over positions or over means of them."""
    if not positions:
        return first.means[one].T @ second.means[two]
    x, y = first.layers[one], second.layers[two]
    pairs = zip(_parts(x.values, x.mean), _parts(y.values, y.mean), strict=True)
    return x.basis.T @ sum(a.flatten(0, 1).T @ b.flatten(0, 1) for a, b in pairs) @ y.basis


def _parts(values: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """The centred values in float64, some images at a time."""
    step = max(1, CHUNK // values[0].numel())
    for part in values.split(step):
        yield part.double() - mean
