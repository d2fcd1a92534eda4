"""Folding a pool that copies one position to many into the linear layer behind it: fewer products, the same logits."""

import copy

import torch
from torch import Tensor, nn

from lib.core.errors import UserError
from lib.models import cutting
from lib.models.normalized import Normalized


def fold(network: Normalized, images: Tensor) -> tuple[Normalized, str, int]:
    """The network without its average pool that copies one position to many, that pool being folded into the next layer.

    Where VGGs take 32 px, the 7x7 pool is given 1x1 maps; the first linear layer then sums its weights over the 49 equal
    inputs. Returns the network, which shares all other tensors with the given one, the linear layer's name, and how many
    positions were folded; its logits on `images` (b, c, h, w) are equal up to rounding. Raises `UserError` where there
    is no such pool.
    """
    listed = cutting.layers(network, images)
    modules = dict(network.body.named_modules())
    shapes = {layer.name: layer.shape for layer in listed}
    pools = [layer for layer in listed if isinstance(modules[layer.name], nn.AdaptiveAvgPool2d)]
    with cutting.record(network, [pool.name for pool in pools], inputs=True) as entering, torch.no_grad():
        expected = network(images)
    for pool in pools:
        channels, height, width = shapes[pool.name]
        behind = [layer.name for layer in listed if layer.index > pool.index and isinstance(modules[layer.name], nn.Linear)]
        wanted = channels * height * width
        if entering[pool.name].shape[-2:] != (1, 1) or not behind or modules[behind[0]].in_features != wanted > channels:
            continue
        # a copy of the modules around the same tensors
        tensors = {id(value): value for value in (*network.parameters(), *network.buffers())}
        folded = copy.deepcopy(network, tensors)
        linear = modules[behind[0]]
        short = nn.Linear(channels, linear.out_features, bias=linear.bias is not None, device=linear.weight.device)
        short.weight = nn.Parameter(folded_weight(linear.weight, height * width))
        short.bias = linear.bias
        folded.body.set_submodule(behind[0], short)
        folded.body.set_submodule(pool.name, nn.AdaptiveAvgPool2d(1))
        with torch.no_grad():
            if torch.allclose(folded(images), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item()):
                return folded, behind[0], height * width
    raise UserError(
        "--fold-pool: the network has no average pool that copies one position to many before a linear layer, "
        "as VGGs have for 32 px"
    )


def folded_weight(weight: Tensor, positions: int) -> Tensor:
    """(out, c * positions) -> (out, c): the sum over positions, for inputs that are equal in all of them."""
    return weight.detach().unflatten(1, (-1, positions)).sum(2)
