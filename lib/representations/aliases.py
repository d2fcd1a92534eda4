"""Layers that are one representation: whose outputs, as they are compared, are the same for every image.

A module that ends in another puts out what that one does (`layer3` and `layer3.2`); so do dropout in eval mode and, behind
an average over positions, pooling and flattening. Such layers are one candidate, not several: counted twice they favour
themselves in every choice, and their difference is noise.
"""

import contextlib
from collections.abc import Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from lib.core.distributed import ALONE
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.representations.passes import Reduce, represent

SAME = 1e-6  # of the largest number: kernels of other devices may differ in the last bit
FIRST = 32  # images that tell almost all layers apart

Name = TypeVar("Name", bound=Hashable)


class Partition(Generic[Name]):
    """Names in groups of those whose vectors have been the same for all images so far."""

    def __init__(self, names: Iterable[Name]) -> None:
        self.groups: list[list[Name]] = [list(dict.fromkeys(names))]

    @property
    def undecided(self) -> list[Name]:
        """The names that still are the same as another, whose further images have to be looked at."""
        return [name for group in self.groups if len(group) > 1 for name in group]

    def add(self, rows: Mapping[Name, Tensor], precision: float = 0.0) -> None:
        """Divides the groups by further images (b, ...); `rows` has at least the undecided names.

        precision   the relative error of a single number, where they are kept in fewer bits
        """
        self.groups = [part for group in self.groups for part in _divided(group, rows, precision)]


def _divided(group: list[Name], rows: Mapping[Name, Tensor], precision: float) -> list[list[Name]]:
    if len(group) == 1:
        return [group]
    parts: list[list[Name]] = []
    heads = {name: _head(rows[name]) for name in group}
    for name in group:
        for part in parts:
            if _may_be_same(heads[part[0]], heads[name], precision) and same(rows[part[0]], rows[name], precision):
                part.append(name)
                break
        else:
            parts.append([name])
    return parts


def _head(values: Tensor) -> tuple[float, float]:
    """The first number and the largest."""
    if not values.numel():
        return 0.0, 0.0
    return values[(0,) * values.ndim].item(), torch.stack(values.aminmax()).abs().max().item()


def _may_be_same(one: tuple[float, float], other: tuple[float, float], precision: float) -> bool:
    """Whether the first numbers leave it open that all are the same: of many layers most pairs are told apart at once."""
    allowed = precision * abs(other[0]) + SAME * max(one[1], other[1])
    return abs(one[0] - other[0]) <= 1.01 * allowed


def same(one: Tensor, other: Tensor, precision: float = 0.0) -> bool:
    """Whether two representations (n, ...) differ nowhere by more than `SAME` of the largest number of both."""
    if one.shape != other.shape:
        return False
    if one.numel() == 0 or torch.equal(one, other):
        return True
    largest = torch.stack([*one.aminmax(), *other.aminmax()]).abs().max().item()
    parts = zip(one.split(FIRST), other.split(FIRST), strict=True)  # few at a time take little memory, and mostly tell
    return all(torch.allclose(mine, theirs, rtol=precision, atol=SAME * largest) for mine, theirs in parts)


@dataclass(frozen=True)
class Distinct(Generic[Name]):
    """What of a list is left when every representation is kept once.

    kept      those that are kept, in their order
    aliases   by each of them the layers that put out the same and are left out or stand beside it
    counted   how many different ones the kept ones are: fewer where copies were named one by one
    """

    kept: list[Name]
    aliases: dict[Name, tuple[str, ...]]
    counted: int

    def words(self, name: Name) -> str | None:
        """The aliases as a row states them; None without any."""
        return " ".join(self.aliases.get(name, ())) or None


def settle(partition: Partition[Name], order: Sequence[Name], layer_of, named: Sequence[str] = ()) -> Distinct[Name]:
    """One of each group: the outermost module of the earliest layer that puts it out, beside what was named one by one.

    order      all names, in execution order
    layer_of   the layer of a name
    named      layers that the user named one by one, not by a glob or group: they stay
    """
    place = {name: number for number, name in enumerate(order)}
    stay: set[Name] = set()
    aliases: dict[Name, tuple[str, ...]] = {}
    for group in partition.groups:
        group = sorted(group, key=place.__getitem__)
        first = layer_of(group[0])
        around = [name for name in group if first == layer_of(name) or first.startswith(layer_of(name) + ".")]
        chosen = [name for name in group if layer_of(name) in named] or [min(around, key=lambda name: len(layer_of(name)))]
        stay.update(chosen)
        for name in chosen:
            aliases[name] = tuple(dict.fromkeys(layer_of(other) for other in group if layer_of(other) != layer_of(name)))
    return Distinct([name for name in order if name in stay], aliases, len(partition.groups))


def distinct(
    network: nn.Module, split: Split, layers: Sequence[str], batching: Batching, reduce: Reduce, named: Sequence[str] = ()
) -> Distinct[str]:
    """The layers, given in execution order, without those that put out what another one does for every image of the split.

    A few images tell almost all apart, and a module that hands on the very tensor of one inside it is the same by that. Only
    others that are alike for the few images are passed over the whole split.
    """
    partition: Partition[str] = Partition(layers)
    tensors: dict[str, tuple[int, ...]] = {}
    label = "telling layers apart"
    if partition.undecided:
        with handed_on(network, layers) as tensors:
            few = replace(batching, processes=ALONE)  # every process sees for itself who hands on what
            for rows in represent(network, split.spread(FIRST), list(layers), few, reduce, label):
                partition.add(rows)
    several = [group for group in partition.groups if len(group) > 1]  # of a single layer nothing was passed
    doubtful = [group for group in several if len({tensors[name] for name in group}) > 1]
    if wanted := [name for group in doubtful for name in group]:
        decided = [group for group in partition.groups if group not in doubtful]
        partition.groups = doubtful
        for rows in represent(network, split, wanted, batching, reduce, label):
            partition.add(rows)
            if not partition.undecided:
                break
        partition.groups += decided
    return settle(partition, layers, lambda name: name, named)


@contextlib.contextmanager
def handed_on(network: nn.Module, layers: Sequence[str]) -> Generator[dict[str, tuple[int, ...]]]:
    """A dictionary that a pass fills: layer -> what stands for the tensor that it puts out, with what it holds then."""
    kept: list[Tensor] = []  # while a tensor lives, no other one has its place in memory

    def identity(output: Tensor) -> tuple[int, ...]:
        kept.append(output)
        return output.data_ptr(), output._version, output.numel()

    with cutting.record(network, list(layers), reduce=identity) as tensors:
        yield tensors
