"""Files of kept features: an array per tap that appears whole under its name, the moments of a layer, the key of a folder.

Numbers are float16 (or bfloat16) times one power of two per tap, which no later batch can overflow.
"""

import hashlib
import json
import math
import os
import secrets
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.core import files
from lib.core.errors import UserError
from lib.datasets.split import Split
from lib.datasets.storage.lazy_images import LazyImages
from lib.models.reducers import Projection
from lib.representations import principal_components

LARGEST = 2.0**11  # to which the first batch is scaled: a factor of 32 below the largest float16
PIECE = 16  # rows that are scaled or read at a time: few enough to stay in the processor's cache
VERSION = 1  # of what the files hold


class Writer:
    """Rows of one tap, into memory or into a file that appears whole under its name."""

    def __init__(self, path: Path | None, n: int, dtype: torch.dtype) -> None:
        self.path, self.n, self.dtype = path, n, dtype
        self.stored, self.scale, self.begin, self.temporary = None, 1.0, 0, None

    def add(self, rows: Tensor) -> None:
        rows = rows.cpu()
        largest = max(map(abs, torch.stack(rows.aminmax()).tolist())) if rows.numel() else 0.0
        if not math.isfinite(largest):
            raise UserError("a feature is not a finite number; the network cannot be probed")
        if self.stored is None:
            self._open(rows.shape[1])
            if self.dtype == torch.float16 and largest > 0:
                self.scale = 2.0 ** math.ceil(math.log2(largest / LARGEST))
        elif self.dtype == torch.float16 and largest / self.scale > torch.finfo(torch.float16).max:
            larger = 2.0 ** math.ceil(math.log2(largest / LARGEST))
            self.stored[: self.begin] *= self.scale / larger
            self.scale = larger
        room = self.stored[self.begin : self.begin + len(rows)]
        for part, place in zip(rows.split(PIECE), room.split(PIECE), strict=True):
            place.copy_(part if self.scale == 1 else part * (1 / self.scale))  # exact: a power of two
        self.begin += len(rows)

    def finish(self) -> tuple[Tensor, float]:
        if self.path is not None:
            self.array.flush()
            files.write_json(self.path.with_suffix(".json"), {"scale": self.scale, "dtype": str(self.dtype)})
            os.replace(self.temporary, self.path)
        return self.stored, self.scale

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
            with open(self.temporary, "r+b") as file:  # a full disk is an error here, and would be a crash later
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise UserError(f"{self.path.parent}: cannot be written ({error}); choose another --cache-dir") from None
        self.stored = torch.from_numpy(self.array)
        if self.dtype == torch.bfloat16:
            self.stored = self.stored.view(torch.bfloat16)


def read(path: Path) -> tuple[Tensor, float] | None:
    """The stored numbers (n, d) in a file, memory-mapped, and their scale; None if it is not there or not whole."""
    try:
        described = json.loads(path.with_suffix(".json").read_text())
        stored = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        if described["dtype"] == str(torch.bfloat16):
            stored = stored.view(torch.bfloat16)
        return stored, float(described["scale"])
    except files.NO_ARRAYS:
        return None


def read_moments(folder: Path, layer: str) -> principal_components.Moments | None:
    try:
        with np.load(folder / f"{layer}-moments.npz") as kept:
            moments = principal_components.Moments()
            moments.count = int(kept["count"])
            moments._sum, moments._products = torch.from_numpy(kept["sum"]), torch.from_numpy(kept["products"])
            return moments
    except files.NO_ARRAYS:
        return None


def write_moments(folder: Path, layer: str, moments: principal_components.Moments) -> None:
    files.write_atomically(
        folder / f"{layer}-moments.npz",
        lambda file: np.savez(
            file, count=moments.count, sum=moments._sum.cpu().numpy(), products=moments._products.cpu().numpy()
        ),
    )


def file_name(tap, kind: str, reduce) -> str:
    """The file of a tap (`lib.representations.features.Tap`); what a fitted or drawn reducer holds is part of the name."""
    extra = ""
    if isinstance(reduce, Projection):
        extra = "-" + hashlib.sha256(reduce.columns.numpy().tobytes()).hexdigest()[:12]
    elif hasattr(reduce, "seed"):
        extra = f"-s{reduce.seed}"
    return f"{tap.layer}-{tap.reduce.replace(':', '')}{extra}-{kind}.npy"


def key(network: nn.Module, split: Split, channels: int | None, size: int | None, *view: str | int) -> str:
    """Names what the features depend on: weights, the network's form, images, their size, and the view of them."""
    digest = hashlib.sha256(f"{VERSION} {channels} {size} {' '.join(map(str, view))}\n{network}".encode())
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
