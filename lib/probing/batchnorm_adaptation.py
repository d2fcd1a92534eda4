"""Batch normalisation adapted to a shift: statistics from the shifted images, which need no labels.

Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation", NeurIPS 2020, with no
weight on the training statistics.
"""

import contextlib
from collections.abc import Generator, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib.reinit.batchnorm import norms_in_training


@contextlib.contextmanager
@torch.no_grad()
def adapted(network: nn.Module, batches: Iterable[Tensor]) -> Generator[nn.Module]:
    """The network, in eval mode, with the running statistics of every batch normalisation estimated on batches of images.

    They are averages over batches that are each normalised by their own; afterwards those from before are back.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    try:
        with norms_in_training(norms):
            for norm in norms:
                norm.reset_running_stats()
            for images in batches:
                network(images)
        yield network
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
