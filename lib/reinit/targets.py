"""What a re-initialised layer consists of: the tensors that are replaced, and the cuts between which they run."""

import warnings
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib.core.errors import UserError
from lib.models import cutting, filters
from lib.models.normalized import Normalized

State = dict[str, Tensor]
Cells = list[list[State | None]]  # of every layer and source what it puts there; None is a cell without effect


@dataclass(frozen=True)
class Target:
    """A layer, the keys of its tensors in the state dict, and the cuts around it.

    start   the last cut before anything of the layer, or with its weights, runs; None where that is the images
    end     the first cut when all of it has run for the last time; None where that is the output
    """

    layer: str
    keys: tuple[str, ...]
    start: str | None
    end: str | None


def find(network: Normalized, images: Tensor, layers: list[str], with_norms: bool) -> list[Target]:
    """What is replaced for each layer, in execution order; `images` (b, c, h, w) is run once.

    Of a layer its own parameters and those of its parts but for batch normalisations; `with_norms` these too, the one
    that takes the layer's output, and the running statistics of all of them. Warns of layers that share weights with others.
    Raises `UserError` for a layer that owns nothing of that kind or does not run.
    """
    listed = {layer.name: layer for layer in cutting.layers(network, images)}
    behind = cutting.followers(network, images, _BatchNorm) if with_norms else {}
    cuts = [name for name, layer in listed.items() if layer.cut]
    cuts = [name for name in cuts if not any(other.startswith(name + ".") for other in cuts)]
    placed = []  # with the number in execution order of what runs first
    for layer in layers:
        keys = _keys(network.body, layer, behind.get(layer), with_norms)
        modules = {key.rpartition(".")[0] for key in keys}
        sharing = filters.sharing(network.body, modules)
        numbers = [run.index for name in modules | sharing if name in listed for run in listed[name].runs]
        if not keys or not numbers:
            kind = type(network.body.get_submodule(layer)).__name__
            raise UserError(f"--layers {layer}: {kind} " + ("owns no weights" if not keys else "does not run by itself"))
        if sharing:
            others = ", ".join(sorted(sharing))
            warnings.warn(f"layer {layer} shares weights with {others}: resetting one resets the other", stacklevel=2)
        before = [name for name in cuts if listed[name].runs[0].index < min(numbers)]
        after = [name for name in cuts if listed[name].runs[0].index >= max(numbers)]
        placed.append((min(numbers), Target(layer, keys, before[-1] if before else None, after[0] if after else None)))
    return [target for _, target in sorted(placed, key=lambda pair: pair[0])]


def _keys(body: nn.Module, layer: str, norm: str | None, with_norms: bool) -> tuple[str, ...]:
    """The state-dict keys that are replaced together with a layer."""
    own = body.get_submodule(layer)
    roots = [layer] + ([norm] if norm else [])
    keys = []
    for root in roots:
        for name, module in body.get_submodule(root).named_modules(prefix=root):
            if isinstance(module, _BatchNorm) and not with_norms and module is not own:
                continue
            keys += [f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)]
            if with_norms:
                keys += [f"{name}.{key}" for key, value in module.named_buffers(recurse=False) if value.ndim]
    return tuple(dict.fromkeys(keys))


def choose(network: Normalized, images: Tensor, patterns: tuple[str, ...]) -> list[str]:
    """The layers that `--layers` names; without it the convolutions that the paper resets."""
    if not patterns:
        return [layer.name for layer in filters.layers(network)]
    modules = {name: module for name, module in network.body.named_modules() if name}
    owning = [name for name, module in modules.items() if next(module.parameters(), None) is not None]
    for pattern in patterns:
        if pattern in modules and pattern not in owning:
            raise UserError(f"--layers {pattern}: {type(modules[pattern]).__name__} owns no weights")
    listed = cutting.layers(network, images)
    leaves = [name for name in owning if next(modules[name].parameters(recurse=False), None) is not None]
    run = {layer.name for layer in listed}
    return cutting.select(owning, patterns, cutting.groups(listed, [name for name in leaves if name in run]))
