"""The passes over the data of a study of layers: energies of all layers, scores of the last one, and early exits."""

import time
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from lib.core.errors import UserError
from lib.models import cutting
from lib.models.checkpoints import Description
from lib.ood import early_exit, last_layer, layer_energies
from lib.ood.flags import BASELINES


@dataclass(frozen=True)
class Subject:
    """The network, and what the energies are of."""

    config: object  # of `exec_ood_layers.py`
    network: torch.nn.Module
    description: Description
    listed: list[cutting.Layer]
    layers: list[str]  # those of the rows
    exits: list[str]
    head: str  # the last linear layer, where something needs it
    size: int  # of the images


class Passed(NamedTuple):
    """What a pass over a split left: energies (n, columns, T), logits (n, k), scores of the last layer (n,) by name."""

    columns: list[str]
    energies: np.ndarray
    logits: torch.Tensor
    scores: dict[str, np.ndarray]

    def of(self, layers: list[str]) -> np.ndarray:
        """The energies of these layers, in the order of the columns."""
        return self.energies[:, [column.partition("@")[0] in layers for column in self.columns]]


def measure(subject: Subject, split, stage: str, seconds: dict, detectors: dict | None = None, watch=None) -> Passed:
    """One pass over a split; `detectors` score the last layer's input and output as they come by."""
    config, scores = subject.config, {name: [] for name in detectors or {}}

    def score(features, logits):
        for name, detector in detectors.items():
            scores[name].append(detector(features, logits).double().cpu())

    begin = time.perf_counter()
    found = layer_energies.layer_energies(
        subject.network,
        split,
        list(dict.fromkeys([*subject.layers, *subject.exits])),
        config.temperature,
        batch_size=config.batch_size,
        channels=subject.description.channels,
        size=subject.size,
        workers=config.workers,
        prefetch=config.prefetch,
        quiet=config.quiet,
        head=subject.head,
        watch=watch or (score if detectors else None),
    )
    seconds[f"pass over {stage}"] = time.perf_counter() - begin
    return Passed(*found, {name: torch.cat(parts).numpy() for name, parts in scores.items()})


def fit(subject: Subject, fitted, seconds: dict) -> tuple[Passed, dict[str, last_layer.Score]]:
    """The pass over the fitting images, and the scores of the last layer fitted to it."""
    if not subject.head:
        return measure(subject, fitted, "fitting images", seconds), {}
    asked, features = subject.config.baselines, []
    fit = measure(subject, fitted, "fitting images", seconds, watch=lambda seen, logits: features.append(seen.clone()))
    begin = time.perf_counter()
    linear = subject.network.body.get_submodule(subject.head)
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(len(linear.weight))
    seen = last_layer.Fitted(
        linear.weight.detach().float(), bias.detach().float(), torch.cat(features), fit.logits, fitted.labels
    )
    detectors = {}
    for name in BASELINES:
        if name in asked:
            detectors[name] = last_layer.fit(name, seen)
        elif "all" in asked:
            try:
                detectors[name] = last_layer.fit(name, seen)
            except UserError as error:
                warnings.warn(f"{error}; left out", stacklevel=3)
    seconds["fitting the last layer's scores"] = time.perf_counter() - begin
    return fit, detectors


class Exits(NamedTuple):
    """The rows of early exits on one OOD set, and the exit of every image."""

    rows: list[dict]
    inside: np.ndarray
    outside: np.ndarray


def leave(
    subject: Subject, fit: Passed, outliers: list[str], load, passes: dict[str, Passed], seconds: dict
) -> dict[str, Exits]:
    """Early exits that were made and timed, per OOD set."""
    config, network, layers = subject.config, subject.network, subject.exits
    order = [fit.columns.index(layer) for layer in layers]
    rule = early_exit.calibrate(fit.energies[:, order, 0], config.early_exit, layers)
    pieces = cutting.pieces(network, layers)
    before = cutting.macs_before(subject.listed)
    macs = np.array([before[layer] for layer in layers])
    made = {}
    for other in ("id", *outliers):
        batches = load(other).batches(
            config.batch_size,
            device=next(network.parameters()).device,
            channels=subject.description.channels,
            size=subject.size,
            workers=config.workers,
            prefetch=config.prefetch,
        )
        made[other] = early_exit.timed(network, pieces, rule, (images for images, _, _ in batches), config.temperature[0])
        seconds[f"early exits of {other}"], seconds[f"whole passes over {other}"] = made[other][1:]
    found = {}
    for other in outliers:
        rows = early_exit.report(rule, passes["id"].energies[:, order, 0], passes[other].energies[:, order, 0], macs)
        names = [*layers, f"{len(layers)} exits"]
        about = {"T": config.temperature[0], "score": "early exit", "needs": "ID images"}
        rows[-1] |= {f"time_{side}": made[key][1] / made[key][2] for side, key in (("id", "id"), ("ood", other))}
        found[other] = Exits(
            [{"layer": layer, **about, **row} for layer, row in zip(names, rows, strict=True)], made["id"][0], made[other][0]
        )
    return found
