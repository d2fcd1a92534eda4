"""The searches behind `lib.nearest_category.neighbors`: the nearest of a block of training examples, exactly, in two ways.

Each has `nearest(queries (n, d), training (m, d), own)` -> squared distances (n,) and positions (n,) in the block, `far` and
-1 where there is none; `own` (n,) is each query's own position in the block, -1 outside it, or None.
"""

import functools
import math
import time

import numpy as np
import torch
from torch import Tensor


def searcher(training: Tensor, engine: str):
    """The way of an engine (auto, faiss, torch) for training examples (m, d): uint8, or floats."""
    possible = training.dtype == torch.uint8 and training.shape[1] <= _Integers.MOST_VALUES
    if engine == "auto":
        engine = "torch" if possible and integers_are_fast() else "faiss"
    return _Integers() if engine == "torch" and possible else _Candidates(training, engine)


def far(dtype: torch.dtype) -> float | int:
    """The squared distance of what does not exist."""
    return math.inf if dtype == torch.float64 else torch.iinfo(torch.int64).max


@functools.cache
def integers_are_fast(size: int = 512) -> bool:
    """Whether products of 8-bit matrices take no longer here than those of float32 ones: it depends on the processor."""
    left, right = torch.zeros(size, 1024, dtype=torch.int8), torch.zeros(size, 1024, dtype=torch.int8)
    seconds = []
    for product in (lambda: torch._int_mm(left, right.T), lambda: left.float() @ right.float().T):
        product()
        begin = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - begin)
    return seconds[0] <= seconds[1]


