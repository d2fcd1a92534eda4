"""A repeated forward pass in train mode, which is computed only where its result could differ."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def repeatable(network: nn.Module, images: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """What the network puts out for the images (b, ...), and a function that passes them through it once more.

    The function moves running statistics of batch normalisations as another pass would, by the same batch's statistics, and
    answers with the first pass's outputs. Where that drew random numbers, as dropout does, or changed other buffers, the
    function runs the network again.
    """
    moving = [module for module in network.modules() if isinstance(module, _BatchNorm) and _moves(module)]
    known = {id(value) for module in moving for value in module.buffers(recurse=False)}
    others = [value for value in network.buffers() if id(value) not in known]
    before = [[running.detach().clone() for running in _running(module)] for module in moving]
    state = _random_state(images), [value._version for value in others]
    outputs = network(images)
    averaged = any(module.momentum is None for module in moving)  # over all passes: each has another weight
    if averaged or (_random_state(images), [value._version for value in others]) != state:
        return outputs, lambda: network(images)
    added: list[tuple[Tensor, float, Tensor]] = []
    for module, first in zip(moving, before, strict=True):
        kept = 1 - (module.momentum or 0.0)
        added += [
            (running, kept, running.detach() - kept * old) for running, old in zip(_running(module), first, strict=True)
        ]

    def again() -> Tensor:
        for running, kept, part in added:
            running.data.mul_(kept).add_(part)  # `data`: autograd need not know, as it does not of a pass
        for module in moving:
            if module.num_batches_tracked is not None:
                module.num_batches_tracked.data.add_(1)
        return outputs

    return outputs, again


def _moves(module: _BatchNorm) -> bool:
    return module.training and module.track_running_stats and module.running_mean is not None


def _running(module: _BatchNorm) -> list[Tensor]:
    return [running for running in (module.running_mean, module.running_var) if running is not None]


def _random_state(images: Tensor) -> list[bytes]:
    """The states of the generators that layers draw from."""
    states = [torch.get_rng_state()]
    if images.is_cuda:
        states.append(torch.cuda.get_rng_state(images.device))
    return [state.numpy().tobytes() for state in states]
