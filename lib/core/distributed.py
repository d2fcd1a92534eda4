"""Training in several processes, started by `torchrun`, with the results of one.

Every process holds the whole network and takes its rows of each batch; after the backward pass gradients and running
batch statistics are averaged, so that all hold the same state after every step. Gradients are averaged here rather
than by `DistributedDataParallel`, whose hooks expect one forward and one backward pass of the whole network per step:
adversarial losses and parts of networks need no exception this way. Importing this needs no torch.
"""

import contextlib
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.core.errors import Interrupted, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


def world() -> int:
    """The number of processes that `torchrun` started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """The number of this process among them, from 0; only process 0 writes and speaks."""
    return int(os.environ["RANK"]) if world() > 1 else 0


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; every method is a no-op for a run of one."""

    rank: int = 0
    world: int = 1

    def rows(self, batch: "Tensor") -> "Tensor":
        """This process's rows of a batch: every `world`-th one."""
        return batch[self.rank :: self.world]

    def augmented(self, augment: Callable, images: "Tensor", size: int, step: int) -> "Tensor":
        """This process's rows of the augmented batch of `size` images: the draws are those of the whole batch."""
        if self.world == 1:
            return augment(images, step)
        batch = images.new_zeros(size, *images.shape[1:])
        self.rows(batch).copy_(images)
        return self.rows(augment(batch, step))

    def average(self, network: "nn.Module") -> None:
        """Replaces gradients, and running statistics of batch normalisation, by their means over the processes."""
        if self.world == 1:
            return
        import torch

        tensors = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        tensors += [buffer for name, buffer in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
        flat = self.total(torch.cat([tensor.flatten() for tensor in tensors])) / self.world
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def total(self, values: "Tensor") -> "Tensor":
        """The sum over the processes."""
        if self.world == 1:
            return values
        import torch.distributed as dist

        values = values.clone()
        with _failure_in_a_sentence():
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all get the same answer at the same place."""
        if self.world == 1:
            return flag
        import torch

        return bool(self.total(torch.tensor(float(flag))))

    def gather(self, rows: "Tensor", n: int) -> "Tensor":
        """All n rows (n, k) in order, from each process's `rows(...)` of them; on the CPU."""
        if self.world == 1:
            return rows
        import torch
        import torch.distributed as dist

        padded = rows.new_zeros(-(-n // self.world), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        with _failure_in_a_sentence():
            dist.all_gather(parts, padded)
        return torch.stack(parts, 1).flatten(0, 1)[:n]


ALONE = Processes()


@contextlib.contextmanager
def joined(batch_size: int) -> Generator[Processes]:
    """The processes of this run, connected while the block runs; waits until all are there."""
    if world() == 1:
        yield ALONE
        return
    if batch_size < world():
        raise UserError(f"-b {batch_size}: {world()} processes need at least one image each")
    import torch
    import torch.distributed as dist

    with _failure_in_a_sentence():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(rank(), world())
    finally:
        with contextlib.suppress(Exception):  # after a failure the connection may be gone
            dist.destroy_process_group()


@contextlib.contextmanager
def _failure_in_a_sentence() -> Generator[None]:
    """Turns the failure of a connection, which means that another process has ended, into a sentence."""
    try:
        yield
    except RuntimeError:
        raise Interrupted(
            "another process of this run has ended; the same command continues from the last state that was saved"
        ) from None
