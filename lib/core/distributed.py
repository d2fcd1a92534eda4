"""Several processes, started by `torchrun`, that run one experiment, with the results of one process.

Training: every process holds the whole network and takes its rows of each batch; after the backward pass gradients and
running batch statistics are averaged, so that all hold the same state after every step. Gradients are averaged here rather
than by `DistributedDataParallel`, whose hooks expect one forward and one backward pass of the whole network per step:
adversarial losses and parts of networks need no exception this way.

Everything else: all processes run the same experiment. In a pass over images each makes its share of the batches, and all
get what everyone has made, so that they go on alike. Process 0 alone writes, speaks, and reads
what may change meanwhile, such as what a stopped run has left. Importing this needs no torch.
"""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lib.core.errors import Interrupted, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = TypeVar("Value")


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

    def exchange(self, value: Value) -> list[Value]:
        """The values of all processes, by rank, in all of them; tensors come to the CPU.

        Raises `FailedTogether` in all if a process has failed instead (`together`).
        """
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        with _failure_in_a_sentence():
            dist.all_gather_object(values, _on_cpu(value))
        for one in values:
            if isinstance(one, _Failure):
                raise FailedTogether(one.sentence)
        return values

    def shared(self, count: int, work: Callable[[int], Value]) -> Iterator[Value]:
        """What `work` makes of 0, ..., count - 1, in order: each is the work of one process, and all get everything.

        What is made should be small beside the work.
        """
        for first in range(0, count, self.world):
            made = work(first + self.rank) if first + self.rank < count else None
            yield from self.exchange(made)[: count - first]  # ty: ignore[invalid-yield] None stands behind the last one

    def agree(self, value: Any) -> Any:
        """Process 0's value, in all of them: for what may differ, such as what lies on a disk while another one writes."""
        return self.exchange(value if self.rank == 0 else None)[0] if self.world > 1 else value

    def read_once(self, read: Callable[[], Value]) -> Value:
        """What process 0 reads, in all of them; the others read nothing."""
        return self.agree(None if self.rank else read())

    def together(self, function: Callable[[], Value]) -> Value:
        """What the function returns, when all have come to its end. If it raises `UserError` in one, it does so in all.

        Until its end the function meets the others in `exchange` and nothing else.
        """
        if self.world == 1:
            return function()
        try:
            result = function()
            self.exchange(None)
            return result
        except FailedTogether:
            raise
        except UserError as error:
            self.exchange(_Failure(str(error)))
            raise


class FailedTogether(UserError):
    """What failed in one process, raised in all; process 0 says it."""


@dataclass(frozen=True)
class _Failure:
    """What a process tells the others in place of a value."""

    sentence: str


def _on_cpu(value: Any) -> Any:
    """The value, its tensors, and whatever else has a method `cpu`, on the CPU."""
    if isinstance(value, dict):
        return {key: _on_cpu(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        parts = list(map(_on_cpu, value))
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value.cpu() if hasattr(value, "cpu") else value


ALONE = Processes()
_connected = ALONE


def current() -> Processes:
    """The processes of this run, while they are connected (`joined`)."""
    return _connected


@contextlib.contextmanager
def joined() -> Generator[Processes]:
    """The processes of this run, connected while the block runs; waits until all are there."""
    global _connected
    if world() == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    with _failure_in_a_sentence():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    _connected = Processes(rank(), world())
    try:
        yield _connected
    finally:
        _connected = ALONE
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
