"""Linear probes trained side by side: groups x settings as one stack of linear layers.

A group has its own examples, order and initial weights (a seed, a shift, a rank); a setting its own learning rate and
penalties. Adam and SGD act on each number by itself, so one update of the stack is exactly that of every probe alone.

Letters: g groups, s settings, b images of a batch, d features, k classes. The objective is the mean cross-entropy plus
l1 |W|_1 + l2/2 |W|^2, biases unpenalised; weight decay is the optimiser's, on weights and biases.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.randomness import generator


@dataclass(frozen=True)
class Setting:
    """What distinguishes probes that learn from the same images."""

    lr: float | None = 1e-3
    l1: float = 0.0
    l2: float = 0.0


@dataclass(frozen=True)
class Linear:
    """Linear probes: weights (..., k, d) and biases (..., k)."""

    weights: Tensor
    biases: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) -> (..., n, k)."""
        flat = features @ self.weights.flatten(0, -2).T
        shaped = flat.view(len(features), *self.weights.shape[:-1]).movedim(0, -2)
        return shaped + self.biases.unsqueeze(-2)

    def folded(self, matrix: Tensor | None = None, shift: Tensor | None = None, scale: Tensor | None = None) -> "Linear":
        """The same probes for x where these take ((x - shift) / scale), or (x - shift) @ matrix + shift.

        matrix (d, d), symmetric; shift and scale (d,).
        """
        if matrix is not None:
            weights = self.weights @ matrix.to(self.weights)
            return Linear(weights, self.biases + (self.weights - weights) @ shift.to(self.weights))
        weights = self.weights / scale.to(self.weights)
        return Linear(weights, self.biases - weights @ shift.to(self.weights))


def initial(dim: int, classes: int, seeds: list[int], settings: int, name: str, kind: str = "uniform") -> Linear:
    """Fresh weights (g, s, k, d) for a seed per group, the same for all settings.

    kind    "uniform": in +-1/sqrt(d), as torch's linear layers; "zero"

    They depend on the seed and the layer's `name` alone, not on which other layers are probed.
    """
    weights, biases = torch.zeros(len(seeds), settings, classes, dim), torch.zeros(len(seeds), settings, classes)
    if kind == "uniform":
        bound = 1 / math.sqrt(dim)
        for place, seed in enumerate(seeds):
            draw = generator(seed, "probe", name, dim, classes)
            weights[place] = (2 * torch.rand(classes, dim, generator=draw) - 1) * bound
            biases[place] = (2 * torch.rand(classes, generator=draw) - 1) * bound
    return Linear(weights, biases)


class Stack:
    """Probes (g, s) in training: `step` is one update of all of them."""

    def __init__(self, start: Linear, settings: list[Setting], solver: str = "adam", momentum: float = 0.9,
                 weight_decay: float = 0.0) -> None:
        self.weights, self.biases = start.weights.clone(), start.biases.clone()
        self.solver, self.momentum, self.weight_decay, self.steps = solver, momentum, weight_decay, 0
        shape = (1, len(settings), 1, 1)
        device = self.weights.device
        self.lr = torch.tensor([setting.lr for setting in settings], device=device).view(shape)
        self.l1 = torch.tensor([setting.l1 for setting in settings], device=device).view(shape)
        self.l2 = torch.tensor([setting.l2 for setting in settings], device=device).view(shape)
        self.penalised = bool((self.l1 != 0).any() or (self.l2 != 0).any())
        self.state = [[torch.zeros_like(value) for _ in range(2 if solver == "adam" else 1)]
                      for value in (self.weights, self.biases)]

    def step(self, features: Tensor, labels: Tensor, rate: float = 1.0) -> None:
        """One update from features (g, b, d) and labels (g, b); `rate` is a factor of every learning rate."""
        g, s, k, d = self.weights.shape
        b = features.shape[1]
        flat = self.weights.view(g, s * k, d)
        logits = torch.bmm(features, flat.transpose(1, 2)).view(g, b, s, k)
        error = (logits + self.biases.unsqueeze(1)).softmax(-1)
        error.scatter_add_(3, labels[:, :, None, None].expand(g, b, s, 1), error.new_full((1,), -1.0).expand(g, b, s, 1))
        error /= b
        slope = torch.bmm(error.view(g, b, s * k).transpose(1, 2), features).view(g, s, k, d)
        bias_slope = error.sum(1)
        if self.penalised:
            slope += self.l1 * self.weights.sign() + self.l2 * self.weights
        if self.weight_decay:
            slope += self.weight_decay * self.weights
            bias_slope += self.weight_decay * self.biases
        self.steps += 1
        update = self._adam if self.solver == "adam" else self._sgd
        update(self.weights, slope, self.state[0], self.lr * rate)
        update(self.biases, bias_slope, self.state[1], self.lr[..., 0] * rate)

    def linear(self) -> Linear:
        """A copy of the probes as they are now."""
        return Linear(self.weights.clone(), self.biases.clone())

    def _adam(self, value: Tensor, slope: Tensor, state: list[Tensor], rate: Tensor) -> None:
        """Kingma & Ba 2015, with torch's constants and order of operations."""
        mean, square = state
        mean.lerp_(slope, 0.1)
        square.mul_(0.999).addcmul_(slope, slope, value=0.001)
        spread = (square.sqrt() / math.sqrt(1 - 0.999 ** self.steps)).add_(1e-8)
        value -= rate / (1 - 0.9 ** self.steps) * mean / spread

    def _sgd(self, value: Tensor, slope: Tensor, state: list[Tensor], rate: Tensor) -> None:
        state[0].mul_(self.momentum).add_(slope)
        value -= rate * state[0]
