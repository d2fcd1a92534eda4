"""Batches of a split, in the form that a network takes."""

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.core.progress import FORWARD, Whole, image_bar
from lib.datasets.split import Split

Batches = Iterable[tuple[Tensor, Tensor, Tensor]]  # images, labels and positions
Feed = Callable[["Batching", Split, str, Tensor | None], Batches]
feed: ContextVar[Feed | None] = ContextVar("feed", default=None)  # what gives batches here, such as a pass that is shared


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The device and size of batches, the channels and side of images, the worker processes that decode them.

    channels and size are None for images that are given as they are; `whole` knows the passes of the run.
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
        shared = feed.get() if augment is None else None
        if shared is not None:
            return shared(self, split, label, order)
        return self.alone(split, label, order=order, augment=augment, kind=kind)

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
