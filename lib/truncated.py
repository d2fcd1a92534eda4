"""Networks that end in a probe: the type `probe:<type>@<layer>@<reducer>`, such as `probe:resnet20@layer2@gap`.

What follows the layer is neither in the network nor in its state dict; what precedes it keeps its names. Behind it come
`probe_reduce` and the linear `probe`. It is a network like any other: it is loaded, cut, evaluated and probed by name.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from lib import checkpoints, graph, models
from lib.checkpoints import Description
from lib.errors import UsageError, UserError
from lib.features import Tap
from lib.models.normalized import Normalized
from lib.probes.stack import Linear
from lib.reducers import Reducer, parse, reducer

WITHOUT_PARAMETERS = ("flatten", "gap", "gmp", "grid", "cls", "mean-token")


class Reduce(nn.Module):
    """A reducer as a module, so that a network with it can be traced and cut around it."""

    def __init__(self, reduce: Reducer) -> None:
        super().__init__()
        self.reduce = reduce

    def forward(self, output: Tensor) -> Tensor:
        return self.reduce(output)


def network(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    """The network behind `probe:` in a type, with fresh weights."""
    parts = name.rsplit("@", 2)
    if len(parts) != 3:
        raise UsageError(f"type probe:{name}: such a type is probe:<type>@<layer>@<reducer>")
    architecture, layer, reduce = parts
    if parse(reduce)[0] not in WITHOUT_PARAMETERS:
        raise UsageError(f"type probe:{name}: {reduce} has parameters of its own; {', '.join(WITHOUT_PARAMETERS)} have none")
    body = models.build(architecture, classes, channels, image_size).eval()
    traced = graph.cut(body, layer)[0].graph
    for node in traced.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = node.target.removeprefix("network.")
    body.probe_reduce = Reduce(reducer(reduce))
    with torch.no_grad():
        output = fx.GraphModule(body, traced)(torch.zeros(1, channels, image_size, image_size))
        body.probe = nn.Linear(body.probe_reduce(output).shape[1], classes)
    last = next(reversed(traced.nodes))
    with traced.inserting_before(last):
        reduced = traced.create_node("call_module", "probe_reduce", (last.args[0],))
        last.args = (traced.create_node("call_module", "probe", (reduced,)),)
    return fx.GraphModule(body, traced).train()


def export(path: Path, source: Normalized, description: Description, tap: Tap, probe: Linear, classes: tuple[str, ...],
           image_size: int) -> Normalized:
    """Writes the network up to a tap with its probe, weights (k, d), as a checkpoint; returns the network.

    Raises `UserError` for a layer where the network cannot be cut, or a reducer with parameters.
    """
    kind = f"{description.architecture}@{tap.layer}@{tap.reduce}"
    body = network(kind, len(classes), description.channels, image_size)
    known = source.body.state_dict()
    own = {key: known[key] for key in body.state_dict() if not key.startswith("probe.")}
    body.load_state_dict(own | {"probe.weight": probe.weights, "probe.bias": probe.biases})
    whole = Normalized(body, description.mean, description.std).eval()
    checkpoints.save(path, whole, replace(description, architecture=f"probe:{kind}", classes=classes, image_size=image_size,
                                          config={}, metrics={}))
    return whole


def shortened(source: nn.Module, tap: Tap, probes: Linear, number: int) -> nn.Module:
    """Any network up to a tap with one of several probes (c, k, d): logits (b, k) of what the network takes."""
    weights, biases = probes.weights[number], probes.biases[number]
    last = nn.utils.skip_init(nn.Linear, weights.shape[1], weights.shape[0])
    last.weight.data, last.bias.data = weights.clone(), biases.clone()
    return nn.Sequential(graph.cut(source, tap.layer)[0], Reduce(reducer(tap.reduce)), last).eval()


def check(tap: Tap, source: Normalized) -> None:
    """Raises `UserError` unless a probe at this tap can be exported."""
    if parse(tap.reduce)[0] not in WITHOUT_PARAMETERS:
        without = ", ".join(WITHOUT_PARAMETERS)
        raise UserError(f"--export: --reduce {tap.reduce} has parameters of its own; {without} have none")
    graph.cut(source, tap.layer)
