"""Features of many layers from one pass over a split, kept on disk for every later run.

A tap is a layer with a reducer. The pass reduces each output inside its hook and writes it as float16 (or bfloat16)
numbers times one power of two per tap, which no later batch can overflow. The files lie under
`<cache>/features/<key>/`, where the key stands for the network's weights, the images and how they are given to the network:
another run of the same network on the same images reads what is there and computes only the taps that are not.
"""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lib import files, graph, low_rank
from lib.datasets.lazy import LazyImages
from lib.datasets.split import Split
from lib.errors import UserError
from lib.progress import image_bar
from lib.reducers import Projection, parse, reducer

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
LARGEST = 2.0 ** 11  # to which the first batch is scaled: a factor of 32 below the largest float16
PCA_IMAGES = 2048
VERSION = 1  # of what the files hold


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
class Collected:
    """Features by tap, and the moments of channels over images and positions by layer, where they were asked for."""

    features: dict[Tap, Features]
    moments: dict[str, low_rank.Moments]
    images_seen: int  # 0 if everything was there


def taps(layers: list[str], reducers: tuple[str, ...]) -> list[Tap]:
    """Every layer with every reducer, layers first."""
    return [Tap(layer, name) for layer in layers for name in reducers]


@torch.no_grad()
def collect(network: nn.Module, split: Split, wanted: list[Tap], *, reducers: dict[Tap, Callable] | None = None,
            moments: bool = False, exact: tuple[Tap, ...] = (), cache_dir: str | Path | None = None, cache_gib: float = 2.0,
            dtype: str = "fp16", batch_size: int = 256, channels: int | None = None, size: int | None = None, seed: int = 0,
            workers: int = 0, prefetch: int = 2, quiet: bool = False, label: str = "") -> Collected:
    """The features of a split at all taps, from one pass of the network in eval mode or from the cache.

    reducers   those that are fitted, by tap; all others follow from their names
    moments    also the moments of each layer's channels (`lib.low_rank`)
    exact      taps that are kept in float32
    cache_dir  where the files go; None keeps everything in memory
    cache_gib  features that are larger together are memory-mapped

    Raises `UserError` for a layer that does not exist, does not run, or puts out no tensor.
    """
    graph.check_names(network, [tap.layer for tap in wanted])
    made = {tap: (reducers or {}).get(tap) or reducer(tap.reduce, seed) for tap in wanted}
    kinds = {tap: "fp32" if tap in exact else dtype for tap in wanted}
    folder = None if cache_dir is None else Path(cache_dir) / "features" / _key(network, split, channels, size)
    names = {tap: _file_name(tap, kinds[tap], made[tap]) for tap in wanted}
    found = {tap: read for tap in wanted if folder and (read := _read(folder / names[tap])) is not None}
    layers = list(dict.fromkeys(tap.layer for tap in wanted))
    known = {layer: read for layer in layers if moments and folder and (read := _read_moments(folder, layer)) is not None}
    absent = [tap for tap in wanted if tap not in found]
    unmeasured = [layer for layer in layers if moments and layer not in known]
    if absent or unmeasured:
        writers = {tap: _Writer(folder and folder / names[tap], len(split), TYPES[kinds[tap]]) for tap in absent}
        measured = {layer: low_rank.Moments() for layer in unmeasured}
        try:
            _pass(network, split, {tap: made[tap] for tap in absent}, writers, measured, batch_size=batch_size,
                  channels=channels, size=size, workers=workers, prefetch=prefetch, quiet=quiet, label=label)
        except BaseException:
            for writer in writers.values():
                writer.discard()
            raise
        found |= {tap: writer.finish() for tap, writer in writers.items()}
        known |= measured
        for layer, moment in measured.items():
            if folder:
                _write_moments(folder, layer, moment)
    total = sum(found[tap].stored.numel() * found[tap].stored.element_size() for tap in wanted)
    if folder and total <= cache_gib * 2 ** 30:
        found = {tap: Features(kept.stored.clone(), kept.scale) for tap, kept in found.items()}
    return Collected({tap: found[tap] for tap in wanted}, known, len(split) if absent or unmeasured else 0)


