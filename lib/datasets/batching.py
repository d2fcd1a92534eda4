"""How a pass over a split gives a network its images."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.core.progress import image_bar
from lib.datasets.split import Split


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The device and size of batches, the channels and side of images, the worker processes that decode them."""

    device: torch.device
    batch_size: int
    channels: int
    size: int
    precision: str = "fp32"
    workers: int = 0
    prefetch: int = 2
    quiet: bool = False

    def over(self, split: Split, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels, batch by batch."""
        batches = split.batches(
            self.batch_size,
            device=self.device,
            channels=self.channels,
            size=self.size,
            workers=self.workers,
            prefetch=self.prefetch,
        )
        for images, labels, _ in image_bar(batches, len(split), self.batch_size, label=label, quiet=self.quiet):
            yield images, labels
