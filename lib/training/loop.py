"""The training loop, one epoch at a time; it can resume at any step.

Every random draw of a step (order, augmentation, dropout) comes from a stream named by epoch and step, and the learning
rate is a function of the step; so weights, optimiser and `Position` are all that continuing bit for bit needs.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.core.devices import arithmetic
from lib.core.distributed import ALONE, Processes
from lib.core.errors import UserError
from lib.core.progress import TRAINING, image_bar
from lib.core.randomness import generator, stream
from lib.datasets.augment import for_epoch
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.training import epoch_plan
from lib.training.ema import ExponentialMovingAverage
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
    """How an epoch is trained.

    learning_rate   a function of the time in epochs
    batching        its batch_size is that of all processes together
    epoch_images    so many images are an epoch, by default all
    epochs          how many there are, which the bar says
    """

    loss: Loss
    learning_rate: Callable[[float], float]
    seed: int
    batching: Batching
    augmentation: str = "none"
    channels_last: bool = False
    grad_clip: float | None = None
    epoch_images: int | None = None
    epochs: int | None = None
    processes: Processes = ALONE


class Stopping:
    """Collects SIGTERM, SIGUSR1 and Ctrl-C while a block runs, so that training can stop behind a step."""

    def __init__(self) -> None:
        self.by = ""

    @contextlib.contextmanager
    def listening(self) -> Generator["Stopping"]:
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
    average: ExponentialMovingAverage | None = None,
) -> bool:
    """Trains from `position` to the end of its epoch; False if it was stopped before, behind a whole step.

    The network is on its device; `position` is moved along, `average` is updated behind every step. The last batch may be
    smaller, but one that leaves a process a single image is left out where batch statistics do not exist for it. Of
    several processes each trains on its rows of every batch, with a loss weighted such that the mean of the gradients
    is that of the whole batch. Raises `UserError` if the loss is no longer a number.
    """
    processes, batching = recipe.processes, recipe.batching
    device = batching.device
    planned = epoch_plan.plan(
        epoch_plan.epoch_order(len(split), position.epoch, recipe.seed, recipe.epoch_images),
        batching.batch_size,
        first=position.step,
        smallest=epoch_plan.smallest_last_batch(network, processes),
        processes=processes,
    )
    source, augment = for_epoch(split, recipe.augmentation, recipe.seed, position.epoch, device=device)
    loaded = source.batches(
        planned.rows_per_batch,
        device=device,
        order=planned.rows,
        channels=batching.channels,
        size=batching.size,
        workers=batching.workers,
        prefetch=batching.prefetch,
    )
    ours = processes.rank == 0  # the sums so far
    loss_sum = torch.tensor(position.loss if ours else 0.0, dtype=torch.float64, device=device)
    correct = torch.tensor(position.correct if ours else 0, device=device)
    network.train()
    begin = time.perf_counter()
    steps_left = image_bar(
        zip(loaded, planned.batches, strict=True),
        sum(map(len, planned.batches)),
        batching.batch_size,
        label=f"epoch {position.epoch}" + (f"/{recipe.epochs}" if recipe.epochs else ""),
        quiet=batching.quiet,
        whole=batching.whole,
        kind=TRAINING,
    )
    for (images, labels, _), batch in steps_left:
        count = len(processes.rows(batch))
        torch.manual_seed(stream(recipe.seed, "dropout", position.epoch, position.step, *_stream_of_rank(processes)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(position.epoch - 1 + position.step / planned.steps)
        if augment and count:
            images = processes.augmented(augment, images, len(batch), position.step)
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with arithmetic(batching.precision, device):
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
    position.loss, position.correct = loss_sum.item(), int(correct)
    position.seconds += time.perf_counter() - begin
    return position.step == planned.steps


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
def norms(network: nn.Module) -> float:
    """The sum of the L2 norms of all trained parameters, which the hyperplane paper's code prints times the decay."""
    return sum(parameter.double().norm().item() for parameter in network.parameters() if parameter.requires_grad)


@torch.no_grad()
def predict(
    network: nn.Module,
    split: Split,
    batching: Batching,
    *,
    label: str = "",
) -> Tensor:
    """Logits (n, k) in float32 on the CPU, in the order of the split; the network is put in eval mode."""

    def forward(images: Tensor, labels: Tensor, positions: Tensor) -> Tensor:
        with arithmetic(batching.precision, batching.device):
            return cutting.outputs(network, images).float()

    network.eval()
    return torch.cat([logits for _, logits in batching.each(split, label or split.name, forward)]).cpu()


def _draws(seed: int, position: Position, device: torch.device, processes: Processes) -> Draws:
    """The generators of the step at `position`, by name."""
    epoch, step, rank = position.epoch, position.step, _stream_of_rank(processes)
    own = device
    return lambda name, device=None: generator(seed, name, epoch, step, *rank, device=device or own)


def _stream_of_rank(processes: Processes) -> tuple[str, ...]:
    """What sets a process's draws apart from those of the first one, whose names are those of a run of one process."""
    return (f"process {processes.rank}",) if processes.rank else ()


def _refuse_nan(loss_sum: Tensor, position: Position) -> None:
    if not torch.isfinite(loss_sum):
        raise UserError(
            f"the loss became {loss_sum.item()} in epoch {position.epoch}, by step {position.step}; "
            "a lower -lr, a --warmup or a --grad-clip may help"
        )