@torch.no_grad()
def fit_pca(network: nn.Module, split: Split, wanted: list[Tap], **options) -> dict[Tap, Projection]:
    """The reducers of all `pca:K` taps, fitted on at most 2,048 images that are evenly spread over the split.

    From the Gram matrix of the flattened features, since these outnumber the images. Raises `UserError` if K directions
    do not exist.
    """
    chosen = [tap for tap in wanted if parse(tap.reduce)[0] == "pca"]
    if not chosen:
        return {}
    split = split.spread(PCA_IMAGES)
    flat = list(dict.fromkeys(Tap(tap.layer, "flatten") for tap in chosen))
    kept = collect(network, split, flat, dtype="fp32", label="fitting pca", **options).features
    fitted = {}
    for tap in chosen:
        rows, number = kept[Tap(tap.layer, "flatten")].rows().double(), parse(tap.reduce)[1]
        most = min(rows.shape[1], len(rows) - 1)
        if number > most:
            raise UserError(f"--reduce {tap.reduce}: {len(rows)} images at layer {tap.layer}, which has {rows.shape[1]} "
                            f"features, have at most {most} principal directions")
        mean = rows.mean(0)
        left, lengths, _ = torch.linalg.svd((rows - mean) @ (rows - mean).T)
        columns = (rows - mean).T @ left[:, :number] / lengths[:number].sqrt().clamp_min(1e-12)
        fitted[tap] = Projection(mean.float(), columns.float())
    return fitted


def _pass(network, split, made: dict[Tap, Callable], writers: dict, measured: dict, *, batch_size, channels, size, workers,
          prefetch, quiet, label) -> None:
    """One forward pass that fills the writers and moments."""
    def reduce_all(layer):
        mine = {tap: reduce for tap, reduce in made.items() if tap.layer == layer}

        def reduced(output):
            if not isinstance(output, Tensor):
                raise UserError(f"layer {layer} puts out no single tensor, so it has no features")
            if layer in measured:
                measured[layer].add(low_rank.channel_rows(output))
            return {tap: reduce(output).float().clone() for tap, reduce in mine.items()}
        return reduced

    layers = list(dict.fromkeys([tap.layer for tap in made] + list(measured)))
    device = next(network.parameters()).device
    network.eval()
    batches = split.batches(batch_size, device=device, channels=channels, size=size, workers=workers, prefetch=prefetch)
    with graph.record(network, layers, reduce={layer: reduce_all(layer) for layer in layers}, stop=True) as outputs:
        for images, _, _ in image_bar(batches, len(split), batch_size, label=label or split.name, quiet=quiet):
            graph.run(network, images)
            for layer in layers:
                if layer not in outputs:
                    raise UserError(f"layer {layer} does not run in a forward pass, so it has no features")
                for tap, rows in outputs[layer].items():
                    writers[tap].add(rows)


