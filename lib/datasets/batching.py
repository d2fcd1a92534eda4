"""Batches of a split, in the form that a network takes."""

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from lib.core.distributed import ALONE, Processes
from lib.core.progress import FORWARD, Whole, image_bar
from lib.datasets.split import Split

Made = TypeVar("Made")
Batches = Iterable[tuple[Tensor, Tensor, Tensor]]  # images, labels and positions
Feed = Callable[["Batching", Split, str, Tensor | None], Batches]
feed: ContextVar[Feed | None] = ContextVar("feed", default=None)  # what gives batches here, such as a pass that is shared


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The device and size of batches, the channels and side of images, the worker processes that decode them.

    channels and size are None for images that are given as they are; `whole` knows the passes of the run, `processes` those
    that share it. `own`: no other experiment's batches will do, since what is measured depends on which images are together.
    """

    device: torch.device = torch.device("cpu")
    batch_size: int = 256
    channels: int | None = None
    size: int | None = None
    precision: str = "fp32"
    workers: int = 0
    prefetch: int = 2
    quiet: bool = False
    whole: Whole = field(default_factory=Whole, compare=False)
    processes: Processes = ALONE
    own: bool = False

    def over(self, split: Split, label: str, kind: str = FORWARD) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels, batch by batch."""
        for images, labels, _ in self.with_positions(split, label, kind=kind):
            yield images, labels

    def with_positions(
        self,
        split: Split,
        label: str,
        *,
        order: Tensor | None = None,
        augment: Callable[[Tensor, int], Tensor] | None = None,
        kind: str = FORWARD,
    ) -> Batches:
        """Images, labels and positions, batch by batch; `order` and `augment` as in `Split.batches`.

        In a process that shares passes, others may get the same images at the same time, and batches are theirs (`feed`).
        """
        shared = feed.get() if augment is None and not self.own else None
        if shared is not None:
            return shared(self, split, label, order)
        return self.alone(split, label, order=order, augment=augment, kind=kind)

    def each(
        self,
        split: Split,
        label: str,
        work: Callable[[Tensor, Tensor, Tensor], Made],
        *,
        order: Tensor | None = None,
        augment: Callable[[Tensor, int], Tensor] | None = None,
        kind: str = FORWARD,
    ) -> Iterator[tuple[Tensor, Made]]:
        """Positions (b,) and what `work(images, labels, positions)` makes of them, batch by batch.

        Several processes share the work (`Processes.shared`); batches are those of one process.
        """
        if self.processes.world == 1:
            for images, labels, positions in self.with_positions(split, label, order=order, augment=augment, kind=kind):
                yield positions, work(images, labels, positions)
            return
        rank, world = self.processes.rank, self.processes.world
        order = torch.arange(len(split)) if order is None else order.cpu()
        every = order.split(self.batch_size) if len(order) else ()
        mine = every[rank::world]
        numbered = None if augment is None else lambda images, step: augment(images, rank + step * world)
        batches = iter(self.alone(split, label, order=torch.cat(mine), augment=numbered, kind=kind) if mine else ())
        yield from zip(every, self.processes.shared(len(every), lambda number: work(*next(batches))), strict=True)
        next(batches, None)  # none is left, and the bar ends

    def alone(
        self,
        split: Split,
        label: str,
        *,
        order: Tensor | None = None,
        augment: Callable[[Tensor, int], Tensor] | None = None,
        kind: str = FORWARD,
    ) -> Batches:
        """The same, shared with nobody."""
        batches = split.batches(
            self.batch_size,
            device=self.device,
            order=order,
            channels=self.channels,
            size=self.size,
            augment=augment,
            workers=self.workers,
            prefetch=self.prefetch,
        )
        count = len(split) if order is None else len(order)
        whole = None if self.quiet else self.whole  # a pass beside another one is no part of the run's time
        return image_bar(batches, count, self.batch_size, label=label, quiet=self.quiet, whole=whole, kind=kind)
