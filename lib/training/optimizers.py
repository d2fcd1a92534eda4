"""Optimisers, and learning rates as functions of time."""

import math
from collections.abc import Callable

from lib.core.registry import resolve
from lib.training.flags import OPTIMIZERS, SCHEDULES


def optimizer(
    name: str, parameters, *, learning_rate: float, weight_decay: float, momentum: float = 0.9, nesterov: bool = False
):
    """The torch optimiser called `name` over the parameters that are trained; momentum is sgd's alone."""
    extra = {"momentum": momentum, "nesterov": nesterov} if name == "sgd" else {}
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return resolve(OPTIMIZERS[name])(trained, lr=learning_rate, weight_decay=weight_decay, **extra)


def schedule(
    name: str,
    *,
    learning_rate: float,
    epochs: int,
    milestones: tuple[float, ...] = (),
    warmup: float = 0,
    lr_step: int = 30,
    lr_decay: float = 0.1,
) -> Callable[[float], float]:
    """The learning rate at a time in [0, epochs], counted in epochs.

    none       constant
    cosine     from the peak to 0 along half a cosine
    onecycle   up linearly during the first 30 % of the time, then down along half a cosine (Smith & Topin 2018)
    step       times `lr_decay` every `lr_step` epochs

    Each is multiplied by 0.1 at every milestone, once that many epochs are done, and rises linearly from 0 during the
    first `warmup` epochs.
    """
    factor = resolve(SCHEDULES[name])

    def rate(time: float) -> float:
        decayed = factor(time, epochs=epochs, warmup=warmup, lr_step=lr_step, lr_decay=lr_decay)
        decayed *= 0.1 ** sum(time >= milestone for milestone in milestones)
        return learning_rate * decayed * (time / warmup if time < warmup else 1.0)

    return rate


def constant(time: float, **_) -> float:
    """1 at all times."""
    return 1.0


def cosine(time: float, *, epochs: int, warmup: float, **_) -> float:
    """Half a cosine from 1 at the end of the warm-up to 0."""
    return _half_cosine((time - warmup) / (epochs - warmup)) if epochs > warmup else 1.0


def onecycle(time: float, *, epochs: int, **_) -> float:
    """A linear rise to 1 during the first 30 % and half a cosine to 0."""
    peak = 0.3 * epochs
    return time / peak if time < peak else _half_cosine((time - peak) / (epochs - peak))


def step(time: float, *, lr_step: int, lr_decay: float, **_) -> float:
    """`lr_decay` to the power of the number of whole steps of `lr_step` epochs."""
    return lr_decay ** (time // lr_step)


def _half_cosine(time: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(max(time, 0.0), 1.0)))
