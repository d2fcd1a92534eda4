"""Networks that end in a probe: the type `probe:<type>@<layer>@<reducer>`, such as `probe:resnet20@layer2@gap`.

What follows the layer is neither in the network nor in its state dict; what precedes it keeps its names. Behind it come
`probe_reduce` and the linear `probe`. It is a network like any other: it is loaded, cut, evaluated and probed by name.
"""

import torch
from torch import Tensor, fx, nn

from lib import models
from lib.core.errors import UsageError
from lib.models import cutting
from lib.models.reducer_names import parse
from lib.models.reducers import RandomProjection, Reducer, reducer

WITHOUT_PARAMETERS = ("flatten", "gap", "gmp", "grid", "cls", "mean-token")


class Reduce(nn.Module):
    """A reducer as a module, so that a network with it can be traced and cut around it."""

    def __init__(self, reduce: Reducer | RandomProjection) -> None:
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
    graph = cutting.cut(body, layer, torch.zeros(1, channels, image_size, image_size))[0].graph
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = str(node.target).removeprefix("network.")
    probe_reduce = Reduce(reducer(reduce))
    with torch.no_grad():
        output = fx.GraphModule(body, graph)(torch.zeros(1, channels, image_size, image_size))
        probe = nn.Linear(probe_reduce(output).shape[1], classes)
    body.add_module("probe_reduce", probe_reduce)
    body.add_module("probe", probe)
    last = graph.output_node()
    with graph.inserting_before(last):
        reduced = graph.create_node("call_module", "probe_reduce", (last.args[0],))
        last.args = (graph.create_node("call_module", "probe", (reduced,)),)
    return fx.GraphModule(body, graph).train()
