"""The orientation of every layer's filters, snapshot by snapshot: `exec_projections.py`.

Gamba et al., "Hyperplane Arrangements of Trained ConvNets Are Biased", 2023. Only weights are read; no image is.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from lib import datasets, models
from lib.core.errors import UserError
from lib.experiments.config.projections import ProjectionsConfig, _beside
from lib.metrics import binomial, filter_projections, multiple_testing
from lib.models import checkpoints, filters
from lib.models.checkpoints import Description
from lib.models.filters import Filters
from lib.models.normalized import Normalized
from lib.runs import input_files
from lib.runs.records import Result

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Weights:
    """One set of weights: where it is from, and from which file its distances are measured."""

    source: str
    epoch: int | None
    draw: int | None
    description: Description
    state: dict[str, Tensor]
    initial: Path | None = None


def projections(config: ProjectionsConfig) -> Result:
    """One row per (snapshot, layer) and per snapshot as a whole, `net`; the projections in the arrays."""
    rows, arrays, documents, seconds = [], {}, {}, {"reading": 0.0, "measuring": 0.0}
    initial_states, layers, twins = {}, None, {}
    begin = time.perf_counter()
    for weights in _ahead(_all_weights(config)):
        if layers is None:
            skeleton, first = checkpoints.skeleton(weights.description), weights
            layers = filters.layers(skeleton, with_linear=config.with_linear, with_1x1=config.with_1x1)
            norms = _norms(config, skeleton, weights.description)
            twins = _twins(skeleton, layers, norms)
        elif weights.description.architecture != first.description.architecture:
            raise UserError(
                f"{weights.source} is a {weights.description.architecture}, not a "
                f"{first.description.architecture} as {first.source}; one type at a time"
            )
        initial = _initial(config, weights, initial_states)
        read = time.perf_counter()
        seconds["reading"] += read - begin
        projected = {layer.name: _projections(config, layer, weights.state, norms) for layer in layers}
        new = _rows(weights, layers, projected, initial, norms, twins)
        rows += new
        key = weights.source if weights.draw is None else f"{weights.source}-{weights.draw}"
        arrays |= {f"{key}/{name}": values for name, values in projected.items()}
        if config.paper_json:
            documents[_stem(weights)] = _paper_layout(config, weights, layers, new, projected, twins)
        begin = time.perf_counter()
        seconds["measuring"] += begin - read
    return Result(
        rows,
        arrays,
        seconds,
        (
            "epoch",
            "layer",
            "stage",
            "block",
            "filters",
            "mean",
            "mass",
            "mass_low",
            "mass_high",
            "p_holm",
            "z",
            "l2_distance",
        ),
        documents,
    )


def _ahead(items: Iterator[Weights]) -> Iterator[Weights]:
    """The same, each made while the one before is worked on: files are read and hashed without Python's lock."""
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(_next, items)
        while (item := upcoming.result()) is not None:
            upcoming = reader.submit(_next, items)
            yield item


def _next(items: Iterator[Weights]) -> Weights | None:
    return next(items, None)


def _all_weights(config: ProjectionsConfig) -> Iterator[Weights]:
    """Every snapshot that is named, then published weights, then fresh ones, one at a time."""
    for path in config.paths:
        for file in input_files.snapshots(config, path):
            description, state = checkpoints.weights(file, config.model_type)
            epoch = description.epoch if description.epoch is not None else input_files.epoch_of(file)
            yield Weights(str(file), epoch, None, description, state, _beside(file))
    if config.pretrained:
        description = _shape(config, 1000, models.accepted_size(config.model_type, 224))
        network = checkpoints.build(description, pretrained=True)
        yield Weights("pretrained", -1, None, description, network.body.state_dict())
    for draw in range(config.random):
        description = _shape(config, 10, models.accepted_size(config.model_type, 32))
        network = checkpoints.fresh(description, config.seed + draw, "init")
        yield Weights("random", 0, draw, description, network.body.state_dict())


