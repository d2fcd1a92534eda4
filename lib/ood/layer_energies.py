"""The energy of every layer's activation, from one pass over the data (Guglielmo & Masana 2025; Liu et al. 2020, eq. 4).

E_T(a) = -T log sum_i exp(a_i / T), a the flattened output of a layer. Higher energy means more like an outlier. It is
computed inside the hook, in float32, so that memory holds n x layers x temperatures numbers and no activation.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lib.core import saved_state
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.ood.layer_detectors import Features
from lib.representations import finite

KINDS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)  # the layers that the paper looks at


def energy(activation: Tensor, temperatures: tuple[float, ...] = (1.0,)) -> Tensor:
    """Energies (b, T) of activations (b, ...), one column per temperature (each above 0); float32, or float64 as given.

    -max a - T log D <= E_T <= -max a for D activations. Differentiable.
    """
    flat = activation.flatten(1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    if flat.requires_grad and torch.is_grad_enabled():
        return torch.stack([-temperature * torch.logsumexp(flat / temperature, 1) for temperature in temperatures], 1)
    total = _exponential_sums(flat, temperatures)
    factors = -torch.tensor(temperatures, dtype=total.dtype).to(total.device, non_blocking=True)
    energies = total.log().mul_(factors)
    sound = (total > SMALL) & (total < LARGE)
    if not flat.is_cuda and bool(sound.all()):  # on a GPU a look would wait for it
        return energies
    # sums that overflowed, or that are too small to be exact, are taken again around their maximum
    exact = torch.stack([-temperature * torch.logsumexp(flat / temperature, 1) for temperature in temperatures], 1)
    return torch.where(sound, energies, exact)


SMALL, LARGE = 1e-30, 1e38  # float32 holds 1.2e-38 to 3.4e38
CHUNK = 1 << 17  # activations whose exponentials are taken at once: half a megabyte, which stays in the cache


def _exponential_sums(flat: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    """sum_i exp(a_i / T), (b, T), for activations (b, D).

    On the CPU in chunks that share one buffer: whole layers of exponentials would go through main memory.
    """
    b, d = flat.shape
    rows = b if flat.is_cuda else max(1, CHUNK // max(d, 1))
    buffer = torch.empty(min(rows, b), d, dtype=flat.dtype, device=flat.device)
    total = flat.new_empty(b, len(temperatures))
    for first in range(0, b, rows):
        chunk = flat[first : first + rows]
        exponentials = buffer[: len(chunk)]
        for column, temperature in enumerate(temperatures):
            if temperature == 1:
                torch.exp(chunk, out=exponentials)
            else:
                torch.mul(chunk, 1 / temperature, out=exponentials).exp_()
            torch.sum(exponentials, 1, out=total[first : first + rows, column])
    return total


def default_layers(network: nn.Module) -> list[str]:
    """The names of all convolutions, linear layers and batch normalisations, in registration order."""
    body = network.body if isinstance(network, Normalized) else network
    return [name for name, module in body.named_modules() if isinstance(module, KINDS)]


class Energies(NamedTuple):
    """What a pass left: names of the columns, energies (n, columns, T), logits (n, k), watched tensors (n, ...) by name."""

    columns: list[str]
    energies: np.ndarray
    logits: Tensor
    watched: dict[str, Tensor]


Watch = Callable[[Tensor, Tensor], dict[str, Tensor]]  # features (b, d), logits (b, k) -> tensors (b, ...) by name
Collect = Callable[[dict[str, Features], Tensor], dict[str, Tensor]]  # features by column, logits -> the same


@torch.no_grad()
def layer_energies(
    network: nn.Module,
    split: Split,
    layers: list[str],
    batching: Batching,
    temperatures: tuple[float, ...] = (1.0,),
    *,
    head: str = "",
    watch: Watch | None = None,
    features: Callable[[Tensor], Features] | None = None,
    collect: Collect | None = None,
    rows: saved_state.Rows | None = None,
) -> Energies:
    """One pass of the network, in eval mode and in float32, over a split; energies are float32.

    A layer that one forward pass runs again has a column `name@2` for its second output, and so on. `watch` gets, per
    batch, the input of the layer `head` and the logits, both float32 and on the device; what it makes of them is kept.
    `collect` gets, by column, what `features` made of each layer's output, and the logits, and is kept likewise.
    `rows` holds what a stopped pass over the same split, in batches of the same size, has kept: those images are not passed
    again. Raises `UserError` where the logits or an energy of an image are not finite.
    """
    network.eval()
    rows = rows or saved_state.Rows()
    heads = [head] if watch else []
    order = torch.arange(rows.count, len(split))
    with (
        cutting.record(
            network, layers, reduce=lambda output: (energy(output, temperatures), features(output) if features else None)
        ) as outputs,
        cutting.record(network, heads, inputs=True) as seen,
    ):

        def forward(images: Tensor, labels: Tensor, positions: Tensor) -> tuple[list[str], dict[str, Tensor]]:
            logits = cutting.outputs(network, images).float()
            columns = rows.about["columns"] if rows.about else _columns(layers, outputs)
            energies = torch.stack([outputs[name][0] for name in columns], 1)
            watched = watch(seen[head].float(), logits) if watch else {}
            if collect:
                watched |= collect({name: outputs[name][1] for name in columns}, logits)
            return columns, {"energies": energies, "logits": logits, **watched}

        try:
            for _, (columns, made) in batching.each(split, split.name, forward, order=order if rows.count else None):
                rows.about = {"columns": columns}
                rows.add(**made)
        finally:
            rows.keep()
    watched = rows.whole()
    found, answers, names = watched.pop("energies"), watched.pop("logits"), rows.about["columns"]
    for column, name in enumerate(names):
        finite.check(found[:, column], f"the energies of layer {name}", split)
    finite.check(answers, "the network's logits", split)
    return Energies(names, found.numpy(), answers, watched)


def _columns(layers: list[str], outputs: Mapping[str, object]) -> list[str]:
    """The names of the columns; raises `UserError` for a layer that did not run."""
    if missing := [name for name in layers if name not in outputs]:
        raise UserError(f"layer {missing[0]} does not run in a forward pass, so it has no energy")
    return [key for name in layers for key in outputs if key.partition("@")[0] == name]


def choose(network: Normalized, listed: list[cutting.Layer], patterns: tuple[str, ...]) -> list[str]:
    """The layers that `--layers` names, in registration order; those without an energy are refused only by name."""
    order = [name for name, _ in network.body.named_modules() if name]
    usable = {layer.name for layer in listed if not layer.untapped}
    if not patterns:
        chosen = [name for name in default_layers(network) if name in usable]
        cutting.warn_of_mixing(listed, chosen)
        return chosen
    run = {layer.name for layer in listed}
    for pattern in patterns:
        if pattern in order and pattern not in run:
            raise UserError(f"--layers {pattern}: it does not run by itself in a forward pass, so it has no energy")
    return sorted(cutting.tapped(listed, patterns), key=order.index)
