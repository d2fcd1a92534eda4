"""Files of kept features: an array per tap that appears whole under its name, the moments of a layer, the key of a folder.

Numbers are float16 (or bfloat16) times one power of two per tap, which no later batch can overflow.
"""

import hashlib
import itertools
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lib.core import checked_arrays, files, saved_state
from lib.core.errors import UserError
from lib.core.text import as_bytes
from lib.datasets.split import Split
from lib.datasets.storage.lazy_images import LazyImages
from lib.models.reducers import Projection, RandomProjection
from lib.representations.passes import Reduce
from lib.representations.principal_components import Moments

if TYPE_CHECKING:
    from lib.representations.features import Tap

LARGEST = 2.0**11  # to which the first batch is scaled: a factor of 32 below the largest float16
PIECE = 16  # rows that are scaled or read at a time: few enough to stay in the processor's cache
VERSION = 1  # of what the files hold
IMAGES = 4096  # that are hashed at a time
KEY_DIGITS, REDUCER_DIGITS = 32, 12  # of the SHA-256 of what features depend on, and of a fitted reducer


class _MemoryArray:
    """Numbers (n, d) in memory."""

    def __init__(self, n: int, dim: int, dtype: torch.dtype) -> None:
        self.stored = torch.empty(n, dim, dtype=dtype)

    def finish(self, scale: float) -> None:
        """Nothing is left to do."""

    def discard(self) -> None:
        """Nothing is left behind."""


class _FileArray:
    """Numbers (n, d) in a mapped file that has a temporary name until it is finished, such as one that was left before."""

    def __init__(self, path: Path, n: int, dim: int, dtype: torch.dtype, temporary: str = "") -> None:
        kind = np.int16 if dtype == torch.bfloat16 else torch.empty(0, dtype=dtype).numpy().dtype  # numpy has no bfloat16
        self.dtype, self.array = dtype, checked_arrays.NewArray(path, (n, dim), kind, temporary)
        stored = torch.from_numpy(self.array.numbers)
        self.stored = stored.view(torch.bfloat16) if dtype == torch.bfloat16 else stored

    def finish(self, scale: float) -> None:
        """The file appears whole under its name, unless the disk is full: then what is mapped stays, without a name."""
        try:
            self.array.finish(scale=scale, dtype=str(self.dtype))
        except UserError as error:
            warnings.warn(f"{error}; not kept", stacklevel=2)

    def discard(self) -> None:
        """Leaves nothing of an unfinished file."""
        self.array.discard()


class Writer:
    """Rows of one tap, into memory (where there is no path) or into a file that appears whole under its name.

    Where such a file cannot be written, a warning says so, and the rows stay in memory. `scales` are the factors of the rows
    from a position on: one that grows, grows for rows to come, and for those before at the end.
    """

    def __init__(self, path: Path | None, n: int, dtype: torch.dtype) -> None:
        self.path, self.n, self.dtype = path, n, dtype
        self.scales, self.written = [(0, 1.0)], 0
        self._array: _MemoryArray | _FileArray | None = None  # until the first rows say how wide it is

    def add(self, rows: Tensor) -> None:
        """Takes in the next rows (b, d)."""
        rows = rows.cpu()
        largest = max(map(abs, torch.stack(rows.aminmax()).tolist())) if rows.numel() else 0.0
        if not math.isfinite(largest):
            raise UserError("a feature is not a finite number; the network cannot be probed")
        if self._array is None:
            self._array = self._opened(rows.shape[1])
            if self.dtype == torch.float16 and largest > 0:
                self.scales = [(0, _scale(largest))]
        elif self.dtype == torch.float16 and largest / self.scales[-1][1] > torch.finfo(torch.float16).max:
            self.scales.append((self.written, _scale(largest)))
        scale, room = self.scales[-1][1], self._array.stored[self.written : self.written + len(rows)]
        for part, target in zip(rows.split(PIECE), room.split(PIECE), strict=True):
            target.copy_(part if scale == 1 else part * (1 / scale))  # exact: a power of two
        self.written += len(rows)

    def state(self) -> dict | None:
        """What another process needs to go on with the unfinished file; None of rows in memory."""
        if not isinstance(self._array, _FileArray):
            return None
        self._array.array.numbers.flush()
        name, dim = self._array.array.temporary.name, self._array.stored.shape[1]
        return {"temporary": name, "dim": dim, "scales": self.scales, "written": self.written}

    def go_on(self, state: dict) -> None:
        """Takes up the unfinished file. Raises `UserError` if it is not there as it was."""
        if self.path is None:
            raise UserError("what is kept in memory cannot be taken up")
        self._array = _FileArray(self.path, self.n, state["dim"], self.dtype, state["temporary"])
        self.scales, self.written = [tuple(one) for one in state["scales"]], state["written"]

    def finish(self) -> tuple[Tensor, float]:
        """The stored numbers (n, d), and what they are to be multiplied by."""
        if self._array is None:
            raise UserError("there are no images, so there are no features")
        last = self.scales[-1][1]
        for (begin, scale), (end, _) in itertools.pairwise(self.scales):
            self._array.stored[begin:end] *= scale / last
        self._array.finish(last)
        return self._array.stored, last

    def discard(self) -> None:
        """Leaves nothing of an unfinished file."""
        if self._array is not None:
            self._array.discard()

    def _opened(self, dim: int) -> _MemoryArray | _FileArray:
        if self.path is None:
            return _MemoryArray(self.n, dim, self.dtype)
        try:
            return _FileArray(self.path, self.n, dim, self.dtype)
        except UserError as error:
            warnings.warn(f"{error}; in memory for now", stacklevel=2)
            return _MemoryArray(self.n, dim, self.dtype)


