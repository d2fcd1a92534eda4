"""Optimising a network, one epoch at a time, such that any step can be the first after an interruption.

Every random draw of a step (order, augmentation, dropout) comes from a stream named by epoch and step, and the learning
rate is a function of the step; so weights, optimiser and `Position` are all that continuing bit for bit needs.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.core.devices import arithmetic
from lib.core.distributed import ALONE, Processes
from lib.core.errors import UserError
from lib.core.progress import image_bar
from lib.core.randomness import generator, stream
from lib.datasets.augment import for_epoch
from lib.datasets.split import Split
from lib.training.ema import Average
from lib.training.losses import Draws, Loss


@dataclass
class Position:
    """How far an epoch has come: `step` batches are done; the sums run over their images."""

    epoch: int = 1
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an epoch is trained; `learning_rate` is a function of the time in epochs, `batch_size` that of all processes."""

    loss: Loss
    learning_rate: Callable[[float], float]
    seed: int
    batch_size: int
    augmentation: str = "none"
    channels: int | None = None
    size: int | None = None
    precision: str = "fp32"
    channels_last: bool = False
    grad_clip: float | None = None
    workers: int = 0
    prefetch: int = 2
    quiet: bool = False
    epoch_images: int | None = None
    processes: Processes = ALONE


class Stopping:
    """Collects SIGTERM, SIGUSR1 and Ctrl-C while a block runs, so that training can stop behind a step."""

    def __init__(self) -> None:
        self.by = ""

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stopping"]:
        numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

        def note(number, frame):
            self.by = signal.Signals(number).name

        previous = [signal.signal(number, note) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, previous, strict=True):
                signal.signal(number, handler)


def train_epoch(
    network: nn.Module,
    split: Split,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    position: Position,
    stopping: Stopping,
    average: Average | None = None,
) -> bool:
    """Trains from `position` to the end of its epoch; False if it was stopped before, behind a whole step.

    The network is on its device; `position` is moved along, `average` is updated behind every step. The last batch may be
    smaller, but one that leaves a process a single image is left out where batch statistics do not exist for it. Of
    several processes each trains on its rows of every batch, with a loss weighted such that the mean of the gradients
    is that of the whole batch. Raises `UserError` if the loss is no longer a number.
    """
    device, processes = next(network.parameters()).device, recipe.processes
    order = epoch_order(len(split), position.epoch, recipe.seed, recipe.epoch_images)
    if len(order) % recipe.batch_size < _least(network, processes) and len(order) > recipe.batch_size:
        order = order[: len(order) // recipe.batch_size * recipe.batch_size]
    steps, first = math.ceil(len(order) / recipe.batch_size), position.step
    remaining = order[first * recipe.batch_size :].split(recipe.batch_size)
    # a process without a row of the last batch goes along with one of no weight
    own = torch.cat([rows if len(rows := processes.rows(batch)) else batch[:1] for batch in remaining])
    source, augment = for_epoch(split, recipe.augmentation, recipe.seed, position.epoch, device=device)
    batches = source.batches(
        len(processes.rows(remaining[0])) or 1,
        device=device,
        order=own,
        channels=recipe.channels,
        size=recipe.size,
        workers=recipe.workers,
        prefetch=recipe.prefetch,
    )
    ours = processes.rank == 0  # the sums so far
    loss_sum = torch.tensor(position.loss if ours else 0.0, dtype=torch.float64, device=device)
    correct = torch.tensor(position.correct if ours else 0, device=device)
    network.train()
    begin = time.perf_counter()
    steps_left = image_bar(
        zip(batches, remaining, strict=True),
        len(remaining) * recipe.batch_size,
        recipe.batch_size,
        label=f"epoch {position.epoch}",
        quiet=recipe.quiet,
    )
    for (images, labels, _), batch in steps_left:
        count = len(processes.rows(batch))
        torch.manual_seed(stream(recipe.seed, "dropout", position.epoch, position.step, *_own(processes)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(position.epoch - 1 + position.step / steps)
        if augment and count:
            images = processes.augmented(augment, images, len(batch), position.step)
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with arithmetic(recipe.precision, device):
            loss, logits = recipe.loss(network, images, labels, _draws(recipe.seed, position, device, processes))
        optimizer.zero_grad(set_to_none=True)
        (loss * (count * processes.world / len(batch)) if processes.world > 1 else loss).backward()
        processes.average(network)
        if recipe.grad_clip:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
        optimizer.step()
        if average is not None:
            average.update(network)
        loss_sum += loss.detach().double() * count
        correct += (logits.detach().argmax(1) == labels)[:count].sum()
        position.step += 1
        position.images += len(batch)
        if position.step % CHECK_EVERY == 0:
            _refuse_nan(processes.total(loss_sum), position)
        if processes.any(bool(stopping.by)):
            stopping.by = stopping.by or "a signal to another process"
            break
    loss_sum, correct = processes.total(loss_sum), processes.total(correct)
    _refuse_nan(loss_sum, position)
    position.loss, position.correct = loss_sum.item(), correct.item()
    position.seconds += time.perf_counter() - begin
    return position.step == steps


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


CHECK_EVERY = 50  # steps between looks at the loss: each look waits for the device


@torch.no_grad()
def penalty(network: nn.Module, weight_decay: float) -> float:
    """The loss whose gradient the weight decay adds to that of every parameter: half the decay times their squares' sum."""
    return (
        0.5
        * weight_decay
        * sum(parameter.double().square().sum().item() for parameter in network.parameters() if parameter.requires_grad)
    )


@torch.no_grad()
def predict(
    network: nn.Module,
    split: Split,
    *,
    batch_size: int,
    channels: int | None = None,
    size: int | None = None,
    precision: str = "fp32",
    workers: int = 0,
    prefetch: int = 2,
    quiet: bool = False,
    label: str = "",
    processes: Processes = ALONE,
) -> Tensor:
    """Logits (n, k) in float32 on the CPU, in the order of the split; the network is put in eval mode.

    Several processes share the work, and all get the whole answer.
    """
    n = len(split)
    if processes.world > 1 and n >= processes.world:
        split = split.subset(processes.rows(torch.arange(n)))
    else:
        processes = ALONE
    device = next(network.parameters()).device
    network.eval()
    logits = []
    batches = split.batches(batch_size, device=device, channels=channels, size=size, workers=workers, prefetch=prefetch)
    for images, _, _ in image_bar(batches, len(split), batch_size, label=label or split.name, quiet=quiet):
        with arithmetic(precision, device):
            logits.append(network(images).float())
    return processes.gather(torch.cat(logits).cpu(), n)


def _draws(seed: int, position: Position, device: torch.device, processes: Processes) -> Draws:
    """The generators of the step at `position`, by name."""
    epoch, step, own = position.epoch, position.step, _own(processes)
    return lambda name: generator(seed, name, epoch, step, *own, device=device)


def _own(processes: Processes) -> tuple[str, ...]:
    """What sets a process's draws apart from those of the first one, whose names are those of a run of one process."""
    return (f"process {processes.rank}",) if processes.rank else ()


def _least(network: nn.Module, processes: Processes) -> int:
    """The least images of a last batch that is trained on: two where there are batch statistics, for every process."""
    separate = any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        for module in network.modules()
    )
    return 2 * processes.world if separate else 2


def _refuse_nan(loss_sum: Tensor, position: Position) -> None:
    if not torch.isfinite(loss_sum):
        raise UserError(
            f"the loss became {loss_sum.item()} in epoch {position.epoch}, by step {position.step}; "
            "a lower -lr, a --warmup or a --grad-clip may help"
        )
