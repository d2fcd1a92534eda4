"""Features of many layers from one pass over a split, kept on disk for every later run.

A tap is a layer with a reducer. The pass reduces each output inside its hook and writes it
(`lib.representations.feature_files`). The files lie under `<cache>/features/<key>/`, where the key stands for the network's
weights, the images and how they are given to the network: another run of the same network on the same images reads what is
there and computes only the taps that are not.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.models.reducers import reducer
from lib.representations import feature_cache
from lib.representations.feature_files import FeatureFolder, file_name, key
from lib.representations.feature_pass import writing
from lib.representations.passes import Name, Reduce, View, reduced_outputs
from lib.representations.principal_components import Moments, channel_rows

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Tap(NamedTuple):
    """A layer, and the reducer of its output by name."""

    layer: str
    reduce: str


@dataclass(frozen=True)
class Features:
    """n vectors of d features: stored numbers (n, d), in memory or memory-mapped, times `scale`."""

    stored: Tensor
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def dim(self) -> int:
        return self.stored.shape[1]

    @property
    def bytes(self) -> int:
        return self.stored.numel() * self.stored.element_size()

    def rows(self, index: Tensor | slice | None = None) -> Tensor:
        """The features (b, d), or all of them, in float32."""
        part = self.stored if index is None else self.stored[index]
        return part.float() if self.scale == 1 else part.float().mul_(self.scale)

    def in_memory(self) -> "Features":
        """The same numbers, no longer those of a mapped file."""
        return Features(self.stored.clone(), self.scale)


@dataclass(frozen=True)
class Views:
    """The features of several views of the same n images: row v n + i is image i in view v."""

    parts: tuple[Features, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def dim(self) -> int:
        return self.parts[0].dim

    def rows(self, index: Tensor | slice | None = None) -> Tensor:
        index = torch.arange(len(self))[slice(None) if index is None else index]
        views, positions = index // len(self.parts[0]), index % len(self.parts[0])
        rows = torch.empty(len(index), self.dim)
        for number in views.unique().tolist():
            rows[views == number] = self.parts[number].rows(positions[views == number])
        return rows


@dataclass(frozen=True)
class SideBySide:
    """The features of several taps as one vector per image, in order."""

    parts: tuple[Features | Views, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def dim(self) -> int:
        return sum(part.dim for part in self.parts)

    def rows(self, index: Tensor | slice | None = None) -> Tensor:
        return torch.cat([part.rows(index) for part in self.parts], 1)


AnyFeatures = Features | SideBySide | Views


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How features are kept.

    cache_dir  where the files go; None keeps everything in memory
    dtype      a name in `TYPES`; those of half precision have a scale per tap
    exact      taps that are kept in float32
    gib        features of one split that are larger together are memory-mapped
    """

    cache_dir: str | Path | None = None
    dtype: str = "fp16"
    exact: tuple[Tap, ...] = ()
    gib: float = 2.0

    def kind(self, tap: Tap) -> str:
        """The type in which the features of a tap are kept."""
        return "fp32" if tap in self.exact else self.dtype

    def folder(self, network: nn.Module, split: Split, batching: Batching, view: View | None = None) -> FeatureFolder:
        """Where the features of a network on a split, or on a view of it, are kept."""
        if self.cache_dir is None:
            return FeatureFolder(None)
        words = () if view is None else (split.augmentation, view.seed, view.number)
        name = key(network, split, batching.channels, batching.size, *words)
        return FeatureFolder(feature_cache.folder(self.cache_dir) / name)


@dataclass(frozen=True)
class Collected:
    """Features by tap, and the moments of channels over images and positions by layer, where they were asked for."""

    features: dict[Tap, Features]
    moments: dict[str, Moments]
    images_seen: int  # 0 if everything was there


def reducers_of(wanted: Iterable[Tap], seed: int = 0) -> dict[Tap, Reduce]:
    """The reducers of taps by their names; `pca:K` has to be fitted (`lib.representations.pca_reducers`)."""
    return {tap: reducer(tap.reduce, seed) for tap in wanted}


