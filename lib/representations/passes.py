"""Features of named layers from one pass over the data.

A representation is what a layer puts out, made a vector per image by a reducer. The pass ends behind the deepest layer
that was asked for: nothing after it is computed.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lib.core.errors import UserError
from lib.core.progress import image_bar
from lib.datasets.split import Split
from lib.models import cutting

Reducer = Callable[[Tensor], Tensor]


def flatten(output: Tensor) -> Tensor:
    """(b, ...) -> (b, d): all activations, channels first."""
    return output.flatten(1)


@torch.no_grad()
def represent(
    network: nn.Module,
    split: Split,
    layers: list[str],
    reduce: Reducer = flatten,
    *,
    batch_size: int,
    channels: int | None = None,
    size: int | None = None,
    workers: int = 0,
    prefetch: int = 2,
    quiet: bool = False,
    label: str = "",
) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    """Per batch: layer -> features (b, d) float32, labels (b,), both on the network's device, and positions (b,).

    The network is put in eval mode. Raises `UserError` for a layer that does not exist or does not run.
    """
    device = next(network.parameters()).device
    network.eval()
    batches = split.batches(batch_size, device=device, channels=channels, size=size, workers=workers, prefetch=prefetch)
    with cutting.record(network, layers, reduce=lambda output: reduce(output).float().clone(), stop=True) as outputs:
        for images, labels, positions in image_bar(batches, len(split), batch_size, label=label or split.name, quiet=quiet):
            cutting.run(network, images)
            missing = [layer for layer in layers if layer not in outputs]
            if missing:
                raise UserError(f"layer {missing[0]} does not run in a forward pass, so it has no features")
            yield {layer: outputs[layer] for layer in layers}, labels, positions


def features(network: nn.Module, split: Split, layer: str, reduce: Reducer = flatten, **options) -> Tensor:
    """The features (n, d) of one layer for a whole split, float32 on the CPU, in the split's order."""
    return torch.cat([found[layer].cpu() for found, _, _ in represent(network, split, [layer], reduce, **options)])
