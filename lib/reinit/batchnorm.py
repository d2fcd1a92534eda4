"""Estimates running statistics of batch normalisation again for every cell."""

import contextlib
from collections.abc import Generator, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from lib.reinit.stages import cut_stages, walk
from lib.reinit.targets import Cells, Target


@torch.no_grad()
def recalibrated(network: nn.Module, batches: list[Tensor], units: list[Target], cells: Cells) -> Cells:
    """The cells with the running statistics of every batch normalisation from the layer's block on, estimated anew.

    They are averages over the batches of images (b, c, h, w), each normalised by its own statistics as in training, with
    the cell's weights in place. What lies before the block keeps its statistics: nothing has changed there.
    """
    estimated = [list(row) for row in cells]
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    stages, _ = cut_stages(network, units, False)
    for stage, activations in walk(stages, batches):
        inside = [(name, module) for name, module in stage.rest.named_modules() if module in norms]
        for number in stage.units:
            for source, cell in enumerate(cells[number]):
                replaced = cell or {}
                statistics = {
                    f"{name}.{key}": torch.zeros_like(value)
                    for name, module in inside
                    for key, value in module.named_buffers()
                }
                with norms_in_training(module for _, module in inside):
                    for batch in activations:
                        functional_call(stage.rest, stage.named(replaced) | statistics, (batch,))
                estimated[number][source] = replaced | {stage.key(name): value for name, value in statistics.items()}
    return estimated


@contextlib.contextmanager
def norms_in_training(norms: Iterable[_BatchNorm]) -> Generator[None]:
    """Batch normalisations in training mode, averaging over all batches; as they were afterwards."""
    before = [(module, module.training, module.momentum) for module in norms]
    for module, _, _ in before:
        module.training, module.momentum = True, None
    try:
        yield
    finally:
        for module, training, momentum in before:
            module.training, module.momentum = training, momentum
