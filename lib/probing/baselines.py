"""Baselines for probes on single layers, on the same images and with the same search.

Intermediate-layers paper, section 6.3 and its appendices. Each is a kind of probe with sites of its own; settings, epochs,
seeds and rules are those of the plain probes, but for DFR, whose recipe says how it chooses its penalty.

    mlp             a hidden layer of 256 rectified units at every layer
    concatenated    one linear probe on the features of all layers together
    averaged        the mean of the logits of the linear probes of all layers
    last-layer      the head learnt anew on what it reads, cold and warm (started at the network's own)
    dfr             deep feature reweighting at every layer (`lib.probing.dfr`)
    batch-norm      the network's own head, with batch statistics of OOD images (`lib.probing.batchnorm_adaptation`)
    collapse        no classifier: the neural-collapse index of every layer (`lib.metrics.neural_collapse`)
"""

import warnings

from torch.nn.modules.batchnorm import _BatchNorm

from lib.core.errors import UserError
from lib.models.normalized import Normalized
from lib.probing.fit import STEPWISE
from lib.probing.layers import Layout, head_of
from lib.probing.options import ProbeOptions

OF_CACHED_FEATURES = ("mlp", "concatenated", "averaged", "last-layer", "dfr", "collapse")
OF_TRAINING_IMAGES = ("dfr", "collapse")  # whatever the protocol


def possible(options: ProbeOptions, layout: Layout, network: Normalized, classes: int) -> tuple[str, ...]:
    """The baselines that were asked for and are possible; raises `UserError` for one that was named and is not.

    classes    the number of classes of the data
    """
    asked, names = options.baselines, []
    problems = _problems(options, layout, network, classes) if asked else {}
    for name in problems if "all" in asked else asked:
        if problems[name] and name in asked:
            raise UserError(f"--baselines {name}: {problems[name]}")
        if problems[name]:
            warnings.warn(f"--baselines all: {name} is left out: {problems[name]}", stacklevel=2)
        else:
            names.append(name)
    return tuple(dict.fromkeys(names))


def _problems(options: ProbeOptions, layout: Layout, network: Normalized, classes: int) -> dict[str, str | None]:
    """Why each of the baselines is not possible, None where it is."""
    solver = options.recipe.solver
    stepwise = None if solver in STEPWISE else f"--solver {solver} fits no hidden layer; adam and sgd do"
    several = None if len(layout.sweeps[0]) > 1 else "it takes two or more layers"
    norms = any(isinstance(module, _BatchNorm) and module.track_running_stats for module in network.modules())
    adapts = None if norms else "the network has no batch normalisation with running statistics"
    if options.protocol.name == "id":
        adapts = "--protocol id has no OOD images"
    if norms and layout.head is None:
        adapts = "no layer of the network puts out its logits"
    head = None if layout.penultimate else "the network does not end in a linear layer that reads the output of a layer"
    linear = head_of(network, layout.head)
    if linear is not None and len(linear.biases) != classes:
        head = adapts = f"the network has {len(linear.biases)} classes, the data {classes}"
    return {
        "mlp": stepwise,
        "concatenated": several,
        "averaged": several,
        "last-layer": head,
        "dfr": None,
        "batch-norm": adapts,
        "collapse": None,
    }
