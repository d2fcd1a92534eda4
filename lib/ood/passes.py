"""The passes over the data: energies of all layers, scores of the last layer, early exits."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lib.core import saved_state
from lib.core.distributed import ALONE, Processes
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.ood import early_exit, halves, last_layer, layer_detectors, layer_energies
from lib.ood.flags import BASELINES
from lib.ood.last_layer import LastLayer, LastLayerScore
from lib.ood.layer_detectors import Features, LayerScore
from lib.representations import aliases, finite


@dataclass(frozen=True, kw_only=True)
class LayerStudy:
    """The network, and what a study of its layers asks for.

    listed        every module that runs
    layers        those of the rows
    exits         cuts at which a pass may stop, in execution order, if any; `alpha` is the rate of false alarms over all
    head          the name of the last linear layer, and `linear` the layer, where something needs it
    baselines, detectors, aggregators, choices   names of `lib.ood.flags`, and for the first "all"
    validation    names of the sets of validation outliers
    seed          of the halves that are drawn
    conformal     rows have intervals that hold for any distribution
    """

    network: Normalized
    batching: Batching
    listed: list[cutting.Layer]
    layers: list[str]
    temperatures: tuple[float, ...]
    exits: list[str]
    alpha: float
    head: str = ""
    linear: nn.Linear | None = None
    baselines: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()
    aggregators: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    seed: int = 0
    conformal: bool = False


class Passed(NamedTuple):
    """What a pass over a split left: energies (n, columns, T), logits (n, k), scores of the last layer (n,) by name, and
    for every detector of layers the scores (n,) by column.
    """

    columns: list[str]
    energies: np.ndarray
    logits: Tensor
    scores: dict[str, np.ndarray]
    detected: dict[str, dict[str, np.ndarray]]

    def of(self, layers: list[str]) -> np.ndarray:
        """The energies of these layers, in the order of the columns."""
        return self.energies[:, [column.partition("@")[0] in layers for column in self.columns]]

    def keep(self, columns: list[str]) -> "Passed":
        """The same with these columns alone."""
        places = [self.columns.index(column) for column in columns]
        return self._replace(columns=columns, energies=self.energies[:, places])


def distinct(study: LayerStudy, passed: Iterable[Passed], named: Sequence[str]) -> aliases.Distinct[str]:
    """The columns of the study's layers, each energy once: layers whose energies are the same for all images are one.

    named   layers that were named one by one: they stay
    """
    passed = list(passed)
    columns = [column for column in passed[0].columns if column.partition("@")[0] in study.layers]
    partition: aliases.Partition[str] = aliases.Partition(columns)
    for one in passed:
        places = {column: number for number, column in enumerate(one.columns)}
        partition.add({name: torch.from_numpy(one.energies[:, places[name]]) for name in partition.undecided})
    return aliases.settle(partition, columns, lambda column: column.partition("@")[0], named)


class PassesUnderWay:
    """What the passes of a run have kept for the one that continues it, in a file that the run removes when it is done.

    Of several processes the first one reads and writes it, and all know what was found.
    """

    def __init__(self, journal: saved_state.Journal, processes: Processes = ALONE) -> None:
        self.journal = None if processes.rank else journal
        self.found = processes.read_once(journal.read)

    def rows(self, stage: str) -> saved_state.Rows:
        """Of the pass with this name."""
        return saved_state.Rows(self.journal, self.found, stage)


class Detectors(NamedTuple):
    """Fitted scores: of the last layer by name, and of all layers by name and column."""

    last: dict[str, LastLayerScore]
    everywhere: dict[str, dict[str, LayerScore]]


def measure(
    study: LayerStudy,
    split: Split,
    stage: str,
    seconds: dict[str, float],
    detectors: Detectors | None = None,
    under_way: PassesUnderWay | None = None,
) -> Passed:
    """One pass over a split; the detectors get the last layer's input and output, or what is kept of every layer's."""
    last, everywhere = detectors or Detectors({}, {})
    keys = {(name, column): f"{column}: {name}" for name, of_columns in everywhere.items() for column in of_columns}

    def score(features: Tensor, logits: Tensor) -> dict[str, Tensor]:
        return {name: detector(features, logits).double().cpu() for name, detector in last.items()}

    def detect(batch: dict[str, Features], logits: Tensor) -> dict[str, Tensor]:
        predicted = logits.argmax(1).cpu()
        return {key: everywhere[name][column](batch[column], predicted).double() for (name, column), key in keys.items()}

    found = _pass(study, split, stage, seconds, score if last else None, detect if keys else None, under_way)
    detected: dict[str, dict[str, np.ndarray]] = {name: {} for name in everywhere}
    for (name, column), key in keys.items():
        values = found.watched.pop(key)
        finite.check(values[:, None], f"--layer-detectors {name}: its scores of layer {column}", split)
        detected[name][column] = values.numpy()
    for name, values in found.watched.items():
        finite.check(values[:, None], f"--baselines {name}: its scores", split)
    scores = {name: values.numpy() for name, values in found.watched.items()}
    return Passed(found.columns, found.energies, found.logits, scores, detected)


def fit(
    study: LayerStudy, fitted: Split, seconds: dict[str, float], under_way: PassesUnderWay | None = None
) -> tuple[Passed, Detectors]:
    """The pass over the fitting images, and the detectors fitted to it."""

    def collect(batch: dict[str, Features], logits: Tensor) -> dict[str, Tensor]:
        columns = [column for column in batch if column.partition("@")[0] in study.layers]
        return {f"{kind} of {column}": part for column in columns for kind, part in batch[column]._asdict().items()}

    found = _pass(
        study,
        fitted,
        FITTING,
        seconds,
        (lambda seen, logits: {"features": seen.clone()}) if study.linear else None,
        collect if study.detectors else None,
        under_way,
    )
    passed = Passed(found.columns, found.energies, found.logits, {}, {})
    everywhere = {}
    if study.detectors:
        begin = time.perf_counter()
        columns = [column for column in found.columns if column.partition("@")[0] in study.layers]
        features = {
            column: Features(**{kind: found.watched[f"{kind} of {column}"] for kind in Features._fields})
            for column in columns
        }
        everywhere = layer_detectors.fit(study.detectors, features, fitted.labels.cpu(), passed.logits.argmax(1))
        seconds["fitting the layers' detectors"] = time.perf_counter() - begin
    return passed, Detectors(_last(study, fitted, found, seconds), everywhere)


def _last(
    study: LayerStudy, fitted: Split, found: layer_energies.Energies, seconds: dict[str, float]
) -> dict[str, LastLayerScore]:
    """The scores of the last layer, fitted to its input over the fitting images."""
    if study.linear is None:
        return {}
    begin = time.perf_counter()
    linear = study.linear
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(len(linear.weight))
    layer = LastLayer(
        linear.weight.detach().float(), bias.detach().float(), found.watched["features"], found.logits, fitted.labels
    )
    detectors = {}
    for name in BASELINES:
        if name in study.baselines:
            detectors[name] = last_layer.fit(name, layer)
        elif "all" in study.baselines:
            try:
                detectors[name] = last_layer.fit(name, layer)
            except UserError as error:
                warnings.warn(f"{error}; left out", stacklevel=3)
    seconds["fitting the last layer's scores"] = time.perf_counter() - begin
    return detectors


FITTING = "fitting images"


def _pass(
    study: LayerStudy,
    split: Split,
    stage: str,
    seconds: dict[str, float],
    watch: layer_energies.Watch | None,
    collect: layer_energies.Collect | None,
    under_way: PassesUnderWay | None,
) -> layer_energies.Energies:
    begin = time.perf_counter()
    found = layer_energies.layer_energies(
        study.network,
        split,
        list(dict.fromkeys([*study.layers, *study.exits])),
        study.batching,
        study.temperatures,
        head=study.head,
        watch=watch,
        features=layer_detectors.reduction(study.detectors) if collect else None,
        collect=collect,
        rows=under_way.rows(stage) if under_way else None,
    )
    seconds[f"pass over {stage}"] = time.perf_counter() - begin
    return found


class Exits(NamedTuple):
    """The rows of early exits on one OOD set, and the exit of every image.

    positions    of the in-distribution images that test, among all of them
    inside       their exits, `outside` those of the outliers
    """

    rows: list[dict]
    positions: np.ndarray
    inside: np.ndarray
    outside: np.ndarray


def run_early_exits(
    study: LayerStudy,
    fit: Passed,
    calibrate_on: str,
    outliers: list[str],
    load: Callable[[str], Split],
    passes: dict[str, Passed],
    seconds: dict[str, float],
) -> dict[str, Exits]:
    """Early exits that were made and timed, per OOD set.

    The threshold is calibrated on half of the fitting images if `calibrate_on` names them, and all test images test; by
    default on half of the test images, which are then left out of the test: the network has not learnt from those.
    """
    network, layers, temperature = study.network, study.exits, study.temperatures[0]
    order = [fit.columns.index(layer) for layer in layers]
    fitted, inside = fit.energies[:, order, 0], passes["id"].energies[:, order, 0]
    half = halves.draw(len(fitted if calibrate_on else inside), study.seed, "early exit")
    if calibrate_on:
        positions = np.arange(len(inside))
        rule = early_exit.calibrate(fitted[half == 0], fitted[half == 1], study.alpha, layers)
        calibrated = {"calibrated_on": calibrate_on, "n_calibrated": int((half == 1).sum()), "needs": "ID images"}
    else:
        positions, held = np.flatnonzero(half == 1), np.flatnonzero(half == 0)
        if not len(positions):
            raise UserError(f"--early-exit {study.alpha}: -d has one image; one calibrates, another one tests")
        rule = early_exit.calibrate(fitted, inside[held], study.alpha, layers)
        split = load("id")
        calibrated = {
            "calibrated_on": f"{split.name}:{split.split}, a half",
            "n_calibrated": len(held),
            "needs": "ID images and half of the test images",
        }
    pieces = cutting.pieces(network, layers)
    before = cutting.macs_before(study.listed)
    macs = np.array([before[layer] for layer in layers])
    quietly = replace(study.batching, quiet=True)
    made = {}
    for name in ("id", *outliers):
        split = load(name).subset(positions) if name == "id" else load(name)
        images = (batch for batch, _ in quietly.over(split, name))
        made[name] = early_exit.timed(network, pieces, rule, images, temperature)
        _, seconds[f"early exits of {name}"], seconds[f"whole passes over {name}"] = made[name]
    exits = {}
    for name in outliers:
        rows = early_exit.report(rule, inside[positions], passes[name].energies[:, order, 0], macs)
        titles = [*layers, f"{len(layers)} exits"]
        about = {"T": temperature, "score": "early exit", **calibrated}
        rows[-1] |= {f"time_{side}": made[key][1] / made[key][2] for side, key in (("id", "id"), ("ood", name))}
        exits[name] = Exits(
            [{"layer": layer, **about, **row} for layer, row in zip(titles, rows, strict=True)],
            positions,
            made["id"][0],
            made[name][0],
        )
    return exits
