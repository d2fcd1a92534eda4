"""Probes trained side by side: groups x settings as one stack of linear layers, or of small networks.

A group has its own examples, order and initial weights (a seed, a shift, a rank); a setting its own learning rate and
penalties. Adam and SGD act on each number by itself, so one update of the stack is exactly that of every probe alone.

Letters: g groups, s settings, b images of a batch, d features, h hidden units, k classes. Every probe minimises

    L = -1/b sum_i log softmax(z_i)[y_i] + l1 |W|_1 + l2/2 |W|^2 + norm |W|

z_i being the logits of image i and y_i its label, where W are the weights of all its layers; biases are free. The last term,
the norm itself, is the one that the intermediate-layers paper's notebook calls l2. The gradients are written out: that of
the mean cross-entropy in `slopes`, those of the penalties in `Stack`. `test_gradients_are_those_of_the_stated_loss` compares
them with automatic differentiation of L. Weight decay is the optimiser's, on weights and biases.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from lib.core.randomness import generator

LARGE = 2**15  # numbers from which on a probe is updated on the CPU by kernels that pass over it once
UNDERFLOW = 1e-20  # errors below it are none: an update does not show them, and products with denormal numbers are slow


@dataclass(frozen=True)
class Setting:
    """What distinguishes probes that learn from the same images."""

    lr: float | None = 1e-3
    l1: float = 0.0
    l2: float = 0.0
    norm: float = 0.0


class FeatureClassifiers(Protocol):
    """c classifiers of the same features, of k classes each."""

    @property
    def biases(self) -> Tensor:
        """(c, k), or (c, h) where hidden units come first."""
        ...

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) -> (c, n, k)."""
        ...


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

    def single_precision(self) -> "Linear":
        """The same in float32."""
        return Linear(self.weights.float(), self.biases.float())

    def before_standardising(self, mean: Tensor, deviation: Tensor) -> "Linear":
        """The same probes for x where these take (x - mean) / deviation; both (d,)."""
        weights = self.weights / deviation.to(self.weights)
        return Linear(weights, self.biases - weights @ mean.to(self.weights))

    def after_standardising(self, mean: Tensor, deviation: Tensor) -> "Linear":
        """The same probes for (x - mean) / deviation where these take x; both (d,)."""
        return Linear(self.weights * deviation, self.biases + self.weights @ mean)

    def before_projecting(self, projector: Tensor, mean: Tensor) -> "Linear":
        """The same probes for x where these take (x - mean) @ projector + mean: projector (d, d) symmetric, mean (d,)."""
        weights = self.weights @ projector.to(self.weights)
        return Linear(weights, self.biases + (self.weights - weights) @ mean.to(self.weights))

    def slopes(self, features: Tensor, labels: Tensor, room: Tensor) -> list[Tensor]:
        """Gradients of the mean cross-entropy of probes (g, s) over features (g, b, d) with labels (g, b).

        With E = dL/dZ (`_error`) of logits Z = X W' + b: dL/dW = E' X, dL/db = E' 1.

        room    where those of the weights go; memory that is asked for anew in every step costs more than the products
        """
        g, s, k, d = self.weights.shape
        b = features.shape[1]
        logits = torch.bmm(features, self.weights.view(g, s * k, d).transpose(1, 2)).view(g, b, s, k)
        error = _error(logits + self.biases.unsqueeze(1), labels)
        torch.bmm(error.view(g, b, s * k).transpose(1, 2), features, out=room.view(g, s * k, d))
        return [room, error.sum(1)]


