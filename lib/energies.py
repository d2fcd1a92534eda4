"""The energy of every layer's activation, from one pass over the data (Guglielmo & Masana 2025; Liu et al. 2020, eq. 4).

E_T(a) = -T log sum_i exp(a_i / T), a the flattened output of a layer. Higher energy means more like an outlier. It is
computed inside the hook, in float32, so that memory holds n x layers x temperatures numbers and no activation.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from lib import graph
from lib.datasets.split import Split
from lib.errors import UserError
from lib.progress import bar

KINDS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)  # the layers that the paper looks at


def energy(activation: Tensor, temperatures: tuple[float, ...] = (1.0,)) -> Tensor:
    """Energies (b, T) of activations (b, ...), one column per temperature (each above 0); float32, or float64 as given.

    -max a - T log D <= E_T <= -max a for D activations.
    """
    flat = activation.flatten(1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    columns = []
    for temperature in temperatures:
        total = (flat / temperature if temperature != 1 else flat).exp().sum(1)
        columns.append(-temperature * total.log())
        # sums that overflowed, or that are too small to be exact, are taken again around their maximum
        if not bool(((total > SMALL) & (total < LARGE)).all()):
            columns[-1] = -temperature * torch.logsumexp(flat / temperature, 1)
    return torch.stack(columns, 1)


SMALL, LARGE = 1e-30, 1e38  # float32 holds 1.2e-38 to 3.4e38


def default_layers(network: nn.Module) -> list[str]:
    """The names of all convolutions, linear layers and batch normalisations, in registration order."""
    body = network.body if isinstance(network, graph.Normalized) else network
    return [name for name, module in body.named_modules() if isinstance(module, KINDS)]


@torch.no_grad()
def layer_energies(network: nn.Module, split: Split, layers: list[str], temperatures: tuple[float, ...] = (1.0,), *,
                   batch_size: int, channels: int | None = None, size: int | None = None, workers: int = 0,
                   prefetch: int = 2, quiet: bool = False) -> tuple[list[str], np.ndarray, Tensor]:
    """One pass of the network, in eval mode, over a split.

    Returns the names of the columns, energies (n, columns, T) in float32, and the logits (n, k). A layer that one
    forward pass runs again has a column `name@2` for its second output, and so on.
    """
    device = next(network.parameters()).device
    network.eval()
    n, names, energies, logits = len(split), [], None, []
    batches = split.batches(batch_size, device=device, channels=channels, size=size, workers=workers, prefetch=prefetch)
    begin = 0
    with graph.record(network, layers, reduce=lambda output: energy(output, temperatures)) as outputs:
        for images, _, _ in bar(batches, total=math.ceil(n / batch_size), label=split.name, quiet=quiet):
            logits.append(network(images).float())
            if energies is None:
                missing = [name for name in layers if name not in outputs]
                if missing:
                    raise UserError(f"layer {missing[0]} does not run in a forward pass, so it has no energy")
                names = [key for name in layers for key in outputs if key.partition("@")[0] == name]
                energies = torch.empty(n, len(names), len(temperatures), device=device)
            energies[begin:begin + len(images)] = torch.stack([outputs[name] for name in names], 1)
            begin += len(images)
    return names, energies.cpu().numpy(), torch.cat(logits).cpu()
