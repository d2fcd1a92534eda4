"""The layers of a network that have filters, numbered as the hyperplanes paper numbers them (section 2.3)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib import models
from lib.core.errors import UserError
from lib.models import cutting
from lib.models.checkpoints import Description
from lib.models.normalized import Normalized


@dataclass(frozen=True)
class Filters:
    """A layer with filters. `stage` counts the max-pools before it, `block` the layers since; None where it is skipped."""

    name: str
    kind: str
    stage: str | None
    block: str | None


def layers(network: Normalized, *, with_linear: bool = False, with_1x1: bool = False) -> list[Filters]:
    """Convolutions, on request linear layers and 1x1 convolutions, in registration order.

    1x1 convolutions take no number, so that the others' do not depend on the request. Raises `UserError` if there is no
    such layer.
    """
    with_filters = list(_walk(network.body, with_linear, with_1x1))
    if not with_filters:
        raise UserError(
            "the network has no convolution of more than one pixel; --with-linear takes its linear layers, "
            "--with-1x1 its 1x1 convolutions"
        )
    return with_filters


def sharing(body: nn.Module, names: Iterable[str]) -> set[str]:
    """The other modules that hold a parameter of one of these modules themselves, by the very same tensor."""
    owners: dict[int, set[str]] = {}
    for name, module in body.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(name)
    names = set(names)
    return set().union(*(together for together in owners.values() if together & names)) - names


def norms(network: Normalized, description: Description) -> dict[str, tuple[str, float]]:
    """Layer -> the batch normalisation behind it and its epsilon, for a network on the device "meta"."""
    size = description.image_size or models.accepted_size(description.architecture, 32)
    images = torch.zeros(1, description.channels, size, size, device=next(network.parameters()).device)
    modules = dict(network.body.named_modules())
    behind = cutting.followers(network, images, _BatchNorm)
    return {
        name: (norm, modules[norm].eps) for name, norm in behind.items() if isinstance(modules[name], nn.Conv2d | nn.Linear)
    }


def _walk(body: nn.Module, with_linear: bool, with_1x1: bool) -> Iterator[Filters]:
    stage = block = 0
    for name, module in body.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.MaxPool2d):
            stage, block = stage + 1, 0
        elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            if with_1x1:
                yield Filters(name, kind, None, None)
        elif isinstance(module, nn.Conv2d) or with_linear and isinstance(module, nn.Linear):
            yield Filters(name, kind, str(stage), str(block))
            block += 1
