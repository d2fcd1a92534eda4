"""A network that is asked for other classes than it was trained on, each of which several of its outputs answer for."""

import torch
from torch import Tensor, nn

from lib.metrics.classification import pooled


class Pooled(nn.Module):
    """`network` with its logits (n, k) pooled to those of c classes; member j of class i is output `members[i][j]`.

    The members are part of the state, so that what is kept by the content of weights is kept by them too.
    """

    def __init__(self, network: nn.Module, members: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("members", padded(members).to(next(network.parameters()).device))

    def forward(self, images: Tensor) -> Tensor:
        return pooled(self.network(images), self.members)


def padded(members: tuple[tuple[int, ...], ...]) -> Tensor:
    """The outputs of each class (c, m), -1 where a class has fewer than another."""
    width = max(map(len, members))
    return torch.tensor([[*outputs, *[-1] * (width - len(outputs))] for outputs in members])
