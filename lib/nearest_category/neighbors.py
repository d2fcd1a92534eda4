"""Exact nearest neighbours, as a table: for every query the nearest training example of each class.

A masked minimum over the columns of one table gives the nearest neighbour in the whole training set, in the set without
any class, and among the other classes (Yang et al. 2023; the nearest-category paper, section 6.4). Distances are squared
Euclidean ones. Those of 8-bit images are integers and exact: 128 is subtracted and the products are summed in 32 bits.
Otherwise candidates are searched in float32 and their distances taken again in float64; where the candidates' own
distances do not prove that the nearest one is among them, all of the class is taken again. Of equal distances the
smallest position in the training set wins.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lib.core import cache_folders, saved_state
from lib.core.distributed import ALONE, Processes
from lib.core.errors import UserError
from lib.core.progress import bar
from lib.nearest_category.search import far, searcher

ENGINES = {"auto": "the fastest here", "faiss": "candidates by faiss", "torch": "torch, in integers where it can"}
PIXELS = "pixel levels, 0 to 255"


@dataclass(frozen=True)
class Points:
    """Values (n, ...) in some units: uint8 for images, floats for features, of which `units` names network and layer."""

    name: str
    values: Tensor
    units: str = PIXELS


@dataclass(frozen=True)
class Nearest:
    """The nearest training example of each query: squared distance, position in the training set and label, each (n,)."""

    squared: Tensor
    indices: Tensor
    labels: Tensor


@dataclass(frozen=True)
class NeighborTable:
    """squared (n, k): distance to the nearest example of each of k classes; indices (n, k): its position.

    int64 for images and float64 otherwise; `far` and -1 where a class has no example (but the query itself).
    """

    squared: Tensor
    indices: Tensor

    def nearest(self, without: int | None = None) -> Nearest:
        """The nearest neighbours in the training set, or in the set without one class, whose labels stay as they are."""
        squared, indices = self.squared, self.indices
        if without is not None:
            squared = squared.clone()
            squared[:, without] = far(squared.dtype)
        return _best(squared, indices)

    def other(self, labels: Tensor) -> Nearest:
        """The nearest neighbours of another class than each query's own, labels (n,)."""
        squared = self.squared.clone()
        squared[torch.arange(len(squared)), labels] = far(squared.dtype)
        return _best(squared, self.indices)

    def margin(self) -> Tensor:
        """(n,): how much further the second nearest class is than the nearest, relative to its own distance; 0 is a tie."""
        two = self.squared.double().sqrt().topk(2, 1, largest=False).values
        return (two[:, 1] - two[:, 0]) / two[:, 1].clamp_min(torch.finfo(torch.float64).tiny)


def table(
    queries: Points,
    training: Points,
    labels: Tensor,
    classes: int,
    *,
    same: bool = False,
    engine: str = "auto",
    quiet: bool = True,
    processes: Processes = ALONE,
) -> NeighborTable:
    """The table of queries (n, ...) against training examples (m, ...) with labels (m,) in 0, ..., classes - 1.

    `same`: the queries are the training examples, and none is its own neighbour. O(n m d), of several processes each for
    its part of the queries. Raises `UserError` for points of different shapes or units.
    """
    _check(queries, training)
    values, others = queries.values.tensor_split(processes.world)[processes.rank].flatten(1), training.values.flatten(1)
    search = searcher(others, engine)
    squared = torch.full((len(values), classes), far(search.dtype), dtype=search.dtype)
    indices = torch.full((len(values), classes), -1)
    for label in bar(range(classes), total=classes, label=f"neighbours of {queries.name}", unit="class", quiet=quiet):
        members = (labels == label).nonzero().squeeze(1)
        own = None
        if same:
            own = torch.full((len(others),), -1)
            own[members] = torch.arange(len(members))
            own = own.tensor_split(processes.world)[processes.rank]
        if not len(members) or not len(values):
            continue
        squared[:, label], positions = search.nearest(values, others[members], own)
        indices[:, label] = torch.where(positions >= 0, members[positions.clamp_min(0)], -1)
    parts = processes.exchange((squared, indices))
    return NeighborTable(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))


def cached_table(
    cache_dir: str | Path,
    queries: Points,
    training: Points,
    labels: Tensor,
    classes: int,
    *,
    processes: Processes = ALONE,
    **options,
) -> NeighborTable:
    """`table`, kept under `cache_dir` by the content of both sets, whatever engine made it.

    Of several processes the first one reads and writes what is kept.
    """
    _check(queries, training)
    about = [(points.units, str(points.values.dtype), tuple(points.values.shape)) for points in (queries, training)]
    key = saved_state.content_key(
        repr((1, about, classes, options.get("same", False))), queries.values, training.values, labels
    )
    path = cache_folders.folder(cache_dir, "neighbors") / f"{key}.npz"
    kept = processes.read_once(lambda: saved_state.read_arrays(path))
    if kept is not None and kept.keys() == {"squared", "indices"}:
        return NeighborTable(torch.from_numpy(kept["squared"]), torch.from_numpy(kept["indices"]))
    made = table(queries, training, labels, classes, processes=processes, **options)
    if processes.rank == 0:
        saved_state.write_arrays(path, {"squared": made.squared.numpy(), "indices": made.indices.numpy()})
    return made


def _best(squared: Tensor, indices: Tensor) -> Nearest:
    least = squared.min(1, keepdim=True).values
    # of several classes at the same distance the one whose example comes first in the training set
    nearest = torch.where(squared == least, indices, torch.iinfo(torch.int64).max)
    labels = nearest.argmin(1)
    chosen = indices.gather(1, labels[:, None]).squeeze(1)
    if bool((chosen < 0).any()):
        raise UserError("a query has no neighbour: no other training example is left")
    return Nearest(least.squeeze(1), chosen, labels)


def _check(queries: Points, training: Points) -> None:
    ours, theirs = tuple(queries.values.shape[1:]), tuple(training.values.shape[1:])
    if ours != theirs:
        raise UserError(
            f"{queries.name} has shape {_shape(ours)} and {training.name} {_shape(theirs)}: there is no distance between "
            "them, but between what a layer makes of them: --space feature"
        )
    if queries.units != training.units or queries.values.dtype != training.values.dtype:
        raise UserError(
            f"{queries.name} is in {queries.units} ({queries.values.dtype}) and {training.name} in "
            f"{training.units} ({training.values.dtype}): there is no distance between them"
        )
    if not len(queries.values) or not len(training.values):
        empty = queries if not len(queries.values) else training
        raise UserError(f"{empty.name} is empty: it has no neighbours")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