def collect(
    network: nn.Module,
    split: Split,
    reducers: Mapping[Tap, Reduce],
    batching: Batching,
    storage: Storage | None = None,
    *,
    moments: bool = False,
    view: View | None = None,
    label: str = "",
) -> Collected:
    """The features of a split at all taps, from one pass of the network in eval mode or from the cache.

    reducers   of every tap (`reducers_of`)
    storage    by default in memory, in half precision
    moments    also the moments of each layer's channels (`lib.representations.principal_components`)

    Raises `UserError` for a layer that does not exist, does not run, or puts out no tensor or NaN or infinite numbers.
    """
    storage = storage or Storage()
    cutting.check_names(network, [tap.layer for tap in reducers])
    folder = storage.folder(network, split, batching, view)
    files = {tap: file_name(tap, storage.kind(tap), reduce) for tap, reduce in reducers.items()}
    layers = dict.fromkeys(tap.layer for tap in reducers) if moments else {}
    found, known = _kept(folder, files, layers)
    absent = batching.processes.agree([tap for tap in reducers if tap not in found])
    unmeasured = batching.processes.agree([layer for layer in layers if layer not in known])
    label = label or f"{split.name} {split.variant}".strip()
    if absent or unmeasured:
        types = {files[tap]: TYPES[storage.kind(tap)] for tap in absent}
        reads = batching.processes.rank > 0 and folder.path is not None  # what process 0 writes, when it is there
        own = FeatureFolder(None) if reads else folder
        with writing(own, {} if reads else types, unmeasured, len(split), batching.batch_size, batching.device) as under_way:
            reduce = {
                layer: layer_reducer(
                    {tap: reducers[tap] for tap in absent if tap.layer == layer}, layer if layer in unmeasured else None
                )
                for layer in dict.fromkeys([*(tap.layer for tap in absent), *unmeasured])
            }
            begun = batching.processes.agree(under_way.images)
            left = reduced_outputs(network, split, reduce, batching, view=view, label=label, finite=1, first=begun)
            for positions, rows in left:
                under_way.add({files[tap]: rows[tap] for tap in absent}, len(positions), rows)
            for layer, moment in under_way.moments.items():
                own.write_moments(layer, moment)
            stored, measured = under_way.finish(), under_way.moments
        if batching.processes.world > 1:
            batching.processes.exchange(None)  # process 0 has written
        if reads:
            found, known = _kept(folder, files, layers)
            if len(found) + len(known) < len(reducers) + len(layers):
                raise UserError(
                    f"{folder.path}: process 0 wrote there what this one does not find; all have to see --cache-dir"
                )
        else:
            found |= {tap: Features(*stored[files[tap]]) for tap in absent}
            known |= measured
    features = {tap: found[tap] for tap in reducers}
    if folder.path is not None:
        feature_cache.touch(folder.path, f"{type(getattr(network, 'body', network)).__name__} on {label}, {split.split}")
        if sum(stored.bytes for stored in features.values()) <= storage.gib * feature_cache.GIB:
            features = {tap: stored.in_memory() for tap, stored in features.items()}
    return Collected(features, known, len(split) if absent or unmeasured else 0)


def _kept(
    folder: FeatureFolder, files: Mapping[Tap, str], layers: Iterable[str]
) -> tuple[dict[Tap, Features], dict[str, Moments]]:
    """The features and moments that a folder has of these files and layers."""
    found = {tap: Features(*stored) for tap, name in files.items() if (stored := folder.read(name)) is not None}
    return found, {layer: stored for layer in layers if (stored := folder.read_moments(layer)) is not None}


def dimensions(network: nn.Module, reducers: Mapping[Tap, Reduce], split: Split, batching: Batching) -> dict[Tap, int]:
    """The number of features of each tap, by passing one image."""
    layers = dict.fromkeys(tap.layer for tap in reducers)
    reduce = {layer: layer_reducer({tap: reducers[tap] for tap in reducers if tap.layer == layer}) for layer in layers}
    alone = replace(batching, workers=0, quiet=True)
    ((_, rows),) = reduced_outputs(network, split, reduce, alone, order=torch.zeros(1, dtype=torch.int64), finite=1)
    return {tap: row.shape[1] for tap, row in rows.items()}


def layer_reducer(reducers: Mapping[Name, Reduce], moments: str | None = None) -> Callable[[Tensor], dict[Any, Any]]:
    """All reducers of one layer, by name; with `moments`, under that name also the `Moments` of its channels."""

    def reduced(output: Tensor) -> dict[Any, Any]:
        made: dict[Any, Any] = {name: reduce(output).float().clone() for name, reduce in reducers.items()}
        return made if moments is None else {**made, moments: Moments.of(channel_rows(output))}

    return reduced