def _shape(config: ProjectionsConfig, classes: int, size: int) -> Description:
    """The description of a network that no training has described."""
    names, channels = tuple(map(str, range(classes))), 3
    known = datasets.shape(config.dataset) if config.dataset else None
    if known:
        names, channels = tuple(map(str, range(known.classes))), known.channels
        size = models.accepted_size(config.model_type, known.side)
    elif config.dataset:
        split = datasets.load(config.dataset, config.data_root, "train", cache_dir=config.cache_dir)
        names, channels = split.classes, split.channels
        size = models.accepted_size(config.model_type, max(split.height, split.width))
    return checkpoints.Description(
        architecture=config.model_type,
        classes=names,
        channels=channels,
        image_size=size,
        dataset=config.dataset,
        config={"seed": config.seed},
    )


def _initial(config: ProjectionsConfig, weights: Weights, read: dict[Path, dict[str, Tensor]]) -> dict[str, Tensor] | None:
    """The state that distances are measured from; only the latest one is kept in memory."""
    path = input_files.locate(config, config.init_from) if config.init_from else weights.initial
    if path is None:
        return None
    if str(path) == weights.source:
        read.clear()
        read[path] = weights.state
    if path not in read:
        read.clear()
        _, read[path] = checkpoints.weights(path, config.model_type or weights.description.architecture)
        if any(value.shape != weights.state[key].shape for key, value in read[path].items() if key in weights.state):
            raise UserError(f"--init-from {path}: its tensors have other shapes than those of {weights.source}")
    return read[path]


def _norms(config: ProjectionsConfig, skeleton: Normalized, description: Description) -> dict[str, tuple[str, float]]:
    """Layer -> the batch normalisation that is folded into it, and its epsilon."""
    if not config.fold_bn:
        return {}
    norms = filters.norms(skeleton, description)
    if not norms:
        raise UserError(f"--fold-bn: no layer of {description.architecture} is followed by a batch normalisation")
    return norms


def _twins(skeleton: Normalized, layers: list[Filters], norms: dict[str, tuple[str, float]]) -> dict[str, tuple[str, ...]]:
    """Layer -> the others with the same filters: those of one tensor, unless other normalisations are folded into them."""
    weights = {layer.name: skeleton.body.get_submodule(layer.name)._parameters.get("weight") for layer in layers}

    def same(one: str, other: str) -> bool:
        return weights[one] is not None and weights[one] is weights[other] and norms.get(one) == norms.get(other)

    return {name: tuple(other for other in weights if other != name and same(name, other)) for name in weights}


def _distinct(layers: list[Filters], twins: dict[str, tuple[str, ...]]) -> list[Filters]:
    """The layers without those whose filters an earlier one has."""
    order = [layer.name for layer in layers]
    return [layer for layer in layers if not any(order.index(twin) < order.index(layer.name) for twin in twins[layer.name])]


def _projections(
    config: ProjectionsConfig, layer: Filters, state: dict[str, Tensor], norms: dict[str, tuple[str, float]]
) -> np.ndarray:
    weight = state[layer.name + ".weight"]
    if layer.name in norms:
        name, eps = norms[layer.name]
        if f"{name}.running_var" not in state:
            raise UserError(f"--fold-bn: {name} keeps no running statistics, so it cannot be folded into {layer.name}")
        norm = {key: state[f"{name}.{key}"] for key in ("weight", "running_var") if f"{name}.{key}" in state}
        weight = filter_projections.fold(weight, filter_projections.folding(norm, eps))
    return filter_projections.projections(weight, config.normalize)


def _rows(
    weights: Weights,
    layers: list[Filters],
    projected: dict[str, np.ndarray],
    initial: dict[str, Tensor] | None,
    norms: dict[str, tuple[str, float]],
    twins: dict[str, tuple[str, ...]],
) -> list[dict]:
    """The rows of the layers and of the net; Holm's correction is over the distinct layers of this one set of weights."""
    key = {"checkpoint": weights.source, "draw": weights.draw, "epoch": weights.epoch}
    rows: list[dict] = []
    for layer in layers:
        weight = weights.state[layer.name + ".weight"]
        moved = (None, None)
        if initial is not None:
            moved = filter_projections.distances(weight, initial[layer.name + ".weight"])
        rows.append(
            {
                **key,
                "layer": layer.name,
                "stage": layer.stage,
                "block": layer.block,
                "kind": layer.kind,
                "filters": len(weight),
                "dim": weight[0].numel(),
                **_measures(projected[layer.name]),
                "l2_distance": moved[0],
                "linf_distance": moved[1],
                "folded": layer.name in norms,
                "aliases": " ".join(twins[layer.name]) or None,
            }
        )
    distinct = [layer.name for layer in _distinct(layers, twins)]
    p_values = multiple_testing.holm([row["p_value"] for row in rows if row["layer"] in distinct]).tolist()
    corrected = dict(zip(distinct, p_values, strict=True))
    for row in rows:
        known = (row["layer"], *twins[row["layer"]])
        row["p_holm"] = next(corrected[name] for name in known if name in corrected)
    together = np.concatenate([projected[name] for name in distinct])
    rows.append(
        {
            **key,
            "layer": "net",
            "stage": None,
            "block": None,
            "kind": "net",
            "filters": len(together),
            "dim": None,
            **_measures(together),
            "l2_distance": None,
            "linf_distance": None,
            "folded": bool(norms),
            "aliases": None,
            "p_holm": None,
        }
    )
    return rows


