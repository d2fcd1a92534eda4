"""Similarity of all layers of two networks, at all ranks, from one pass of each over the same images.

The stitching paper, sections 3.7 and 3.9 of its code: CKA compares whole flattened activations. The other indices on
moments compare positions where the two activations have equal shapes, so that every position of every image is a sample,
and means over positions (or tokens) where they have not. A rank limit keeps the first principal components of the
channels (or token features), estimated on the same images.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lib.metrics import image_permutations, permutation_null, similarity
from lib.metrics.image_permutations import Permutations
from lib.metrics.similarity import GramProducts, Grams, PermutedGrams, Side

CHUNK = 1 << 23  # numbers that are brought to float64 at a time
BLOCK = 128  # rows of a Gram matrix that are computed at a time
MOMENTS = 1 << 26  # cross-moments of layers of one shape that are held at a time: half a GiB
GRAMS = 1 << 25  # numbers of the rows of all Gram matrices that are held at a time: a quarter of a GiB

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
DISTANCES = ("pwcca", "procrustes")  # lower is more alike


@dataclass(frozen=True)
class Representation:
    """One layer's activations of n images and the principal components of its channels.

    shape    of one image's activation: (c, h, w), (t, d) or (d,)
    values   (n, positions, c), as the network put them out
    centre   (positions, c), the mean over images; float64, as the others
    mean     (c,), over all positions of all images
    spectrum (c,), the sums of squares along the principal components, falling
    basis    (c, c), those components as columns
    """

    shape: tuple[int, ...]
    values: Tensor
    centre: Tensor = field(repr=False)
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
    centre = values.mean(0, dtype=torch.float64)
    mean = centre.mean(0)
    covariance = values.new_zeros(len(mean), len(mean), dtype=torch.float64)
    for images in _parts(values, 1):
        samples = _by_channel([(values[images], mean)])
        covariance.addmm_(samples, samples.T)
    spectrum, basis = torch.linalg.eigh(covariance)
    return Representation(shape, values, centre, mean, spectrum.flip(0).clamp_min(0), basis.flip(1))


def by_position(values: Tensor) -> Tensor:
    """Activations (n, c, h, w), (n, t, d) or (n, d) as vectors at positions, (n, positions, c)."""
    return values.flatten(2).transpose(1, 2) if values.ndim == 4 else values if values.ndim == 3 else values[:, None]


def grid(
    first: dict[str, Representation],
    second: dict[str, Representation],
    measures: tuple[str, ...],
    first_ranks: dict[str, list[int]],
    second_ranks: dict[str, list[int]],
    permutations: Permutations | None = None,
) -> list[dict]:
    """A row per pair of layers and of ranks: layer1, layer2, rank1, rank2, rows ("positions" or "images"), measures.

    With PWCCA also pwcca_weighs (`similarity.weighing`). `first_ranks` and `second_ranks` name for each layer the
    ranks it is limited to; the width is no limit. With permutations of the second network's images also what each measure
    is by chance (`_nulls`).
    """
    left, right = _Network(first, first_ranks), _Network(second, second_ranks)
    measured = _measured(left, right, measures, permutations is not None)
    nulls = _nulls(left, right, measured, permutations) if permutations else {}
    cells = [
        (one, two, rank1, rank2)
        for one in first
        for two in second
        for rank1 in first_ranks[one]
        for rank2 in second_ranks[two]
    ]
    rows = []
    for number, (one, two, rank1, rank2) in enumerate(cells):
        positions = _aligned(first[one], second[two])
        row: dict = {
            "layer1": one,
            "layer2": two,
            "rank1": rank1,
            "rank2": rank2,
            "rows": "positions" if positions else "images",
        }
        row |= {name: values[number] for name, values in measured.items()}
        if "pwcca" in measured:
            row["pwcca_weighs"] = similarity.weighing(left.side(one, rank1, positions), right.side(two, rank2, positions))
        rows.append(row | {name: values[number] for name, values in nulls.items()})
    return rows


def _measured(left: "_Network", right: "_Network", measures: tuple[str, ...], stored: bool) -> dict[str, list[float]]:
    """measure -> its values of all pairs of layers and ranks, as rows have them.

    stored: whether whole Gram matrices are to be kept, for permutations; else CKA takes some rows of them at a time
    """
    values = _of_grams(left, right, measures, right.grams if stored and _on_grams(measures) else None)
    values |= {name: drawn[0] for name, drawn in _of_moments(left, right, measures, _crosses(left, right)).items()}
    return {name: values[name].tolist() for name in measures if name in values}


def _on_grams(names: Iterable[str]) -> list[str]:
    """Those of the measures that are on Gram matrices."""
    return [name for name in names if name in GRAM_MEASURES or name in WHOLE_GRAM_MEASURES]


def _of_grams(
    left: "_Network", right: "_Network", names: Iterable[str], stored: Grams | PermutedGrams | None
) -> dict[str, np.ndarray]:
    """measure on Gram matrices -> its values (rows,); `stored`: the second network's matrices, None to keep none for CKA."""
    tables = {}
    if set(names) & set(GRAM_MEASURES):
        products = gram_products(left, right) if stored is None else GramProducts.of(left.grams, stored)
        tables |= {name: function(products) for name, function in GRAM_MEASURES.items() if name in names}
    if set(names) & set(WHOLE_GRAM_MEASURES):
        grams = left.grams, right.grams if stored is None else stored
        tables |= {name: function(*grams) for name, function in WHOLE_GRAM_MEASURES.items() if name in names}
    return {name: left.cells(right, table.cpu()).numpy() for name, table in tables.items()}


