"""What `--plan` prints for runs of networks on data: passes, layers, memory.

Networks are built and tried on one blank image, data sets are looked up and not read.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from lib.core import devices
from lib.core.text import duration
from lib.datasets import catalogue, names
from lib.datasets.names import parse
from lib.models import cutting
from lib.models.checkpoints import Description
from lib.models.cutting import Layer
from lib.runs import loading
from lib.runs.cli import DeviceConfig
from lib.runs.network_flags import CheckpointsConfig

MIB = 2**20
MOST = 8  # data sets that are named
TIMED = 0.5  # seconds that the timed batch is to take about


def of_checkpoints(
    config: CheckpointsConfig,
    networks: list[tuple[str, str, Callable | None]],
    data: tuple[str, ...],
    passes: str,
    *,
    besides: str = "",
    values: Callable[[Layer], int] = lambda layer: math.prod(layer.shape),
    kept: int = 0,
) -> list[str]:
    """Lines about passes, networks, data sets, disk and time.

    networks   (path, type, `choose(checkpoint, listed)` -> the names of the layers that are looked at, or None)
    data       names of data sets; the one that a network was trained on where a name is empty
    besides    what takes time, too, and is not in the estimate
    values     how many numbers are taken from a layer for an image
    kept       bytes of each of them that are kept on disk, 0 where features are not kept
    """
    lines, trained_on, per_image, on_disk = [f"passes:     {passes}"], "", [], 0
    for path, kind, choose in networks:
        checkpoint = loading.load_checkpoint(config, path, kind)
        described = checkpoint.description
        trained_on = trained_on or described.dataset
        listed = _listed(checkpoint.network, described)
        lines.append(f"network:    {path}: {about(checkpoint.network, described.architecture, listed)}")
        if choose is not None:
            chosen = choose(checkpoint, listed)
            sizes = {layer.name: values(layer) for layer in listed if layer.name in chosen}
            lines.append(f"layers:     {len(chosen)}: {', '.join(chosen)}")
            lines.append(f"features:   {features(sizes)}")
            on_disk += kept * sum(sizes.values())
        lines.append(f"memory:     {memory(checkpoint.network, listed, config.batch_size)}")
        per_image.append(seconds_per_image(config, checkpoint.network, described, config.batch_size))
    named = {name: images(name, config.max_examples) for name in dict.fromkeys(name or trained_on for name in data) if name}
    lines += [f"data:       {_counted(name, count)}" for name, count in [*named.items()][:MOST]]
    total = _sum(named.values())
    if len(named) > MOST:
        lines.append(f"data:       {_counted(f'{len(named) - MOST} more sets, in all', total)}")
    if on_disk:
        size = "unknown, as nothing says how many images there are" if total is None else _bytes(total * on_disk)
        lines.append(f"disk:       features under {config.cache_dir}: at most {size}")
    return [*lines, f"time:       {_estimate(config, named, sum(per_image), besides)}"]


def of_training(
    config: DeviceConfig, body: nn.Module, description: Description, data: Mapping[str, int | None], epochs: int, cost: int
) -> list[str]:
    """The lines for training a network, with the activations of a whole batch kept for the backward pass.

    data   images of an epoch, and of the pass that follows it, by the names of their sets; None where that is not known
    cost   passes forward and backward over a training image
    """
    listed = _listed(body, description)
    forward = seconds_per_image(config, body, description, config.batch_size)
    both = seconds_per_image(config, body, description, config.batch_size, training=True)
    counts = [count for count in data.values() if count is not None]
    if len(counts) < len(data):
        estimate = "unknown, as nothing says how many images there are before they are read"
    else:
        epoch = counts[0] * both * cost + sum(counts[1:]) * forward
        estimate = f"about {duration(epochs * epoch)} in all, {duration(epoch)} an epoch, {_timed(config)}"
    return [
        f"passes:     {epochs} epochs of training, each followed by one over the validation images",
        f"network:    {about(body, description.architecture, listed)}",
        f"memory:     {memory(body, listed, config.batch_size, training=True)}",
        *(f"data:       {_counted(name, count)}" for name, count in data.items()),
        f"time:       {estimate}",
    ]


def of_checkpoint_files(body: nn.Module, count: int, states: int) -> str:
    """The line on so many checkpoints, and on resume.pt, with an optimiser that keeps so many numbers of each weight."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in body.state_dict().values())
    return f"disk:       {count} checkpoints of {_bytes(weights)}, and resume.pt of {_bytes((1 + states) * weights)}"