def _measures(values: np.ndarray) -> dict:
    """Mean, mass and their statistics; a filter without orientation (NaN) is not counted."""
    counted = values[~np.isnan(values)]
    n, count = len(counted), int((counted <= 0).sum())
    share = filter_projections.mass(values)
    low, high = binomial.interval(count, n) if n else (None, None)
    quantiles = np.quantile(counted, QUANTILES) if n else [None] * len(QUANTILES)
    return {
        "counted": n,
        "mean": float(counted.mean()) if n else None,
        "mass": share,
        "mass_low": low,
        "mass_high": high,
        "p_value": binomial.p_value(count, n) if n else 1.0,
        "z": filter_projections.z_score(share, n),
        **{f"q{round(100 * level):02d}": value for level, value in zip(QUANTILES, quantiles, strict=True)},
    }


def _stem(weights: Weights) -> str:
    """The name of a snapshot's document, as the paper's code names its files."""
    if weights.draw is not None:
        return f"init_{weights.description.architecture}_{weights.draw}"
    if weights.source == "pretrained":
        return f"pretrained_{weights.description.architecture}"
    return "-".join(Path(weights.source).with_suffix("").parts[-2:])


def _paper_layout(
    config: ProjectionsConfig,
    weights: Weights,
    layers: list[Filters],
    rows: list[dict],
    projected: dict[str, np.ndarray],
    twins: dict[str, tuple[str, ...]],
) -> dict:
    """The paper's JSON (section 3.2): stage -> block -> projections; layers that it skips are left out.

    Data set and seed are those of the sidecar; of a file without one the command line's, or those that its path says, in
    the folders <data set>/.../<type>/<seed>/ of the paper's code.
    """
    document: dict = {}
    for layer, row in zip(layers, rows, strict=False):
        if layer.stage is None:
            continue
        entry = {"projections": _numbers(projected[layer.name]), "mass": row["mass"], "mean": row["mean"]}
        if row["l2_distance"] is not None:
            entry |= {"l2_dist": row["l2_distance"], "l_inf_dist": row["linf_distance"]}
        document.setdefault(layer.stage, {})[layer.block] = entry
    numbered = [projected[layer.name] for layer in _distinct(layers, twins) if layer.stage is not None]
    whole = np.concatenate(numbered) if numbered else np.empty(0)
    measured = _measures(whole)
    document["net"] = {"projections": _numbers(whole), "mass": measured["mass"], "mean": measured["mean"]}
    dataset, seed = _trained(weights)
    facts = {"arch": weights.description.architecture, "dataset": dataset or config.dataset, "epoch": str(weights.epoch)}
    seed = seed if seed is not None else config.seed or None  # 0 may mean that none was given
    return document | facts | ({} if seed is None else {"seed": str(seed + (weights.draw or 0))})


def _trained(weights: Weights) -> tuple[str, int | None]:
    """Data set and seed of a training, by the sidecar or the folders of the paper's code; "" and None where unknown."""
    described = weights.description
    if described.dataset or "seed" in described.config or weights.draw is not None or weights.source == "pretrained":
        return described.dataset, described.config.get("seed")
    folders = [part.name for part in Path(weights.source).parents if part.name]
    seed = int(folders.pop(0)) if folders and folders[0].isdigit() else None
    if described.architecture not in folders[:1]:
        return "", None
    above = (name for name in folders[1:] if name != "pixel_shuffle" and not name.startswith("noise_"))
    return next(above, ""), seed


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