class _Writer:
    """Rows of one tap, into memory or into a file that appears whole under its name."""

    def __init__(self, path: Path | None, n: int, dtype: torch.dtype) -> None:
        self.path, self.n, self.dtype = path, n, dtype
        self.stored, self.scale, self.begin, self.temporary = None, 1.0, 0, None

    def add(self, rows: Tensor) -> None:
        rows = rows.cpu()
        largest = float(rows.abs().max()) if rows.numel() else 0.0
        if not math.isfinite(largest):
            raise UserError("a feature is not a finite number; the network cannot be probed")
        if self.stored is None:
            self._open(rows.shape[1])
            if self.dtype == torch.float16 and largest > 0:
                self.scale = 2.0 ** math.ceil(math.log2(largest / LARGEST))
        elif self.dtype == torch.float16 and largest / self.scale > torch.finfo(torch.float16).max:
            larger = 2.0 ** math.ceil(math.log2(largest / LARGEST))
            self.stored[:self.begin] *= self.scale / larger
            self.scale = larger
        self.stored[self.begin:self.begin + len(rows)] = (rows / self.scale).to(self.dtype)
        self.begin += len(rows)

    def finish(self) -> Features:
        if self.path is not None:
            self.array.flush()
            files.write_json(self.path.with_suffix(".json"), {"scale": self.scale, "dtype": str(self.dtype)})
            os.replace(self.temporary, self.path)
        return Features(self.stored, self.scale)

    def discard(self) -> None:
        """Leaves nothing of an unfinished file."""
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)

    def _open(self, dim: int) -> None:
        if self.path is None:
            self.stored = torch.empty(self.n, dim, dtype=self.dtype)
            return
        self.temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kind = np.int16 if self.dtype == torch.bfloat16 else torch.empty(0, dtype=self.dtype).numpy().dtype
            self.array = np.lib.format.open_memmap(self.temporary, mode="w+", dtype=kind, shape=(self.n, dim))
        except OSError as error:
            raise UserError(f"{self.path.parent}: cannot be written ({error}); choose another --cache-dir") from None
        self.stored = torch.from_numpy(self.array)
        if self.dtype == torch.bfloat16:
            self.stored = self.stored.view(torch.bfloat16)


def _read(path: Path) -> Features | None:
    """The features in a file, memory-mapped; None if it is not there or not whole."""
    try:
        described = json.loads(path.with_suffix(".json").read_text())
        stored = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        if described["dtype"] == str(torch.bfloat16):
            stored = stored.view(torch.bfloat16)
        return Features(stored, float(described["scale"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _read_moments(folder: Path, layer: str) -> low_rank.Moments | None:
    try:
        with np.load(folder / f"{layer}-moments.npz") as kept:
            moments = low_rank.Moments()
            moments.count = int(kept["count"])
            moments._sum, moments._products = torch.from_numpy(kept["sum"]), torch.from_numpy(kept["products"])
            return moments
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _write_moments(folder: Path, layer: str, moments: low_rank.Moments) -> None:
    files.write_atomically(folder / f"{layer}-moments.npz", lambda file: np.savez(
        file, count=moments.count, sum=moments._sum.cpu().numpy(), products=moments._products.cpu().numpy()))


def _file_name(tap: Tap, kind: str, reduce) -> str:
    """The file of a tap; what a fitted or drawn reducer holds is part of the name."""
    extra = ""
    if isinstance(reduce, Projection):
        extra = "-" + hashlib.sha256(reduce.columns.numpy().tobytes()).hexdigest()[:12]
    elif hasattr(reduce, "seed"):
        extra = f"-s{reduce.seed}"
    return f"{tap.layer}-{tap.reduce.replace(':', '')}{extra}-{kind}.npy"


def _key(network: nn.Module, split: Split, channels: int | None, size: int | None) -> str:
    """Names what the features depend on: weights, the network's form, images, and the size they are given in."""
    digest = hashlib.sha256(f"{VERSION} {channels} {size}\n{network}".encode())
    for name, value in [*network.state_dict().items(), *network.named_buffers()]:
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    digest.update(split.indices.cpu().numpy().tobytes())
    if split.lazy:
        _add_lazy(digest, split.images)
    else:
        digest.update(repr(tuple(split.images.shape)).encode())
        for images in split.images.split(4096):
            digest.update(images.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _add_lazy(digest, images: LazyImages) -> None:
    """The files behind images that are decoded as needed, by path, size and time; of anything else every attribute."""
    digest.update(type(images).__name__.encode())
    for name, value in sorted(vars(images).items()):
        digest.update(name.encode())
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, LazyImages):
                _add_lazy(digest, item)
            elif isinstance(item, Path):
                status = item.stat()
                digest.update(f"{item} {status.st_size} {status.st_mtime_ns}".encode())
            elif isinstance(item, np.ndarray):
                digest.update(np.ascontiguousarray(item).tobytes())
            else:
                digest.update(repr(item).encode())