class _Integers:
    """8-bit images by products of int8 with sums in int32, which no image of so many values overflows."""

    dtype = torch.int64
    MOST_VALUES = 2**31 // (3 * 2**14)  # |t|^2 - 2 q t with |values| <= 128
    ROWS, COLUMNS = 512, 2048  # of a block: what is done with the products finds them in the cache

    def nearest(self, queries: Tensor, training: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        centred = _centred(training)
        norms = torch.cat([part.int().square().sum(1, dtype=torch.int32) for part in centred.split(self.COLUMNS)])
        least, positions = [], []
        products = torch.empty(self.ROWS * self.COLUMNS, dtype=torch.int32)
        for start in range(0, len(queries), self.ROWS):
            rows = _centred(queries[start : start + self.ROWS])
            best = torch.full((len(rows),), torch.iinfo(torch.int32).max, dtype=torch.int32)
            position = torch.full((len(rows),), -1)
            for first in range(0, len(centred), self.COLUMNS):
                part = centred[first : first + self.COLUMNS]
                block = products[: len(rows) * len(part)].view(len(rows), len(part))
                torch._int_mm(rows, part.T, out=block)
                torch.add(norms[first : first + len(part)], block, alpha=-2, out=block)
                if own is not None:
                    _mask_own(block, own[start : start + len(rows)], first, torch.iinfo(torch.int32).max)
                values, columns = block.min(1)
                better = values < best
                best = torch.where(better, values, best)
                position = torch.where(better, columns + first, position)
            norm = rows.int().square().sum(1, dtype=torch.int64)
            least.append(torch.where(position >= 0, best.long() + norm, far(self.dtype)))
            positions.append(position)
        return torch.cat(least), torch.cat(positions)


class _Candidates:
    """Points of any kind: `COUNT` candidates in float32, by torch or faiss, then their exact distances."""

    COUNT, ROWS, COLUMNS = 10, 1024, 8192

    def __init__(self, values: Tensor, engine: str) -> None:
        self.faiss, self.dtype = engine == "faiss", torch.int64 if values.dtype == torch.uint8 else torch.float64
        # distances do not change by a translation, and are computed more exactly near the origin
        self.centre = torch.stack([part.double().sum(0) for part in values.split(4096)]).sum(0) / max(len(values), 1)
        self.centre = self.centre.round() if values.dtype == torch.uint8 else self.centre

    def nearest(self, queries: Tensor, training: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        moved = (training.double() - self.centre).float()
        longest = moved.norm(dim=1).max()
        count = min(len(training), self.COUNT + (own is not None))
        index = _faiss_index(moved) if self.faiss else None
        least, positions = [], []
        for start in range(0, len(queries), self.ROWS):
            rows = queries[start : start + self.ROWS]
            near = (rows.double() - self.centre).float()
            approximate, candidates = _faiss_search(index, near, count) if self.faiss else self._search(near, moved, count)
            order = candidates.argsort(1)  # ties: the first is the smallest
            approximate, candidates = approximate.gather(1, order), candidates.gather(1, order)
            exact = self._exact(rows, training, candidates)
            mine = own[start : start + len(rows)] if own is not None else None
            if mine is not None:
                exact[candidates == mine[:, None]] = far(self.dtype)
            best, column = exact.min(1)
            position = candidates.gather(1, column[:, None]).squeeze(1)
            # float32 sums of d products, however they are ordered, are wrong by no more than this
            error = (rows.shape[1] + 10) * 2**-24 * 1.01 * (near.norm(dim=1) + longest).double() ** 2
            unproven = best.double() >= approximate.max(1).values.double() - error
            if count < len(training):
                for row in unproven.nonzero().squeeze(1).tolist():
                    best[row], position[row] = self._whole(rows[row], training, int(mine[row]) if mine is not None else -1)
            position[best == far(self.dtype)] = -1
            least.append(best)
            positions.append(position)
        return torch.cat(least), torch.cat(positions)

    def _search(self, near: Tensor, moved: Tensor, count: int) -> tuple[Tensor, Tensor]:
        values, positions = [], []
        for first in range(0, len(moved), self.COLUMNS):
            part = moved[first : first + self.COLUMNS]
            distances = torch.addmm(part.square().sum(1), near, part.T, alpha=-2) + near.square().sum(1, keepdim=True)
            nearest = distances.topk(min(count, len(part)), 1, largest=False)
            values.append(nearest.values)
            positions.append(nearest.indices + first)
        chosen = torch.cat(values, 1).topk(count, 1, largest=False)
        return chosen.values, torch.cat(positions, 1).gather(1, chosen.indices)

    def _exact(self, rows: Tensor, training: Tensor, candidates: Tensor) -> Tensor:
        step = max(1, 2**24 // (candidates.shape[1] * rows.shape[1]))
        return torch.cat(
            [
                _squared(part[:, None], training[positions], self.dtype)
                for part, positions in zip(rows.split(step), candidates.split(step), strict=True)
            ]
        )

    def _whole(self, row: Tensor, training: Tensor, own: int) -> tuple[Tensor, int]:
        exact = torch.cat([_squared(row, part, self.dtype) for part in training.split(self.COLUMNS)])
        if own >= 0:
            exact[own] = far(self.dtype)
        best, position = exact.min(0)
        return best, int(position)


def _squared(rows: Tensor, others: Tensor, dtype: torch.dtype) -> Tensor:
    """Exact squared distances along the last dimension."""
    if dtype == torch.int64:
        return (rows.int() - others.int()).square_().sum(-1, dtype=torch.int64)
    return (rows.double() - others.double()).square_().sum(-1)


def _centred(images: Tensor) -> Tensor:
    """uint8 less 128 as int8: in two's complement only the highest bit changes."""
    return images.bitwise_xor(128).view(torch.int8)


def _mask_own(block: Tensor, own: Tensor, first: int, value: int) -> None:
    columns = own - first
    rows = ((columns >= 0) & (columns < block.shape[1])).nonzero().squeeze(1)
    block[rows, columns[rows]] = value


def _faiss_index(moved: Tensor):
    import faiss

    index = faiss.IndexFlatL2(moved.shape[1])
    index.add(np.ascontiguousarray(moved.numpy()))
    return index


def _faiss_search(index, near: Tensor, count: int) -> tuple[Tensor, Tensor]:
    values, positions = index.search(np.ascontiguousarray(near.numpy()), count)
    return torch.from_numpy(values), torch.from_numpy(positions)