@dataclass(frozen=True)
class Mlp:
    """Probes with one hidden layer of h rectified units: (..., h, d), (..., h), then outer (..., k, h), (..., k)."""

    weights: Tensor
    biases: Tensor
    outer_weights: Tensor
    outer_biases: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) -> (..., n, k)."""
        hidden = Linear(self.weights, self.biases).logits(features).relu()
        return hidden @ self.outer_weights.transpose(-1, -2) + self.outer_biases.unsqueeze(-2)

    def before_standardising(self, mean: Tensor, deviation: Tensor) -> "Mlp":
        """As for linear probes."""
        return self._behind(Linear(self.weights, self.biases).before_standardising(mean, deviation))

    def before_projecting(self, projector: Tensor, mean: Tensor) -> "Mlp":
        """As for linear probes."""
        return self._behind(Linear(self.weights, self.biases).before_projecting(projector, mean))

    def _behind(self, first: Linear) -> "Mlp":
        return Mlp(first.weights, first.biases, self.outer_weights, self.outer_biases)

    def slopes(self, features: Tensor, labels: Tensor, room: Tensor) -> list[Tensor]:
        """As for linear probes; with hidden units H = relu(X W' + b) and logits Z = H V' + c, of which E = dL/dZ:

        dL/dV = E' H, dL/dc = E' 1, D = (E V) where H > 0, else 0, dL/dW = D' X, dL/db = D' 1.
        """
        g, s, h, d = self.weights.shape
        b = features.shape[1]
        hidden = torch.bmm(features, self.weights.view(g, s * h, d).transpose(1, 2)).view(g, b, s, h)
        hidden = (hidden + self.biases.unsqueeze(1)).relu_()
        logits = torch.einsum("gbsh,gskh->gbsk", hidden, self.outer_weights)
        error = _error(logits + self.outer_biases.unsqueeze(1), labels)
        inner = torch.einsum("gbsk,gskh->gbsh", error, self.outer_weights) * (hidden > 0)
        torch.bmm(inner.reshape(g, b, s * h).transpose(1, 2), features, out=room.view(g, s * h, d))
        return [room, inner.sum(1), torch.einsum("gbsk,gbsh->gskh", error, hidden), error.sum(1)]


Probes = Linear | Mlp
OneKind = TypeVar("OneKind", bound=Probes)


def combined(function: Callable[[list[Tensor]], Tensor], probes: list[OneKind]) -> OneKind:
    """Probes of one kind made into one: `function` takes the list of each of their tensors."""
    return type(probes[0])(*[function([getattr(probe, field.name) for probe in probes]) for field in fields(probes[0])])


def moved(probes: OneKind, device: torch.device) -> OneKind:
    """The probes on a device."""
    return combined(lambda values: values[0].to(device), [probes])


def _error(logits: Tensor, labels: Tensor) -> Tensor:
    """The gradient (g, b, s, k) of the mean cross-entropy over b images by the logits (g, b, s, k); labels (g, b).

    (softmax(z_i) - onehot(y_i)) / b for image i.
    """
    g, b, s, _ = logits.shape
    error = logits.softmax(-1)
    error.scatter_add_(3, labels[:, :, None, None].expand(g, b, s, 1), error.new_full((1,), -1.0).expand(g, b, s, 1))
    return error.div_(b).masked_fill_(error.abs() < UNDERFLOW, 0)


def initial(dim: int, classes: int, seeds: list[int], settings: int, kind: str = "uniform", part: str = "linear") -> Linear:
    """Fresh weights (g, s, k, d) for a seed per group, the same for all settings.

    kind    "uniform": in +-1/sqrt(d), as torch's linear layers; "zero"
    part    the name of the layer within the probe

    They depend on the seed and their number alone: layers that put out the same have the same probes, whatever they are
    called, and the other layers that are probed change nothing.
    """
    weights, biases = torch.zeros(len(seeds), settings, classes, dim), torch.zeros(len(seeds), settings, classes)
    if kind == "uniform":
        bound = 1 / math.sqrt(dim)
        for group, seed in enumerate(seeds):
            draw = generator(seed, "probe", part, dim, classes)
            weights[group] = (2 * torch.rand(classes, dim, generator=draw) - 1) * bound
            biases[group] = (2 * torch.rand(classes, generator=draw) - 1) * bound
    return Linear(weights, biases)


def initial_mlp(dim: int, hidden: int, classes: int, seeds: list[int], settings: int) -> Mlp:
    """Fresh probes with a hidden layer, each of whose layers starts as a linear probe does."""
    first = initial(dim, hidden, seeds, settings, part="hidden")
    second = initial(hidden, classes, seeds, settings, part="outer")
    return Mlp(first.weights, first.biases, second.weights, second.biases)


class Stack:
    """Probes (g, s) in training: `step` is one update of all of them."""

    def __init__(
        self,
        start: Probes,
        settings: list[Setting],
        solver: str = "adam",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        self.probes: Probes = combined(lambda values: values[0].clone(), [start])
        self.settings = settings
        self.values: list[Tensor] = list(vars(self.probes).values())
        self.penalised = ["biases" not in field.name for field in fields(start)]
        self.solver, self.momentum, self.weight_decay, self.steps = solver, momentum, weight_decay, 0
        self.rates = [_rate(setting) for setting in settings]
        device = self.values[0].device
        self.lr = torch.tensor(self.rates, device=device)
        self.l1 = torch.tensor([setting.l1 for setting in settings], device=device)
        self.l2 = torch.tensor([setting.l2 for setting in settings], device=device)
        self.norm = torch.tensor([setting.norm for setting in settings], device=device)
        self.norms = any(setting.norm for setting in settings)
        self.penalties = bool((self.l1 != 0).any() or (self.l2 != 0).any())
        self.state = [[torch.zeros_like(value) for _ in range(2 if solver == "adam" else 1)] for value in self.values]
        self.room = torch.empty_like(self.values[0])

    def step(self, features: Tensor, labels: Tensor, rate: float = 1.0) -> None:
        """One update from features (g, b, d) and labels (g, b); `rate` is a factor of every learning rate."""
        self.steps += 1
        slopes = self.probes.slopes(features, labels, self.room)
        if self.norms:
            self._add_slopes_of_norms(slopes)
        for value, slope, state, penalised in zip(self.values, slopes, self.state, self.penalised, strict=True):
            update = self._together if value.is_cuda or value[0, 0].numel() < LARGE else self._one_by_one
            update(value, slope, state, penalised and self.penalties, rate)

    def now(self) -> Probes:
        """A copy of the probes as they are now."""
        return combined(lambda values: values[0].clone(), [self.probes])

    def _add_slopes_of_norms(self, slopes: list[Tensor]) -> None:
        """Adds norm W / |W|, the gradient of the norm of each probe's weights, 0 where they are, to their slopes."""
        weights = [(value, slope) for value, slope, one in zip(self.values, slopes, self.penalised, strict=True) if one]
        lengths = torch.stack([value.flatten(2).square().sum(2) for value, _ in weights]).sum(0).sqrt()
        factors = (self.norm / lengths.clamp_min(torch.finfo(lengths.dtype).tiny))[..., None, None]
        for value, slope in weights:
            slope += factors * value

    def _together(self, value: Tensor, slope: Tensor, state: list[Tensor], penalised: bool, rate: float) -> None:
        """One update of all probes (g, s, ...) in the same operations."""
        lr, l1, l2 = (of_setting.view(1, -1, *[1] * (value.ndim - 2)) for of_setting in (self.lr * rate, self.l1, self.l2))
        if penalised:
            slope += l1 * value.sign() + l2 * value  # the gradient of l1 |W|_1 + l2/2 |W|^2
        if self.weight_decay:
            slope += self.weight_decay * value
        if self.solver == "sgd":
            state[0].mul_(self.momentum).add_(slope)
            value -= lr * state[0]
            return
        mean, square = state  # Kingma & Ba 2015, with torch's constants and order of operations
        mean.lerp_(slope, 0.1)
        square.mul_(0.999).addcmul_(slope, slope, value=0.001)
        spread = (square.sqrt() / math.sqrt(1 - 0.999**self.steps)).add_(1e-8)
        value -= lr / (1 - 0.9**self.steps) * mean / spread

    def _one_by_one(self, value: Tensor, slope: Tensor, state: list[Tensor], penalised: bool, rate: float) -> None:
        """The same by torch's fused kernels, which take one setting at a time and add l2 W as weight decay."""
        for s, setting in enumerate(self.settings):
            of_setting, slopes, *states = ([tensor[s] for tensor in part] for part in (value, slope, *state))
            if penalised and setting.l1:
                for group, its_slope in zip(of_setting, slopes, strict=True):
                    for weights, part in zip(*(whole.view(-1).split(LARGE) for whole in (group, its_slope)), strict=True):
                        part.add_(weights.sign(), alpha=setting.l1)
            lr, decay = self.rates[s] * rate, self.weight_decay + penalised * setting.l2
            if self.solver == "sgd":
                sgd(
                    of_setting,
                    slopes,
                    list(states[0]),
                    fused=True,
                    weight_decay=decay,
                    momentum=self.momentum,
                    lr=lr,
                    dampening=0,
                    nesterov=False,
                    maximize=False,
                )
            else:
                adam(
                    of_setting,
                    slopes,
                    states[0],
                    states[1],
                    [],
                    [torch.tensor(self.steps - 1.0) for _ in of_setting],
                    fused=True,
                    amsgrad=False,
                    beta1=0.9,
                    beta2=0.999,
                    lr=lr,
                    weight_decay=decay,
                    eps=1e-8,
                    maximize=False,
                )


def _rate(setting: Setting) -> float:
    if setting.lr is None:
        raise ValueError(f"{setting}: adam and sgd need a learning rate")
    return setting.lr
