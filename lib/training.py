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

from lib.datasets.augment import for_epoch
from lib.datasets.split import Split
from lib.devices import arithmetic
from lib.errors import UserError
from lib.losses import Draws, Loss
from lib.progress import bar
from lib.randomness import generator, stream


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
    """How an epoch is trained; `learning_rate` is a function of the time in epochs."""

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


def train_epoch(network: nn.Module, split: Split, optimizer: torch.optim.Optimizer, recipe: Recipe, position: Position,
                stopping: Stopping) -> bool:
    """Trains from `position` to the end of its epoch; False if it was stopped before, behind a whole step.

    The network is on its device; `position` is moved along. The order is a permutation of the split, the last batch may
    be smaller, but a single left-over image is left out: batch statistics do not exist for it. Raises `UserError` if
    the loss is no longer a number.
    """
    device = next(network.parameters()).device
    order = torch.randperm(len(split), generator=generator(recipe.seed, "order", position.epoch))
    if len(order) % recipe.batch_size == 1 and len(order) > 1:
        order = order[:-1]
    steps = math.ceil(len(order) / recipe.batch_size)
    source, augment = for_epoch(split, recipe.augmentation, recipe.seed, position.epoch, device=device)
    first = position.step
    loss_sum = torch.tensor(position.loss, dtype=torch.float64, device=device)
    correct = torch.tensor(position.correct, device=device)
    batches = source.batches(recipe.batch_size, device=device, order=order[first * recipe.batch_size:],
                             channels=recipe.channels, size=recipe.size, workers=recipe.workers, prefetch=recipe.prefetch,
                             augment=augment and (lambda images, step: augment(images, first + step)))
    network.train()
    begin = time.perf_counter()
    for images, labels, _ in bar(batches, total=steps - first, label=f"epoch {position.epoch}", quiet=recipe.quiet):
        torch.manual_seed(stream(recipe.seed, "dropout", position.epoch, position.step))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(position.epoch - 1 + position.step / steps)
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with arithmetic(recipe.precision, device):
            loss, logits = recipe.loss(network, images, labels, _draws(recipe.seed, position, device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.grad_clip:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
        optimizer.step()
        loss_sum += loss.detach().double() * len(labels)
        correct += (logits.detach().argmax(1) == labels).sum()
        position.step += 1
        position.images += len(labels)
        if position.step % CHECK_EVERY == 0:
            _refuse_nan(loss_sum, position)
        if stopping.by:
            break
    _refuse_nan(loss_sum, position)
    position.loss, position.correct = loss_sum.item(), correct.item()
    position.seconds += time.perf_counter() - begin
    return position.step == steps


CHECK_EVERY = 50  # steps between looks at the loss: each look waits for the device


@torch.no_grad()
def predict(network: nn.Module, split: Split, *, batch_size: int, channels: int | None = None, size: int | None = None,
            precision: str = "fp32", workers: int = 0, prefetch: int = 2, quiet: bool = False, label: str = "") -> Tensor:
    """Logits (n, k) in float32 on the CPU, in the order of the split; the network is put in eval mode."""
    device = next(network.parameters()).device
    network.eval()
    logits = []
    batches = split.batches(batch_size, device=device, channels=channels, size=size, workers=workers, prefetch=prefetch)
    for images, _, _ in bar(batches, total=math.ceil(len(split) / batch_size), label=label or split.name, quiet=quiet):
        with arithmetic(precision, device):
            logits.append(network(images).float())
    return torch.cat(logits).cpu()


def _draws(seed: int, position: Position, device: torch.device) -> Draws:
    """The generators of the step at `position`, by name."""
    epoch, step = position.epoch, position.step
    return lambda name: generator(seed, name, epoch, step, device=device)


def _refuse_nan(loss_sum: Tensor, position: Position) -> None:
    if not torch.isfinite(loss_sum):
        raise UserError(f"the loss became {loss_sum.item()} in epoch {position.epoch}, by step {position.step}; "
                        "a lower -lr, a --warmup or a --grad-clip may help")