def _drawn(left: "_Network", right: "_Network", names: Iterable[str], permutations: Permutations) -> dict[str, np.ndarray]:
    """measure -> its values (draws, rows) with the second network's images in other orders, all layers in the same."""
    tables: dict[str, list] = {name: [] for name in _on_grams(names)}
    for order in permutations.orders if tables else ():
        for name, table in _of_grams(left, right, tables, PermutedGrams(right.grams, order)).items():
            tables[name].append(table)
    values = {name: np.stack(drawn) for name, drawn in tables.items()}
    return values | _of_moments(left, right, names, _drawn_crosses(left, right, permutations))


def _nulls(
    left: "_Network", right: "_Network", measured: dict[str, list[float]], permutations: Permutations
) -> dict[str, list]:
    """By the column of a row: what each measure is with the second network's images in other orders.

    `<measure>_null_mean`; `_null_q95`, which 95 % of the orders are not more alike than; `_p_null` of the row alone and
    `_p_best`, which holds for the row that was picked from all (`lib.metrics.permutation_null`).
    """
    nulls = {}
    for name, drawn in _drawn(left, right, measured, permutations).items():
        turn = -1 if name in DISTANCES else 1  # the null speaks of how much more alike than by chance
        null = permutation_null.calibrate(turn * np.array(measured[name]), turn * drawn)
        columns = {"null_mean": turn * null.mean, "null_q95": turn * null.q95, "p_null": null.p, "p_best": null.p_best}
        nulls |= {
            f"{name}_{column}": [None if np.isnan(value) else value for value in numbers.tolist()]
            for column, numbers in columns.items()
        }
    return nulls


