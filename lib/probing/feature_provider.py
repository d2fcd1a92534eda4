"""Provides the features of a study: their sizes, whether they fit into the cache, and the source of each split's."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models.normalized import Normalized
from lib.models.reducer_names import parse
from lib.models.reducers import reducer
from lib.probing import baselines
from lib.probing.clock import Clock
from lib.probing.feature_sources import (
    CachedSource,
    FeatureName,
    FeatureSource,
    ProbeSite,
    StreamedSource,
    limited_in_batch,
)
from lib.probing.feature_transform import Directions
from lib.probing.fit import check_memory
from lib.probing.layers import Layout
from lib.probing.study import ProbeStudy
from lib.representations import feature_cache, pca_reducers, principal_components
from lib.representations.feature_cache import GIB
from lib.representations.features import (
    TYPES,
    Collected,
    Features,
    SideBySide,
    Storage,
    Tap,
    Views,
    collect,
    dimensions,
    layer_reducer,
)
from lib.representations.passes import Reduce, View, reduced_outputs


def together(sweep: list[Tap]) -> Tap:
    """The name of the features of all taps of a sweep side by side."""
    return Tap("all of them", "+".join(dict.fromkeys(tap.reduce for tap in sweep)))


@dataclass(frozen=True)
class FeatureProvider:
    """Gives the features of any split at the taps of a layout: cached, or streamed (computed whenever they are read).

    reducers      of every tap
    dims          the number of features of every tap
    streams       whether features are streamed
    per_batch     directions of ranks are fitted on every batch of the probes' size by itself
    seed          of augmented views
    cache_limit   bytes on disk for the features that all runs keep
    """

    network: Normalized
    layout: Layout
    train: Split
    batching: Batching
    storage: Storage
    cache_limit: float
    reducers: dict[Tap, Reduce]
    dims: dict[Tap, int]
    streams: bool
    per_batch: int | None
    seed: int
    clock: Clock

    def dim(self, tap: Tap) -> int:
        """The number of features of a tap, or of all taps of a sweep together."""
        joined = {together(sweep): sum(self.dims[one] for one in sweep) for sweep in self.layout.sweeps}
        return (self.dims | joined)[tap]

    def affordable(self, tap: Tap, most: int, copies: int) -> int:
        """At most how many images' float32 features, so many times, take no more memory than kept ones; two at least."""
        each = 4 * copies * self.dims[tap]
        return min(most, max(2, int(self.storage.gib * GIB / each)))

    def collect(
        self, split: Split, head: bool = False, moments: bool = False, view: int | None = None, share: int = 1
    ) -> Collected:
        """The kept features of a split at all taps, and at the head; `share` such collections are held at a time."""
        with self.clock.stage("passes"):
            exact = (self.layout.head,) if head and self.layout.head else ()
            penultimate = (self.layout.penultimate,) if self.layout.penultimate else ()
            wanted = dict.fromkeys([*self.layout.taps, *penultimate, *exact])
            collected = collect(
                self.network,
                split,
                {tap: self.reducers[tap] for tap in wanted},
                self.batching,
                replace(self.storage, exact=exact, gib=self.storage.gib / share),
                moments=moments,
                view=None if view is None else View(view, self.seed),
            )
            if self.storage.cache_dir is not None and self.batching.processes.rank == 0:
                feature_cache.prune(self.storage.cache_dir, self.cache_limit)
        return collected

    def source(self, split: Split, head: bool = False) -> FeatureSource:
        """The features of a split at all taps, and at the head: cached, or streamed."""
        return self.streamed(split) if self.streams else self.cached(split, head)

    def cached(self, split: Split, head: bool = False, share: int = 1) -> CachedSource:
        """The cached features of a split; `share` such sources are held at a time."""
        return self.of_features(self.collect(split, head, share=share).features)

    def of_features(self, features: Mapping[Tap, Features | Views]) -> CachedSource:
        """Features by tap as a source, where those of a whole sweep are found side by side too."""
        joined = {together(sweep): SideBySide(tuple(features[tap] for tap in sweep)) for sweep in self.layout.sweeps}
        return CachedSource({**features, **joined})

    def streamed(self, split: Split) -> StreamedSource:
        """The features of a split, computed whenever they are read."""
        sizes: dict[FeatureName, int] = dict(self.dims)
        reduce: dict[str, Callable[[Tensor], dict[FeatureName, Tensor]]] = {}
        for layer in dict.fromkeys(tap.layer for tap in self.dims):
            taps = [tap for tap in self.dims if tap.layer == layer]
            if self.per_batch and any(tap in self.layout.taps for tap in taps):
                reduce[layer] = limited_in_batch({tap: self.reducers[tap] for tap in taps}, self.layout.ranks)
                sizes |= {ProbeSite(tap, rank): self.dims[tap] for tap in taps for rank in self.layout.ranks}
            else:
                reduce[layer] = layer_reducer({tap: self.reducers[tap] for tap in taps})
        batching = replace(self.batching, batch_size=self.per_batch, own=True) if self.per_batch else self.batching
        return StreamedSource(self.network, split, reduce, sizes, batching, self.seed)

    def reads(self, site: ProbeSite) -> FeatureName:
        """The name under which a source has what a site reads."""
        return ProbeSite(site.tap, site.rank) if self.per_batch else site.tap

    def directions(self) -> dict[str, Directions]:
        """The principal directions of every layer's channels over the whole training split."""
        if self.streams:
            moments: dict[str, Any] = {tap.layer: principal_components.Moments() for tap in self.layout.taps}
            reduce = {layer: layer_reducer({}, layer) for layer in moments}
            with self.clock.stage("passes"):
                for _, rows in reduced_outputs(self.network, self.train, reduce, self.batching, finite=1):
                    for layer in moments:
                        moments[layer] += rows[layer]
        else:
            moments = self.collect(self.train, moments=True).moments
        return {
            layer: Directions(moment.mean, principal_components.basis(moment.covariance))
            for layer, moment in moments.items()
        }


