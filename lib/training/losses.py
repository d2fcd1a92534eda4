"""What training minimises: `loss(network, images, labels, draws) -> (mean loss, logits)`.

A loss gets the network rather than its logits, because some need more than one forward pass, and `draws(name)`, the
generator of a stream that is the step's own, on the images' device. The entries of `lib.training.flags.LOSSES` make a loss
from the training's configuration. A loss that carries something from step to step keeps it in `loss.state`, a dictionary of
tensors, which resuming restores.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Draws = Callable[[str], torch.Generator]
Loss = Callable[[nn.Module, Tensor, Tensor, Draws], tuple[Tensor, Tensor]]


def cross_entropy(config) -> Loss:
    """Mean cross-entropy of the labels, mixed with the uniform distribution by `config.label_smoothing` in [0, 1]."""

    def loss(network, images, labels, draws):
        logits = network(images)
        return functional.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing), logits

    return loss


class Separate:
    """The sum of losses that share no weights: the graph of each is freed before the next one's is made.

    What `total` gives has the value of the sum, and its gradient as a constant.
    """

    def __init__(self) -> None:
        self._value, self._gradients = 0.0, 0.0

    def add(self, value: Tensor, weights: list[Tensor]) -> None:
        """Takes in a loss, which depends on all these weights and on no others that are trained."""
        found = torch.autograd.grad(value, weights)
        self._gradients = self._gradients + sum(
            (weight * gradient).sum() for weight, gradient in zip(weights, found, strict=True)
        )
        self._value = self._value + value.detach()

    def total(self) -> Tensor:
        """The sum so far."""
        return self._gradients - self._gradients.detach() + self._value
