"""What training minimises: `loss(network, images, labels, draws) -> (mean loss, logits)`.

A loss gets the network rather than its logits, because some need more than one forward pass, and `draws(name)`, the
generator of a stream that is the step's own, on the images' device. The entries of `lib.training.flags.LOSSES` make a loss
from the flags of `exec_train.py`. A loss that carries something from step to step keeps it in its `state`, a dictionary of
tensors, which resuming restores.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.training.flags import TrainingConfig


class Draws(Protocol):
    """The generator of the step's own stream of this name, on the images' device, or on another."""

    def __call__(self, name: str, /, device: torch.device | None = None) -> torch.Generator: ...


class Loss(Protocol):
    """Of images (b, ...) and their labels (b,): the loss to differentiate, its mean over them, and logits (b, k)."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, draws: Draws, /) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class StatefulLoss(Loss, Protocol):
    """A loss that carries tensors from step to step."""

    state: dict[str, Tensor]


def state_of(loss: Loss) -> dict[str, Tensor]:
    """What the loss carries from step to step: its own dictionary, or an empty one."""
    return loss.state if isinstance(loss, StatefulLoss) else {}


def cross_entropy(config: TrainingConfig) -> Loss:
    """Mean cross-entropy of the labels, mixed with the uniform distribution by `config.label_smoothing` in [0, 1]."""

    def loss(network, images, labels, draws):
        logits = network(images)
        return functional.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing), logits

    return loss


class IndependentLosses:
    """The sum of losses that share no weights: the graph of each is freed before the next one's is made.

    What `total` gives has the value of the sum, and its gradient as a constant.
    """

    def __init__(self) -> None:
        self._value, self._gradients = torch.zeros(()), torch.zeros(())

    def add(self, value: Tensor, weights: list[Tensor]) -> None:
        """Takes in a loss, which depends on all these weights and on no others that are trained."""
        gradients = torch.autograd.grad(value, weights)
        self._gradients = self._gradients + sum(
            (weight * gradient).sum() for weight, gradient in zip(weights, gradients, strict=True)
        )
        self._value = self._value + value.detach()

    def total(self) -> Tensor:
        """The sum so far."""
        return self._gradients - self._gradients.detach() + self._value
