"""Names of modules in earlier versions of the suite, where they now have the names of the papers' code.

Checkpoints that the suite wrote under those names still load, and a layer that is asked for by an earlier name is answered
with its present one. Three types were other functions before: their weights are refused, as renamed they would be wrong.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from lib.core.errors import UserError

Value = TypeVar("Value")

_BLOCK = {f"blocks.{number}": f"hidden{number + 1}" for number in range(4)}


def _mlp(norm: bool) -> dict[str, str]:
    names = dict(_BLOCK)
    for number in range(4):
        linear = ["fc"] if number == 0 else ["fc1", "fc2"]
        for place, inner in enumerate([*linear, "dropout", *(["bn"] if norm else []), "relu"]):
            names[f"blocks.{number}.{place}"] = f"hidden{number + 1}.{inner}"
    return names | {"fc": "classifier"}


_HIDDEN = dict(
    zip((f"hidden.{place}" for place in range(6)), ("hidden", "relu", "hidden2", "relu2", "hidden3", "relu3"), strict=True)
)
_CNN002 = {"features": "feature_extractor"}
_CNN002 |= {
    f"features.{place}": f"feature_extractor.{name}"
    for place, name in enumerate("conv1 relu1 conv2 relu2 maxpool1 conv3 relu3 conv4 relu4 maxpool2".split())
}
_CNN002 |= {f"classifier.{place}": f"classifier.{name}" for place, name in enumerate("fc1 relu1 drop fc2 relu2 fc3".split())}

# type -> earlier name of a module -> present one
MODULES: dict[str, dict[str, str]] = {
    "CNN002": _CNN002,
    "mlp": _mlp(norm=False),
    "mlp_bn": _mlp(norm=True),
    "LargeMLP": _HIDDEN,
    "LargeMLPv4": _HIDDEN,
}
# of transformers that classify tokens: parts of a name
_TOKENS = (
    (re.compile(r"self_attn\.in_proj_(weight|bias)$"), r"attn.qkv.\1"),
    (re.compile(r"self_attn\.out_proj\b"), "attn.proj"),
    (re.compile(r"linear([12])\b"), r"mlp.fc\1"),
)
# type -> a tensor that only its earlier function had
OTHER_FUNCTION = {
    "preact_resnet18": "layer1.0.bn1.weight",
    "preact_resnet34": "layer1.0.bn1.weight",
    "wide_resnet_28_10": "block1.layer.0.bn1.weight",
    "wide_resnet_34_10": "block1.layer.0.bn1.weight",
    "small_cnn": "features.1.weight",
}
# layers of the latter that are what they were
_LAYERS = {
    "features.0": "bn",
    **{f"features.{3 * number - 2}": f"conv{number}" for number in range(1, 5)},
    **{f"features.{3 * number - 1}": f"relu{number}" for number in range(1, 5)},
    **{f"features.{3 * number}": f"pool{number}" for number in range(1, 4)},
}


def renamed(state: Mapping[str, Value], architecture: str, where: object) -> dict[str, Value]:
    """The tensors of a checkpoint under the present names of this type.

    Raises `UserError`, which names the file `where`, for weights of a type that was another function.
    """
    if OTHER_FUNCTION.get(architecture) in state:
        raise UserError(f"{where}: written by an earlier version, whose {architecture} was another function; train it again")
    if architecture.startswith("repr_cls_vit"):
        for pattern, present in _TOKENS:
            state = {pattern.sub(present, name): value for name, value in state.items()}
        return dict(state)
    names = MODULES.get(architecture, {})
    # what has a present name is not of an earlier version: `hidden.weight` of LargeMLP
    return {_tensor(name, names): value for name, value in state.items()}


def _tensor(name: str, names: Mapping[str, str]) -> str:
    module, _, kind = name.rpartition(".")
    return f"{names[module]}.{kind}" if module in names else name


def present(layer: str, known: list[str]) -> str | None:
    """What a layer with an earlier name is called among the known ones; None if it is none of those."""
    for names in (*MODULES.values(), _LAYERS):
        if layer in names and names[layer] in known:
            return names[layer]
    return None
