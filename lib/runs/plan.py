"""What `--plan` prints for runs of networks on data: passes, layers, memory.

Networks are built and tried on one blank image, data sets are looked up and not read.
"""

from collections.abc import Callable

import torch
from torch import nn

from lib.datasets import catalogue
from lib.datasets.names import parse
from lib.models import cutting
from lib.models.checkpoints import Description
from lib.runs import loading
from lib.runs.network_flags import CheckpointsConfig

MIB = 2**20


def of_checkpoints(
    config: CheckpointsConfig, networks: list[tuple[str, str, Callable | None]], data: tuple[str, ...], passes: str
) -> list[str]:
    """Lines about passes, networks and data sets.

    networks   (path, type, `choose(checkpoint, listed)` -> the names of the layers that are looked at, or None)
    data       names of data sets; the one that a network was trained on where a name is empty
    """
    lines, trained_on = [f"passes:     {passes}"], ""
    for path, kind, choose in networks:
        checkpoint = loading.load_checkpoint(config, path, kind)
        trained_on = trained_on or checkpoint.description.dataset
        listed = _listed(checkpoint.network, checkpoint.description)
        lines.append(f"network:    {path}: {about(checkpoint.network, checkpoint.description.architecture, listed)}")
        if choose is not None:
            chosen = choose(checkpoint, listed)
            lines.append(f"layers:     {len(chosen)}: {', '.join(chosen)}")
        lines.append(f"memory:     {memory(checkpoint.network, listed, config.batch_size)}")
    named = dict.fromkeys(name or trained_on for name in data)
    return lines + [f"data:       {name}{_count(name)}" for name in named if name]


def of_training(body: nn.Module, description: Description, dataset: str, batch_size: int, epochs: str) -> list[str]:
    """The lines for training a network, with the activations of a whole batch kept for the backward pass."""
    listed = _listed(body, description)
    data = dataset if "=" in dataset else f"{dataset}:train"
    return [
        f"passes:     {epochs}",
        f"network:    {about(body, description.architecture, listed)}",
        f"memory:     {memory(body, listed, batch_size, training=True)}",
        f"data:       {data}{_count(data)}",
    ]


def about(body, architecture: str, listed: list) -> str:
    """One line: type, parameters, work per image, layers."""
    count = sum(parameter.numel() for parameter in body.parameters())
    macs = sum(layer.macs for layer in listed)
    cuts = sum(layer.cut for layer in listed)
    return f"{architecture}, {count:,} parameters, {macs / 1e6:.1f} M MAC an image; {len(listed)} layers, {cuts} cuts"


def memory(body, listed: list, batch_size: int, training: bool = False) -> str:
    """One line: weights, and what a batch of float32 activations takes, of all layers in training, else of the largest."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in body.state_dict().values()) / MIB
    sizes = [torch.Size(layer.shape).numel() for layer in listed if layer.shape]
    held = (sum(sizes) if training else max(sizes)) * batch_size * 4 / MIB
    if training:
        return (
            f"at most {4 * weights:.1f} MiB of weights, gradients and optimiser, {held:.1f} MiB of activations per "
            f"batch of {batch_size}"
        )
    return f"{weights:.1f} MiB of weights, {held:.1f} MiB per batch of {batch_size} for the largest activation"


def _listed(body, description) -> list:
    size = description.image_size or 32
    device = next(body.parameters()).device
    return cutting.layers(body, torch.zeros(1, description.channels, size, size, device=device))


def _count(name: str) -> str:
    """How many images a data set has, where that is known without reading it."""
    data = parse(name)
    known = catalogue.KNOWN.get(data.base)
    if known is None or not known.sizes or data.unseen:
        return ""
    sizes = dict(zip(known.splits or ("all",), known.sizes, strict=False))
    return f": {sizes.get(data.split or 'test', sum(known.sizes)):,} images"
