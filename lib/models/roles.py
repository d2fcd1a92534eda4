"""The role of a layer: `-l role:attention` selects all layers of a role, and rows state it."""

import math

from torch import nn

ROLES = ("convolution", "linear", "norm", "attention", "MLP", "block", "stage", "head", "activation", "pooling")

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


def roles(
    body: nn.Module, order: list[str], shapes: dict[str, tuple[int, ...]], answer: tuple[int, ...] | None
) -> dict[str, str]:
    """Name -> role of the modules that run, given in the order in which they finish; empty where it has none of `ROLES`.

    The head is the last module with a matrix or filters of its own, and what finishes after it, if it has as many channels
    as the network has answers and a module puts these out; else the first one after it that does. Where a function puts out
    the answers, no module is the head. A module that holds one of these alone is what that is; one that holds several is a
    block, and one that holds blocks a stage.

    shapes    of what each puts out for an image
    answer    of what the network puts out for an image; None where that is no tensor
    """
    modules = {name: body.get_submodule(name) for name in order}
    head = _head(modules, shapes, answer)
    made: dict[str, str] = {}
    for place, name in enumerate(order):  # a part finishes before its whole
        inner = [made[other] for other in order[:place] if other.startswith(name + ".")]
        direct = [made.get(f"{name}.{child}", "") for child, _ in modules[name].named_children()]
        made[name] = "head" if place >= head else _role(modules[name], inner, direct)
    return made


def _head(modules: dict[str, nn.Module], shapes: dict[str, tuple[int, ...]], answer: tuple[int, ...] | None) -> int:
    """The place from which on all modules are the head, in the order in which they finish; their number where none is."""
    order = list(modules)
    weighted = [place for place, name in enumerate(order) if _has_weights(modules[name])]
    if not weighted or answer is None or len(answer) != 1:
        return len(order)
    # maps of one position are those of a classifier of convolutions
    places = range(weighted[-1], len(order))
    answering = [
        place for place in places if (shape := shapes[order[place]])[:1] == answer and math.prod(shape) == answer[0]
    ]
    if answering and shapes[order[weighted[-1]]][:1] == answer:
        return weighted[-1]
    return answering[0] if answering else len(order)


def _has_weights(module: nn.Module) -> bool:
    """Whether a module multiplies by weights of its own: a convolution, a linear map, or what has neither but a matrix."""
    whole = not any(True for _ in module.children())
    matrix = whole and any(weight.ndim == 2 for weight in module.parameters(recurse=False))
    return matrix or isinstance(module, _WEIGHTED)


def _role(module: nn.Module, inner: list[str], direct: list[str]) -> str:
    """The role of a module whose parts have these, its own children `direct`."""
    kind = type(module).__name__.lower()
    if isinstance(module, nn.modules.conv._ConvNd):
        return "convolution"
    if isinstance(module, nn.Linear):
        return "linear"
    if "norm" in kind and not {"convolution", "linear"} & set(inner):
        return "norm"
    blocks = direct.count("block")
    if "stage" in direct or blocks > 1 or (blocks and isinstance(module, nn.Sequential) and set(direct) <= {"block", ""}):
        return "stage"
    if ("attention" in kind or "attn" in kind) and "MLP" not in inner:
        return "attention"
    if ("mlp" in kind or "feedforward" in kind or "ffn" in kind or "swiglu" in kind) and "attention" not in inner:
        return "MLP"
    parts = [role for role in inner if role in ("convolution", "linear", "attention")]
    if len(parts) > 1:
        return "block"
    if parts:
        return parts[0]
    if "pool" in kind:
        return "pooling"
    return "activation" if type(module).__module__ == "torch.nn.modules.activation" else ""
