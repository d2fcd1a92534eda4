"""The images of an epoch in order and in batches, from any step on, for any of the processes that share them."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.core.distributed import ALONE, Processes
from lib.core.errors import UserError
from lib.core.randomness import generator


@dataclass(frozen=True)
class EpochPlan:
    """The batches that are left of an epoch.

    steps     of the whole epoch
    batches   of every step that is left the positions (b,) of its images in the split, those of all processes
    """

    steps: int
    batches: tuple[Tensor, ...]
    processes: Processes = ALONE

    @property
    def rows(self) -> Tensor:
        """The positions of the images that this process loads, batch after batch.

        A process without a row of the last batch goes along with one of no weight.
        """
        return torch.cat([own if len(own := self.processes.rows(batch)) else batch[:1] for batch in self.batches])

    @property
    def rows_per_batch(self) -> int:
        """How many of them are of one batch; of the last one there may be fewer."""
        return len(self.processes.rows(self.batches[0])) or 1


def plan(order: Tensor, batch_size: int, *, first: int = 0, smallest: int = 1, processes: Processes = ALONE) -> EpochPlan:
    """The plan of an epoch over the positions (images,), from step `first` on.

    The last batch may be smaller than the others, but one of less than `smallest` images is left out, unless it is the
    only one.
    """
    last = len(order) % batch_size
    if last < smallest and len(order) > batch_size:
        order = order[: len(order) - last]
    return EpochPlan(math.ceil(len(order) / batch_size), order[first * batch_size :].split(batch_size), processes)


def epoch_order(n: int, epoch: int, seed: int, images: int | None = None) -> Tensor:
    """The positions of an epoch in the order of training: int64 (images,), by default a permutation of 0, ..., n-1.

    With `images` the epochs take one such slice after the other from permutation after permutation of the n images, so
    that no image comes again before all have come.
    """
    count = n if images is None else images
    first, last = (epoch - 1) * count, epoch * count
    passes = [
        torch.randperm(n, generator=generator(seed, "order", number + 1))
        for number in range(first // n, math.ceil(last / n))
    ]
    return torch.cat(passes)[first % n :][:count]


def check_batch_size(network: nn.Module, batch_size: int, images: Tensor) -> None:
    """Raises `UserError` where a normalisation would have one value to take statistics of, for images (1, c, h, w)."""
    if batch_size > 1:
        return
    trial = copy.deepcopy(network).train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            trial(images)
    except ValueError as error:
        raise UserError(
            f"-b {batch_size}: batch normalisation needs more than one value per channel, and this network has one for a "
            "single image; -b 2 or more"
        ) from error


def smallest_last_batch(network: nn.Module, processes: Processes = ALONE) -> int:
    """The least images of a last batch that is trained on: two where there are batch statistics, for every process."""
    separate = any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        for module in network.modules()
    )
    return 2 * processes.world if separate else 2
