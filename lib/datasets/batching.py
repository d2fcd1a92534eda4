"""Batches of a split, in the form that a network takes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.core.progress import FORWARD, Whole, image_bar
from lib.datasets.split import Split


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
    ) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        """Images, labels and positions, batch by batch; `order` and `augment` as in `Split.batches`."""
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
