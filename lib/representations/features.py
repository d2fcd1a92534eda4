"""Features of many layers from one pass over a split, kept on disk for every later run.

A tap is a layer with a reducer. The pass reduces each output inside its hook and writes it
(`lib.representations.feature_files`). The files lie under `<cache>/features/<key>/`, where the key stands for the network's
weights, the images and how they are given to the network: another run of the same network on the same images reads what is
there and computes only the taps that are not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.core.errors import UserError
from lib.core.progress import image_bar
from lib.datasets import augment
from lib.datasets.split import Split
from lib.models import cutting
from lib.models.reducer_names import parse
from lib.models.reducers import Projection, reducer
from lib.representations import feature_cache, principal_components
from lib.representations.feature_files import Writer, file_name, key, read, read_moments, write_moments

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PCA_IMAGES = 2048
PCA_NUMBERS = 2**27  # flattened features that are held at once while fitting


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

    def rows(self, index: Tensor | slice | None = None) -> Tensor:
        """The features (b, d), or all of them, in float32."""
        part = self.stored if index is None else self.stored[index]
        return part.float() if self.scale == 1 else part.float().mul_(self.scale)


@dataclass(frozen=True)
class SideBySide:
    """The features of several taps as one vector per image, in order."""

    parts: tuple[Features, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def dim(self) -> int:
        return sum(part.dim for part in self.parts)

    def rows(self, index: Tensor | slice | None = None) -> Tensor:
        return torch.cat([part.rows(index) for part in self.parts], 1)


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
        views, places = index // len(self.parts[0]), index % len(self.parts[0])
        found = torch.empty(len(index), self.dim)
        for number in views.unique().tolist():
            found[views == number] = self.parts[number].rows(places[views == number])
        return found


@dataclass(frozen=True)
class Collected:
    """Features by tap, and the moments of channels over images and positions by layer, where they were asked for."""

    features: dict[Tap, Features]
    moments: dict[str, principal_components.Moments]
    images_seen: int  # 0 if everything was there


def taps(layers: list[str], reducers: tuple[str, ...]) -> list[Tap]:
    """Every layer with every reducer, layers first."""
    return [Tap(layer, name) for layer in layers for name in reducers]


@torch.no_grad()
def collect(
    network: nn.Module,
    split: Split,
    wanted: list[Tap],
    *,
    reducers: dict[Tap, Callable] | None = None,
    moments: bool = False,
    exact: tuple[Tap, ...] = (),
    cache_dir: str | Path | None = None,
    cache_gib: float = 2.0,
    dtype: str = "fp16",
    seed: int = 0,
    view: int | None = None,
    label: str = "",
    **options,
) -> Collected:
    """The features of a split at all taps, from one pass of the network in eval mode or from the cache.

    reducers   those that are fitted, by tap; all others follow from their names
    moments    also the moments of each layer's channels (`lib.representations.principal_components`)
    exact      taps that are kept in float32
    cache_dir  where the files go; None keeps everything in memory
    cache_gib  features that are larger together are memory-mapped
    view       the number of a view of the images, augmented as is customary for the data and drawn with `seed`
    options    those of `passing`

    Raises `UserError` for a layer that does not exist, does not run, or puts out no tensor.
    """
    cutting.check_names(network, [tap.layer for tap in wanted])
    made = {tap: (reducers or {}).get(tap) or reducer(tap.reduce, seed) for tap in wanted}
    kinds = {tap: "fp32" if tap in exact else dtype for tap in wanted}
    words = () if view is None else (split.augmentation, seed, view)
    folder = (
        None
        if cache_dir is None
        else feature_cache.folder(cache_dir) / key(network, split, options.get("channels"), options.get("size"), *words)
    )
    names = {tap: file_name(tap, kinds[tap], made[tap]) for tap in wanted}
    found = {tap: Features(*kept) for tap in wanted if folder and (kept := read(folder / names[tap])) is not None}
    layers = list(dict.fromkeys(tap.layer for tap in wanted))
    known = {layer: kept for layer in layers if moments and folder and (kept := read_moments(folder, layer)) is not None}
    absent = [tap for tap in wanted if tap not in found]
    unmeasured = [layer for layer in layers if moments and layer not in known]
    label = label or f"{split.name} {split.variant}".strip()
    if absent or unmeasured:
        writers = {tap: Writer(folder and folder / names[tap], len(split), TYPES[kinds[tap]]) for tap in absent}
        measured = {layer: principal_components.Moments() for layer in unmeasured}
        reduce = {
            layer: layer_reducer({tap: made[tap] for tap in absent if tap.layer == layer}, measured.get(layer))
            for layer in dict.fromkeys([tap.layer for tap in absent] + unmeasured)
        }
        try:
            for _, rows in passing(network, split, reduce, seed=seed, view=view, label=label, **options):
                for tap, writer in writers.items():
                    writer.add(rows[tap])
        except BaseException:
            for writer in writers.values():
                writer.discard()
            raise
        found |= {tap: Features(*writer.finish()) for tap, writer in writers.items()}
        known |= measured
        for layer, moment in measured.items():
            if folder:
                write_moments(folder, layer, moment)
    if folder:
        feature_cache.touch(folder, f"{type(getattr(network, 'body', network)).__name__} on {label}, {split.split}")
        if sum(kept.stored.numel() * kept.stored.element_size() for kept in found.values()) <= cache_gib * 2**30:
            found = {tap: Features(kept.stored.clone(), kept.scale) for tap, kept in found.items()}
    return Collected({tap: found[tap] for tap in wanted}, known, len(split) if absent or unmeasured else 0)


@torch.no_grad()
def passing(
    network: nn.Module,
    split: Split,
    reduce: dict[str, Callable[[Tensor], dict]],
    *,
    order: Tensor | None = None,
    view: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    channels: int | None = None,
    size: int | None = None,
    workers: int = 0,
    prefetch: int = 2,
    quiet: bool = False,
    label: str = "",
) -> Iterator[tuple[Tensor, dict]]:
    """One forward pass: (positions (b,), everything that `reduce` makes of the outputs of its layers) per batch.

    reduce    layer -> a function from its output (b, ...) to a dictionary of tensors
    order     the positions that are passed, in this order; by default all
    """
    device, count, change = next(network.parameters()).device, len(split) if order is None else len(order), None
    label = label or split.name
    if view is not None:
        split, change = augment.for_epoch(split, split.augmentation, seed, "view", view, device=device)
    network.eval()
    batches = split.batches(
        batch_size,
        device=device,
        channels=channels,
        size=size,
        workers=workers,
        prefetch=prefetch,
        order=order,
        augment=change,
    )

    def checked(layer):
        def reduced(output):
            if not isinstance(output, Tensor):
                raise UserError(f"layer {layer} puts out no single tensor, so it has no features")
            return reduce[layer](output)

        return reduced

    with cutting.record(network, list(reduce), reduce={layer: checked(layer) for layer in reduce}, stop=True) as outputs:
        for images, _, positions in image_bar(batches, count, batch_size, label=label, quiet=quiet):
            cutting.run(network, images)
            for layer in reduce:
                if layer not in outputs:
                    raise UserError(f"layer {layer} does not run in a forward pass, so it has no features")
            yield positions, {name: rows for layer in reduce for name, rows in outputs[layer].items()}


@torch.no_grad()
def dimensions(network: nn.Module, made: dict[Tap, Callable], split: Split, **options) -> dict[Tap, int]:
    """The number of features of each tap, by passing one image; options are those of `passing`."""
    layers = dict.fromkeys(tap.layer for tap in made)
    reduce = {layer: layer_reducer({tap: made[tap] for tap in made if tap.layer == layer}) for layer in layers}
    options = options | {"quiet": True, "order": torch.zeros(1, dtype=torch.int64), "workers": 0}
    return {tap: rows.shape[1] for _, found in passing(network, split, reduce, **options) for tap, rows in found.items()}


@torch.no_grad()
def fit_pca(network: nn.Module, split: Split, wanted: list[Tap], **options) -> dict[Tap, Projection]:
    """The reducers of all `pca:K` taps, fitted on at most 2,048 images that are evenly spread over the split.

    From the Gram matrix of the flattened features, since these mostly outnumber the images. A layer that has fewer than K
    features keeps them all, rotated; raises `UserError` if there are not images enough for the directions.
    """
    chosen = [tap for tap in wanted if parse(tap.reduce)[0] == "pca"]
    split, fitted = split.spread(PCA_IMAGES), {}
    flat = {tap: Tap(tap.layer, "flatten") for tap in chosen}
    sizes = dimensions(network, {tap: reducer("flatten") for tap in flat.values()}, split, **options) if chosen else {}
    while chosen:
        together = [chosen.pop(0)]  # a pass for as many as memory allows
        while chosen and len(split) * sum(sizes[flat[tap]] for tap in [*together, chosen[0]]) <= PCA_NUMBERS:
            together.append(chosen.pop(0))
        kept = collect(
            network, split, list(dict.fromkeys(flat[tap] for tap in together)), dtype="fp32", label="fitting pca", **options
        ).features
        fitted |= {tap: _principal(tap, kept[flat[tap]].stored) for tap in together}
    return fitted


def _principal(tap: Tap, rows: Tensor) -> Projection:
    """The first directions of rows (n, d), as many as the tap's name says."""
    n, d = rows.shape
    number = min(parse(tap.reduce)[1], d)
    if number > n - 1:
        raise UserError(
            f"--reduce {tap.reduce}: {n} images at layer {tap.layer}, which has {d} features, have at most "
            f"{n - 1} principal directions"
        )
    mean = rows.double().mean(0).float()
    blocks = [(rows[:, begin : begin + 4096] - mean[begin : begin + 4096]).double() for begin in range(0, d, 4096)]
    values, left = torch.linalg.eigh(sum(block @ block.T for block in blocks))
    left = left.flip(1)[:, :number] / values.flip(0)[:number].clamp_min(1e-24).sqrt()
    return Projection(mean, torch.cat([block.T @ left for block in blocks]).float())


def layer_reducer(
    made: dict[Tap, Callable], moments: principal_components.Moments | None = None
) -> Callable[[Tensor], dict[Tap, Tensor]]:
    """All reducers of one layer; its channels are also taken into `moments`."""

    def reduced(output):
        if moments is not None:
            moments.add(principal_components.channel_rows(output))
        return {tap: reduce(output).float().clone() for tap, reduce in made.items()}

    return reduced