def gram_rows(layer: Representation, ranks: list[int], begin: int, end: int) -> Tensor:
    """Rows `begin` to `end`, from column `begin` on, of the centred Gram matrices of the flattened activation at each rank.

    (ranks, end - begin, n - begin); a rank's matrix is a cumulative sum of bands of components. Below the diagonal there may
    be zeros.
    """
    edges = [0, *sorted(set(ranks))]
    rotated = edges[1:] != [layer.width]  # the whole of it has the same products in all coordinates
    n = len(layer.values) - begin
    bands = torch.zeros(len(edges) - 1, end - begin, n, dtype=torch.float64, device=layer.values.device)
    step = max(1, CHUNK // (len(layer.values) * layer.width))
    for whole, centre in zip(layer.values.split(step, 1), layer.centre.split(step), strict=True):
        part = whole[begin:].double() - centre
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

    def cells(self, other: "_Network", table: Tensor) -> Tensor:
        """A table (m1, m2) of layers at ranks as the rows (., ) have its cells: by pair of layers, then of ranks."""
        return torch.cat(
            [
                table[[self.numbers[one, rank] for rank in self.ranks[one]]][
                    :, [other.numbers[two, rank] for rank in other.ranks[two]]
                ].flatten()
                for one in self.layers
                for two in other.layers
            ]
        )

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

    @cached_property
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


def _aligned(x: Representation, y: Representation) -> bool:
    """Whether every position of two layers is a sample: they have the same shape, and positions."""
    return x.shape == y.shape and x.values.shape[1] > 1


Cross = tuple[str, str, bool, Tensor]  # a layer of each network, whether positions are the samples, their cross-moments


def _of_moments(left: _Network, right: _Network, measures: Iterable[str], crosses: Iterable[Cross]) -> dict[str, np.ndarray]:
    """measure on moments -> its values (draws, rows), of cross-moments of every pair of layers, draw by draw."""
    names = [name for name in measures if name in MOMENT_MEASURES]
    pairs = list(itertools.product(left.layers, right.layers))
    found: dict[str, dict[tuple[str, str], list]] = {name: {pair: [] for pair in pairs} for name in names}
    for one, two, positions, cross in crosses if names else ():
        limited = [
            (left.side(one, rank1, positions), right.side(two, rank2, positions), cross[:rank1, :rank2])
            for rank1 in left.ranks[one]
            for rank2 in right.ranks[two]
        ]
        for name in names:
            found[name][one, two].append([MOMENT_MEASURES[name](*sides) for sides in limited])
    return {name: np.concatenate([np.array(drawn) for drawn in of.values()], axis=1) for name, of in found.items()}


def _crosses(left: _Network, right: _Network) -> Iterator[Cross]:
    """Cross-moments of all pairs of layers, in the principal coordinates of each."""
    for one, two in _apart(left, right):
        yield one, two, False, left.means[one].T @ right.means[two]
    for fronts, ends in _together(left, right, 1):
        x, y = [left.layers[one] for one in fronts], [right.layers[two] for two in ends]
        sums = torch.zeros((), dtype=torch.float64, device=left.device)
        for images in _parts(x[0].values, len(x) + len(y)):
            front, end = (_by_channel([(layer.values[images], layer.mean) for layer in side]) for side in (x, y))
            sums = sums + front @ end.T
        yield from _principal(left, right, fronts, ends, sums)


def _drawn_crosses(left: _Network, right: _Network, permutations: Permutations) -> Iterator[Cross]:
    """The same for each order of the second network's images."""
    for one, two in _apart(left, right):
        for order in permutations.orders:
            yield one, two, False, left.means[one].T @ right.means[two][order]
    for fronts, ends in _together(left, right, len(permutations.orders)):
        sides = [left.layers[one] for one in fronts], [right.layers[two] for two in ends]
        x, y = (torch.cat([layer.values.double() - layer.mean for layer in side], 2) for side in sides)
        for sums in image_permutations.cross_moments(x, y, permutations):
            yield from _principal(left, right, fronts, ends, sums)


def _apart(left: _Network, right: _Network) -> list[tuple[str, str]]:
    """The pairs of layers whose samples are means over positions."""
    pairs = itertools.product(left.layers, right.layers)
    return [(one, two) for one, two in pairs if not _aligned(left.layers[one], right.layers[two])]


def _together(left: _Network, right: _Network, draws: int) -> Iterator[tuple[list[str], list[str]]]:
    """The others: layers of the first network, and of the second, that are all of one shape.

    What has to be done for each layer, such as centring it, is done once for all pairs of them. They are as few as their
    cross-moments, of so many draws, and their activations of some images may take memory.
    """
    for shape in dict.fromkeys(layer.shape for layer in left.layers.values()):
        fronts, ends = ([name for name, layer in side.layers.items() if layer.shape == shape] for side in (left, right))
        if not ends or not _aligned(left.layers[fronts[0]], right.layers[ends[0]]):
            continue
        values = left.layers[fronts[0]].values
        step = max(1, math.isqrt(MOMENTS // draws) // values.shape[2])
        if draws > 1:
            step = max(1, min(step, MOMENTS // (2 * values.numel())))
        for one in range(0, len(fronts), step):
            for two in range(0, len(ends), step):
                yield fronts[one : one + step], ends[two : two + step]


def _principal(left: _Network, right: _Network, fronts: list[str], ends: list[str], sums: Tensor) -> Iterator[Cross]:
    """Cross-moments (layers c, layers c) of the channels of some layers, pair by pair in principal coordinates."""
    for one, row in zip(fronts, sums.chunk(len(fronts)), strict=True):
        for two, cross in zip(ends, row.chunk(len(ends), 1), strict=True):
            yield one, two, True, left.layers[one].basis.T @ cross @ right.layers[two].basis


def _parts(values: Tensor, layers: int) -> Iterator[slice]:
    """Images, as many at a time as of so many layers like this one are brought to float64 at once."""
    step = max(1, CHUNK // (layers * values[0].numel()))
    return (slice(begin, begin + step) for begin in range(0, len(values), step))


def _by_channel(layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Values (n, positions, c) of layers of one shape, less their means (c,): (layers c, n positions), in float64."""
    n, positions, width = layers[0][0].shape
    samples = layers[0][0].new_empty(len(layers), width, n, positions, dtype=torch.float64)
    for centred, (values, mean) in zip(samples, layers, strict=True):
        centred.copy_(values.permute(2, 0, 1)).sub_(mean[:, None, None])
    return samples.view(len(layers) * width, n * positions)
