"""Exports a network up to a layer with its probe, as a checkpoint or as a module."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from lib.core.errors import UserError
from lib.models import checkpoints, cutting
from lib.models.checkpoints import Description
from lib.models.normalized import Normalized
from lib.models.probe_network import WITHOUT_PARAMETERS, Reduce, network
from lib.models.reducer_names import parse
from lib.models.reducers import reducer
from lib.probing.stacked_probes import Linear
from lib.representations.features import Tap


def export(
    path: Path,
    source: Normalized,
    description: Description,
    tap: Tap,
    probe: Linear,
    classes: tuple[str, ...],
    image_size: int,
) -> Normalized:
    """Writes the network up to a tap with its probe, weights (k, d), as a checkpoint; returns the network.

    Raises `UserError` for a layer where the network cannot be cut, or a reducer with parameters.
    """
    kind = f"{description.architecture}@{tap.layer}@{tap.reduce}"
    body = network(kind, len(classes), description.channels, image_size)
    weights = source.body.state_dict()
    up_to_layer = {key: weights[key] for key in body.state_dict() if not key.startswith("probe.")}
    body.load_state_dict(up_to_layer | {"probe.weight": probe.weights, "probe.bias": probe.biases})
    whole = Normalized(body, description.mean, description.std).eval()
    checkpoints.save(
        path,
        whole,
        replace(description, architecture=f"probe:{kind}", classes=classes, image_size=image_size, config={}, metrics={}),
    )
    return whole


def shortened(source: nn.Module, tap: Tap, probes: Linear, number: int) -> nn.Module:
    """Any network up to a tap with one of several probes (c, k, d): logits (b, k) of what the network takes."""
    weights, biases = probes.weights[number], probes.biases[number]
    last = nn.utils.skip_init(nn.Linear, weights.shape[1], weights.shape[0])
    last.weight.data, last.bias.data = weights.clone(), biases.clone()
    return nn.Sequential(cutting.cut(source, tap.layer)[0], Reduce(reducer(tap.reduce)), last).eval()


def check(tap: Tap, source: Normalized) -> None:
    """Raises `UserError` unless a probe at this tap can be exported."""
    if parse(tap.reduce)[0] not in WITHOUT_PARAMETERS:
        without = ", ".join(WITHOUT_PARAMETERS)
        raise UserError(f"--export: --reduce {tap.reduce} has parameters of its own; {without} have none")
    cutting.cut(source, tap.layer)
