"""Sources of features for probes: the cache, or the network, run again on demand.

Both give batches of rows by name, all in one pass. A name is a tap; where directions are fitted on each batch of images, it
is a site (a tap and a rank), since every rank then sees other features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models.normalized import Normalized
from lib.representations import principal_components
from lib.representations.features import AnyFeatures, Tap
from lib.representations.passes import Reduce, View, reduced_outputs

LOOKED_AT = 50  # batches between two looks at whether streamed features are finite: on a GPU each look waits for it
NUMBERS = 2**23  # features and logits that are held at once while cached features are gone through


@dataclass(frozen=True)
class ProbeSite:
    """Where a probe reads: a tap, restricted to `rank` directions unless None; and what kind of probe it is."""

    tap: Tap
    rank: int | None = None
    kind: str = "probe"


FeatureName = Tap | ProbeSite


class CachedSource:
    """Features of a split that are kept, by tap."""

    def __init__(self, features: Mapping[Tap, AnyFeatures]) -> None:
        self.features = features

    def rows(self, name: FeatureName, index: Tensor) -> Tensor:
        """Features (b, d) of the images at some positions."""
        return self.features[_tap(name)].rows(index)

    def dim(self, name: FeatureName) -> int:
        """The number of features d."""
        return self.features[_tap(name)].dim

    def batches(
        self, names: Sequence[FeatureName], order: Tensor | None = None
    ) -> Iterator[tuple[Tensor, dict[FeatureName, Tensor]]]:
        """(positions (b,), rows (b, d) by name) over all images, or over those in `order`."""
        n = len(next(iter(self.features.values()))) if order is None else len(order)
        chunk = max(1, NUMBERS // max(1, sum(self.dim(name) for name in names)))
        positions = torch.arange(n) if order is None else order
        for begin in range(0, n, chunk):
            part = slice(begin, begin + chunk)  # of a mapped file it is read in one go
            index = part if order is None else order[part]
            yield positions[part], {name: self.features[_tap(name)].rows(index) for name in names}


class StreamedSource:
    """Features of a split that are computed whenever they are asked for, all layers in one pass of the network.

    reduce    layer -> what is made of its output: features by name
    sizes     the number of features of each name
    seed      of augmented views
    """

    def __init__(
        self,
        network: Normalized,
        split: Split,
        reduce: Mapping[str, Callable[[Tensor], dict[FeatureName, Tensor]]],
        sizes: Mapping[FeatureName, int],
        batching: Batching,
        seed: int = 0,
    ) -> None:
        self.network, self.split, self.reduce, self.sizes = network, split, reduce, sizes
        self.batching, self.seed = batching, seed

    def rows(self, name: FeatureName, index: Tensor) -> Tensor:
        """Features (b, d) of the images at some positions."""
        return torch.cat([rows[name] for _, rows in self.batches([name], index)]).cpu()

    def dim(self, name: FeatureName) -> int:
        """The number of features d."""
        return self.sizes[name]

    def batches(
        self,
        names: Sequence[FeatureName],
        order: Tensor | None = None,
        batch_size: int | None = None,
        view: int | None = None,
    ) -> Iterator[tuple[Tensor, dict[FeatureName, Tensor]]]:
        """As those of `CachedSource`, in batches of a given size, of a view of the images; rows are where the network is."""
        batching = self.batching if batch_size is None else replace(self.batching, batch_size=batch_size)
        seen = None if view is None else View(view, self.seed)
        layers = {_tap(name).layer for name in names}
        reduce = {layer: function for layer, function in self.reduce.items() if layer in layers}
        passed = reduced_outputs(self.network, self.split, reduce, batching, order=order, view=seen, finite=LOOKED_AT)
        for positions, rows in passed:
            yield positions, {name: rows[name] for name in names}


FeatureSource = CachedSource | StreamedSource


def limited_in_batch(
    reducers: Mapping[Tap, Reduce], ranks: tuple[int, ...]
) -> Callable[[Tensor], dict[FeatureName, Tensor]]:
    """From a layer's output on a batch to its features at every rank, in the directions of that very batch.

    The stitching paper's released way (section 3.8): what an image is turned into depends on the images beside it.
    """

    def reduced(output: Tensor) -> dict[FeatureName, Tensor]:
        mean, basis = principal_components.directions(principal_components.channel_rows(output.detach()))
        # pooling and projecting commute
        features: dict[FeatureName, Tensor] = {}
        for tap, reduce in reducers.items():
            features[tap] = rows = reduce(output).float().clone()
            for rank in ranks:
                features[ProbeSite(tap, rank)] = principal_components.project(rows, mean, basis, rank)
        return features

    return reduced


def _tap(name: FeatureName) -> Tap:
    return name if isinstance(name, Tap) else name.tap
