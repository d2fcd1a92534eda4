"""A network evaluated on other classes than it was trained on, each of which groups several of its outputs."""

import math

import torch
from torch import Tensor, nn


class Pooled(nn.Module):
    """`network` with its logits (n, k) pooled to those of c classes; member j of class i is output `members[i][j]`.

    The members are part of the state, so that what is kept by the content of weights is kept by them too.
    """

    members: Tensor

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


def pooled(logits: Tensor, members: Tensor) -> Tensor:
    """Logits (n, c) of classes that several outputs answer for: the logarithm of the mean of their exp(logit).

    members    (c, m) columns of the logits (n, k), -1 where a class has fewer

    Geirhos et al. 2019 decide for the category whose outputs have the highest mean probability, as these do; a class with
    one output keeps its logit, so that the softmax is over the classes that are asked for.
    """
    chosen = logits[:, members].masked_fill(members < 0, -math.inf)
    return chosen.logsumexp(2) - (members >= 0).sum(1).to(logits.dtype).log()