def features(sizes: Mapping[str, int]) -> str:
    """One line: the bytes that an image's features take in float32, in all and by layer."""
    each = ", ".join(f"{name} {_bytes(4 * size)}" for name, size in sizes.items())
    return f"{_bytes(4 * sum(sizes.values()))} an image in float32: {each}"


def seconds_per_image(
    config: DeviceConfig, body: nn.Module, description: Description, batch_size: int, training: bool = False
) -> float:
    """What an image takes, from a timed batch of noise on the device of the run; forward, and in training backward, too.

    The batch is smaller than `batch_size` where that would take long.
    """
    device = devices.device(config.gpu)
    precision = devices.resolve_precision(config.precision, device, training)
    size = description.image_size or 32
    body = body.to(device).train(training)
    was = {name: value.clone() for name, value in body.named_buffers()} if training else {}

    def once(count: int) -> float:
        batch = torch.rand(count, description.channels, size, size, device=device)
        begin = time.perf_counter()
        with torch.set_grad_enabled(training), devices.arithmetic(precision, device):
            answers = body(batch)
            if training:
                answers.float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    try:
        with torch.random.fork_rng(devices=[]):
            first = min(2, batch_size)
            alone = min(once(first), once(first))  # the first call makes what later ones find
            count = max(first, min(batch_size, int(TIMED * first / alone)))
            return (once(count) if count > first else alone) / count
    finally:
        body.zero_grad(set_to_none=True)
        for name, value in body.named_buffers():
            if name in was:
                value.copy_(was[name])
        body.eval()


def images(name: str, most: int | None = None) -> int | None:
    """How many images a data set has, or all sets that a name such as digits-c is of; None where it does not say that."""
    total = 0
    for one in names.expand(name):
        data = parse(one)
        known = catalogue.KNOWN.get(data.base)
        if known is None or not known.sizes or data.unseen or data.kept or data.features is not None:
            return None
        count = dict(zip(known.splits or ("all",), known.sizes, strict=False)).get(data.split or "test", sum(known.sizes))
        total += count if most is None else min(count, most)
    return total


def _sum(counts: Iterable[int | None]) -> int | None:
    found = list(counts)
    return None if None in found else sum(count for count in found if count is not None)


def _counted(name: str, count: int | None) -> str:
    return name if count is None else f"{name}: {count:,} images"


def _estimate(config: DeviceConfig, data: Mapping[str, int | None], per_image: float, besides: str) -> str:
    """What the passes take, one over each data set; and what is not in it."""
    total = _sum(data.values())
    rest = f"; besides, {besides}: unknown" if besides else ""
    if total is None:
        return f"unknown, as nothing says how many images there are before they are read{rest}"
    return f"about {duration(total * per_image)} of passes, {_timed(config)}{rest}"


def _timed(config: DeviceConfig) -> str:
    device = devices.device(config.gpu)
    return f"from a timed batch on {'the CPU' if device.type == 'cpu' else torch.cuda.get_device_name(device)}"


def _bytes(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("GiB have no upper limit")


def about(body, architecture: str, listed: list) -> str:
    """One line: type, parameters, work per image, layers."""
    count = sum(parameter.numel() for parameter in body.parameters())
    macs = sum(layer.own_macs for layer in listed)
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
