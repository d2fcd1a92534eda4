"""The exponential moving average of a network's weights during training."""

import copy

import torch
from torch import nn

from lib.models.normalized import Normalized


class ExponentialMovingAverage:
    """A copy of a network whose weights follow the original's with a decay per step.

    After step t the decay is min(decay, (1 + t) / (10 + t)), so that the initial weights are soon forgotten. Floating
    buffers, such as running statistics, are averaged too; counters are copied.
    """

    def __init__(self, network: Normalized, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Moves the average towards the network as it is after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mean, value in zip(_tensors(self.network), _tensors(network), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