def plan(study: ProbeStudy, clock: Clock) -> FeatureProvider:
    """Decides whether features are kept, and fits the reducers that have to be.

    Raises `UserError` if they cannot be kept and have to be, or do not fit into the memory that the solver needs.
    """
    options, layout, train = study.options, study.layout, study.data.train
    ends = [tap for tap in (layout.penultimate, layout.head) if tap and tap not in layout.taps]
    names = {tap: parse(tap.reduce) for tap in [*layout.taps, *ends]}
    with clock.stage("passes"):
        simple: dict[Tap, Reduce] = {
            tap: reducer("flatten" if kind == "pca" else tap.reduce, study.seeds[0]) for tap, (kind, _) in names.items()
        }
        sizes = dimensions(study.network, simple, train, options.batching)
        dims = {tap: min(sizes[tap], most) if kind == "pca" else sizes[tap] for tap, (kind, most) in names.items()}
        streams = options.per_batch or _must_stream(study, dims)
        _check_memory(study, dims, streams)
        fitted = pca_reducers.fit(study.network, train, layout.taps, options.batching)
    return FeatureProvider(
        study.network,
        layout,
        train,
        options.batching,
        options.storage,
        options.cache_limit * GIB,
        simple | fitted,
        dims,
        streams,
        options.recipe.batch_size if options.per_batch else None,
        study.seeds[0],
        clock,
    )


def _must_stream(study: ProbeStudy, dims: dict[Tap, int]) -> bool:
    """Whether all features are more than the cache may hold; raises `UserError` if a baseline needs them there."""
    options, shifts = study.options, study.data.shifts
    images = len(study.data.train) * (1 + options.protocol.views) if study.reads_train else 0
    images += sum(len(split) for shift in shifts for split in shift.splits.values())
    needed = images * sum(dims.values()) * TYPES[options.storage.dtype].itemsize
    room = feature_cache.room(options.storage.cache_dir) if options.storage.cache_dir is not None else math.inf
    if needed <= min(options.cache_limit * GIB, room):
        return False
    needing = [name for name in study.baselines if name in baselines.OF_CACHED_FEATURES]
    if needing:
        raise UserError(
            f"--baselines {' '.join(needing)}: {needed / GIB:.3g} GiB of features are more than --cache-limit or "
            "the disk allows, and this works on kept features; --reduce gap makes them fewer"
        )
    return True


def _check_memory(study: ProbeStudy, dims: dict[Tap, int], streams: bool) -> None:
    """Raises `UserError` unless the solver can learn from the features of every tap."""
    examples = max(len(one.positions) * max(1, one.views) for one in study.sets)
    sizes = {tap: dims[tap] for tap in study.layout.taps}
    squares = sum(size * size for size in sizes.values())
    for tap, size in sorted(sizes.items(), key=lambda item: item[1], reverse=True):
        stacked = squares / size**2 * max(1, len(study.layout.ranks))
        check_memory(tap, examples, size, study.options.recipe, streams, stacked)
