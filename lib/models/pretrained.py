"""Published weights: torchvision's `DEFAULT` and timm's, loaded into a network that was already built."""

import sys
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.core.errors import UsageError, UserError


class _Published(NamedTuple):
    """Tensors by key, the number of classes of the head, and the normalisation: mean and deviation per channel."""

    state: dict[str, Tensor]
    head: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load(
    network: nn.Module, source: str, classes: int, channels: int, image_size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Copy the weights of `source` ("tv:<name>" or "timm:<name>") into `network`, in place.

    The head stays as drawn where the weights are for another number of classes; nothing else may be missing. Returns the
    (mean, std), a number per channel, with which images in [0, 1] have to be normalised.
    """
    library, _, name = source.partition(":")
    fetch = _torchvision if library == "tv" else _timm
    with torch.random.fork_rng(devices=[]):
        published = fetch(name, classes, channels, image_size)
    theirs, head = published.state, published.head
    ours, taken = network.state_dict(), {}
    for key, value in ours.items():
        fits = key in theirs and theirs[key].shape == value.shape
        if not fits and not (head != classes and key in theirs and theirs[key].shape[:1] == (head,)):
            wanted = f"{channels}-channel images of {image_size} x {image_size}"
            raise UserError(f"--pretrained: the weights of {source} do not fit a network for {wanted} ({key} differs)")
        if fits:
            taken[key] = theirs[key]
    network.load_state_dict(taken, strict=False)
    if head != classes:
        warnings.warn(f"the weights of {source} are for {head} classes: the head for {classes} is new", stacklevel=2)
    return published.mean, published.std


def _torchvision(name: str, classes: int, channels: int, image_size: int) -> _Published:
    from torchvision import models

    weights = models.get_model_weights(name)["DEFAULT"]
    folder = f"{torch.hub.get_dir()}/checkpoints/"
    source = _downloaded(
        lambda: models.get_model(name, weights=weights, progress=sys.stderr.isatty()),
        f"tv:{name}",
        f"fetch {weights.url} into {folder} on a machine with a network",
    )
    transform = weights.transforms()
    mean, std = tuple(transform.mean), tuple(transform.std)
    if getattr(source, "transform_input", False):
        # GoogLeNet and Inception turn ImageNet's normalisation into (x - 0.5) / 0.5 inside, when loaded with weights.
        mean = std = (0.5,) * 3
    return _Published(source.state_dict(), len(weights.meta["categories"]), mean, std)


def _timm(name: str, classes: int, channels: int, image_size: int) -> _Published:
    from timm.models import get_pretrained_cfg, is_model_pretrained

    from lib.models.external import timm_network

    published = get_pretrained_cfg(name) if is_model_pretrained(name) else None
    if published is None:
        raise UserError(f"--pretrained: timm publishes no weights for {name}")
    source = _downloaded(
        lambda: timm_network(name, classes, channels, image_size, pretrained=True),
        f"timm:{name}",
        "run once on a machine with a network and copy its Hugging Face cache",
    )
    # timm has adapted first convolution, positions and head itself; its new head is as good as ours.
    mean, std = tuple(published.mean), tuple(published.std)
    if channels != len(mean):
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return _Published(source.state_dict(), published.num_classes, mean, std)


def _downloaded(make: Callable[[], nn.Module], source: str, way_out: str) -> nn.Module:
    try:
        return make()
    except UsageError:
        raise
    # The libraries' clients raise errors of many kinds when there is no network; all mean the same here.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        message = f"--pretrained: the weights of {source} could not be downloaded ({reason}); {way_out}"
        raise UserError(message) from error
