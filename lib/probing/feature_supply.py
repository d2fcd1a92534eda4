"""The features of a run: of which size they are, whether they can be kept, and from where each split's come."""

import time
from dataclasses import replace

from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models.reducer_names import parse
from lib.models.reducers import reducer
from lib.probing.feature_sources import Kept, Live, Place, limited_in_batch
from lib.probing.fit import Directions, Recipe, check_memory
from lib.probing.layers import Layout
from lib.representations import feature_cache, pca_reducers, principal_components
from lib.representations.features import TYPES, Collected, SideBySide, Storage, Tap, collect, dimensions, layer_reducer
from lib.representations.passes import View, reduced_outputs


def together(sweep: list[Tap]) -> Tap:
    """The name of the features of all taps of a sweep side by side."""
    return Tap("all of them", "+".join(dict.fromkeys(tap.reduce for tap in sweep)))


class Supply:
    """Gives the features of any split at the taps of a layout: kept in the cache, or computed whenever they are read.

    seconds    where the time of passes is added up
    """

    def __init__(self, config, network, layout: Layout, train: Split, batching: Batching, seconds: dict) -> None:
        self.config, self.network, self.layout, self.train = config, network, layout, train
        self.batching, self.seconds = batching, seconds

    def plan(self, images: int, examples: int, recipe: Recipe, needing: str) -> None:
        """Decides whether features are kept, and fits the reducers that have to be.

        images    so many are passed in all, views counted
        examples  so many a probe learns from, at most
        needing   the flag with what works on kept features only, if something does

        Raises `UserError` if they cannot be kept and have to be.
        """
        config, layout = self.config, self.layout
        every = [*layout.taps, *[tap for tap in (layout.penultimate, layout.head) if tap and tap not in layout.taps]]
        simple = {tap: reducer("flatten" if parse(tap.reduce)[0] == "pca" else tap.reduce, config.seed[0]) for tap in every}
        begin = time.perf_counter()
        sizes = dimensions(self.network, simple, self.train, self.batching)
        self.dims = {
            tap: min(size, parse(tap.reduce)[1]) if parse(tap.reduce)[0] == "pca" else size for tap, size in sizes.items()
        }
        needed = images * sum(self.dims.values()) * TYPES[config.cache_type].itemsize
        most = min(config.cache_limit * feature_cache.GIB, feature_cache.room(config.cache_dir))
        self.streams = self.per_batch or needed > most
        if self.streams and needing:
            raise UserError(
                f"{needing}: {needed / feature_cache.GIB:.3g} GiB of features are more than --cache-limit or "
                "the disk allows, and this works on kept features; --reduce gap makes them fewer"
            )
        sizes = {tap: self.dims[tap] for tap in layout.taps}
        for tap in sorted(sizes, key=sizes.get, reverse=True):
            check_memory(
                tap,
                examples,
                sizes[tap],
                recipe,
                self.streams,
                stacked=sum(size * size for size in sizes.values()) / sizes[tap] ** 2 * max(1, len(layout.ranks)),
            )
        self.made = simple | pca_reducers.fit(self.network, self.train, layout.taps, self.batching)
        self._count(begin)

    def dim(self, tap: Tap) -> int:
        """The number of features of a tap, or of all taps of a sweep together."""
        joined = {together(sweep): sum(self.dims[one] for one in sweep) for sweep in self.layout.sweeps}
        return (self.dims | joined)[tap]

    @property
    def per_batch(self) -> bool:
        return self.config.rank_basis == "per-batch"

    def collect(
        self, split: Split, head: bool = False, moments: bool = False, view: int | None = None, share: int = 1
    ) -> Collected:
        """The kept features of a split at all taps, and at the head; `share` such collections are held at a time."""
        begin, config = time.perf_counter(), self.config
        exact = (self.layout.head,) if head and self.layout.head else ()
        wanted = dict.fromkeys([*self.layout.taps, *([self.layout.penultimate] if self.layout.penultimate else []), *exact])
        found = collect(
            self.network,
            split,
            {tap: self.made[tap] for tap in wanted},
            self.batching,
            Storage(cache_dir=config.cache_dir, dtype=config.cache_type, exact=exact, gib=config.cache_gib / 2 / share),
            moments=moments,
            view=None if view is None else View(view, config.seed[0]),
        )
        feature_cache.prune(config.cache_dir, config.cache_limit * feature_cache.GIB)
        self._count(begin)
        return found

    def source(self, split: Split, head: bool = False, share: int = 1) -> Kept | Live:
        """The features of a split at all taps, and at the head: kept, or computed whenever they are asked for."""
        return self.live(split) if self.streams else self.kept(self.collect(split, head, share=share).features)

    def reads(self, place: Place) -> Tap | Place:
        """The name under which a place's features are found."""
        return Place(place.tap, place.rank) if self.per_batch else place.tap

    def kept(self, features: dict) -> Kept:
        joined = {together(sweep): SideBySide(tuple(features[tap] for tap in sweep)) for sweep in self.layout.sweeps}
        return Kept(features | joined)

    def live(self, split: Split) -> Live:
        sizes, reduce = dict(self.dims), {}
        for layer in dict.fromkeys(tap.layer for tap in self.dims):
            made = {tap: self.made[tap] for tap in self.dims if tap.layer == layer}
            if self.per_batch and any(tap in self.layout.taps for tap in made):
                reduce[layer] = limited_in_batch(made, self.layout.ranks)
                sizes |= {Place(tap, rank): self.dims[tap] for tap in made for rank in self.layout.ranks}
            else:
                reduce[layer] = layer_reducer(made)
        batching = replace(self.batching, batch_size=self.config.batch_size) if self.per_batch else self.batching
        return Live(self.network, split, reduce, sizes, batching, self.config.seed[0])

    def _count(self, begin: float) -> None:
        self.seconds["passes"] = self.seconds.get("passes", 0.0) + time.perf_counter() - begin

    def directions(self) -> dict[str, Directions]:
        """The principal directions of every layer's channels over the whole training split."""
        if self.streams:
            begin, moments = time.perf_counter(), {tap.layer: principal_components.Moments() for tap in self.layout.taps}
            reduce = {layer: layer_reducer({}, moment) for layer, moment in moments.items()}
            for _ in reduced_outputs(self.network, self.train, reduce, self.batching):
                pass
            self._count(begin)
        else:
            moments = self.collect(self.train, moments=True).moments
        return {
            layer: Directions(moment.mean, principal_components.basis(moment.covariance))
            for layer, moment in moments.items()
        }
