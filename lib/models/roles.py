"""The role of a layer: `-l role:attention` selects all layers of a role, and rows state it."""

from torch import nn

ROLES = ("convolution", "linear", "norm", "attention", "MLP", "block", "stage", "head", "activation", "pooling")

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


def roles(body: nn.Module, order: list[str]) -> dict[str, str]:
    """Name -> role of the modules that run, given in the order in which they finish; empty where it has none of `ROLES`.

    The head is the last linear layer or convolution and what finishes after it. A module that holds one of these alone is
    what that is; one that holds several is a block, and one that holds blocks a stage.
    """
    modules = {name: body.get_submodule(name) for name in order}
    weighted = [place for place, name in enumerate(order) if isinstance(modules[name], _WEIGHTED)]
    head = weighted[-1] if weighted else len(order)
    made: dict[str, str] = {}
    for place, name in enumerate(order):  # a part finishes before its whole
        inner = [made[other] for other in order[:place] if other.startswith(name + ".")]
        direct = [made.get(f"{name}.{child}", "") for child, _ in modules[name].named_children()]
        made[name] = "head" if place >= head else _role(modules[name], inner, direct)
    return made


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