@dataclass(frozen=True)
class FeatureFolder:
    """The files of the features of one network on one split; without a path there are none, and all stays in memory."""

    path: Path | None

    def read(self, name: str) -> tuple[Tensor, float] | None:
        """The stored numbers (n, d) in a file, memory-mapped, and their scale; None if it is not there or not whole."""
        if self.path is None:
            return None
        kept = checked_arrays.read(self.path / name)
        if kept is None:
            return None
        stored, about = torch.from_numpy(kept[0]), kept[1]
        return stored.view(torch.bfloat16) if about["dtype"] == str(torch.bfloat16) else stored, float(about["scale"])

    def writer(self, name: str, n: int, dtype: torch.dtype) -> Writer:
        """Of a file for n rows."""
        return Writer(None if self.path is None else self.path / name, n, dtype)

    def read_moments(self, layer: str) -> Moments | None:
        """The moments of a layer's channels; None if they are not there or not whole."""
        if self.path is None:
            return None
        kept = saved_state.read_arrays(self.path / _moments_name(layer))
        if kept is None:
            return None
        return Moments(int(kept["count"]), torch.from_numpy(kept["sum"]), torch.from_numpy(kept["products"]))

    def write_moments(self, layer: str, moments: Moments) -> None:
        """Keeps the moments of a layer's channels."""
        if self.path is not None:
            arrays = {"sum": moments.total.cpu().numpy(), "products": moments.products.cpu().numpy()}
            saved_state.write_arrays(self.path / _moments_name(layer), {"count": np.array(moments.count), **arrays})


def file_name(tap: "Tap", kind: str, reduce: Reduce) -> str:
    """The file of a tap; what a fitted or drawn reducer holds is part of the name."""
    extra = ""
    if isinstance(reduce, Projection):
        extra = "-" + hashlib.sha256(reduce.columns.numpy().tobytes()).hexdigest()[:REDUCER_DIGITS]
    elif isinstance(reduce, RandomProjection):
        extra = f"-s{reduce.seed}"
    return f"{tap.layer}-{tap.reduce.replace(':', '')}{extra}-{kind}.npy"


def key(network: nn.Module, split: Split, channels: int | None, size: int | None, *view: str | int) -> str:
    """Names what the features depend on: weights, the network's form, images, their size, and the view of them."""
    digest = hashlib.sha256(f"{VERSION} {channels} {size} {' '.join(map(str, view))}\n".encode())
    saved_state.add_content(digest, *saved_state.network_parts(network))
    digest.update(split.indices.cpu().numpy().tobytes())
    if isinstance(split.images, LazyImages):
        add_lazy(digest, split.images)
    else:
        digest.update(repr(tuple(split.images.shape)).encode())
        for images in split.images.split(IMAGES):
            digest.update(images.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:KEY_DIGITS]


def _scale(largest: float) -> float:
    """The power of two that brings the largest number below `LARGEST`, as a factor to be multiplied back."""
    return 2.0 ** math.ceil(math.log2(largest / LARGEST))


def _moments_name(layer: str) -> str:
    return f"{layer}-moments.npz"


def add_lazy(digest: "hashlib._Hash", images: LazyImages) -> None:
    """The files behind images that are decoded as needed, by path and time; of anything else every attribute."""
    digest.update(type(images).__name__.encode())
    for name, value in sorted(vars(images).items()):
        digest.update(name.encode())
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, LazyImages):
                add_lazy(digest, item)
            elif isinstance(item, Path):
                digest.update(as_bytes(f"{item} {files.identity(item.stat())}"))
            elif isinstance(item, np.ndarray):
                digest.update(np.ascontiguousarray(item).tobytes())
            else:
                digest.update(repr(item).encode())
