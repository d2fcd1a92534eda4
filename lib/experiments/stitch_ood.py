"""Whether stitched representations are in distribution: `exec_stitch_ood.py`.

Stitching paper, sections 2.8 and 4.4 of its code. A detector of the end layer (`exec_ood_detector.py`) scores the network's
own representations of in-distribution images and the stitched ones by their energy, which is higher for outliers. Networks
are recognised by the hash of their weights; the ranks to which a stitch was limited limit it here, too. Stitched
representations can also have energies far below all of the network's own, which the published measures call in distribution
and `auroc_two_sided` does not.
"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.nn import Module

from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.experiments import EXPERIMENTS
from lib.experiments.config.stitch_ood import StitchOodConfig
from lib.metrics import ood_detection
from lib.models import checkpoints, residual_blocks
from lib.models.checkpoints import Checkpoint
from lib.runs import input_files, loading
from lib.runs.records import Result
from lib.stitching import detector_energies as energies
from lib.stitching import detector_files, records
from lib.stitching.detector_files import Detector
from lib.stitching.grid import Donors, GridStitch
from lib.stitching.records import Grid, GridCell, Stored

OF_STITCH = ("type", "init", "trained", "epochs", "samples", "solver")  # columns that rows share with those of the stitch


class _Scored(NamedTuple):
    """The energies of the end network's own representations, by end layer: of the in-distribution test images, of those
    that the two-sided AUROC is fitted on, and of every sanity data set, by its name.
    """

    inside: dict[str, np.ndarray]
    fitted: dict[str, np.ndarray]
    sanity: dict[str, dict[str, np.ndarray]]
    id_split: Split
    sanity_splits: dict[str, Split]


def stitch_ood(config: StitchOodConfig) -> Result:
    """A row per stitch, per missing one, and per end layer and sanity data set; energies in the arrays."""
    grids = records.read(config, config.stitch_run, EXPERIMENTS["stitch"].revision)
    _refuse_strangers(config, grids)
    detectors = [config.detectors_of(grid) for grid in grids]
    if not any(detectors):
        _refuse_nothing(config, grids[0])
    model = next(detector for of_grid in detectors for detector in of_grid.values())
    rows, arrays, seconds = [], {}, {}
    begin = time.perf_counter()
    for number, (grid, described) in enumerate(zip(grids, detectors, strict=True)):
        prefix = f"{number}." if len(grids) > 1 else ""
        commands = _detector_commands(grid, described, model)
        new, energies_of = _evaluate(config, grid, described, commands, prefix)
        rows += new
        arrays |= energies_of
    seconds["evaluation"] = time.perf_counter() - begin
    for command in dict.fromkeys(row["fill"] for row in rows if row["fill"]):
        print(f"missing: {command}", file=sys.stderr)
    return Result(
        rows,
        arrays,
        seconds,
        columns=(
            "method",
            "front_layer",
            "end_layer",
            "stitch_rank",
            "data",
            "accuracy",
            "auroc",
            "auroc_two_sided",
            "aupr_in",
            "fpr95",
            "energy_id",
            "energy",
            "missing",
        ),
    )


def _evaluate(
    config: StitchOodConfig, grid: Grid, described: dict[str, Detector], commands: dict[str, str], prefix: str
) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Rows, by front and end layer in execution order, and arrays."""
    device = loading.device(config)
    front, end = (
        checkpoints.load(
            input_files.locate(config, grid.config[f"{side}_path"]),
            _stated(grid.config[f"{side}_type"]),
            mean=tuple(grid.config["mean"]),
            std=tuple(grid.config["std"]),
            device=device,
        )
        for side in ("front", "end")
    )
    for checkpoint, layers in ((front, grid.front_layers()), (end, grid.end_layers())):
        residual_blocks.name_sums(checkpoint.network.body, layers)
    name, size = config.data_of(grid), front.description.image_size
    split = loading.load_split(config, name, "test", image_size=size)
    split = loading.in_network_classes(split, end.description, name)
    size = size or max(split.height, split.width)
    front_shapes, end_shapes = (
        {layer.name: layer.shape for layer in loading.layers(checkpoint, size, device)} for checkpoint in (front, end)
    )
    layers = (
        [layer for layer in front_shapes if layer in grid.front_layers()],
        [layer for layer in end_shapes if layer in grid.end_layers()],
    )
    batching = loading.batching(config, device, end.description.channels, size, config.precision)
    missing = grid.missing()
    cells = [cell for cell in grid.cells if cell not in missing]
    entries = [
        GridStitch(
            cell.front,
            cell.end,
            records.restore(grid.cells[cell], front_shapes[cell.front], end_shapes[cell.end]).to(device),
        )
        for cell in cells
    ]
    networks, scored = _own(config, grid, end, described, split, batching)
    accuracies, stitched = energies.stitched_energies(
        Donors(front.network, end.network, *layers), entries, networks, split.to(device), batching
    )
    measured = dict(zip(cells, zip(accuracies, stitched, strict=True), strict=True))
    arrays = {f"{prefix}id.{layer}": values for layer, values in scored.inside.items()}
    arrays |= {f"{prefix}{other}.{layer}": values for other, at in scored.sanity.items() for layer, values in at.items()}
    arrays |= {f"{prefix}{_name(cell)}": values for cell, values in zip(cells, stitched, strict=True) if values is not None}
    common = {
        "kind": "stitched",
        "method": grid.method,
        "front": grid.config["front_path"],
        "end": grid.config["end_path"],
        "data": split.name,
        "split": split.split,
        "n": len(split),
        "id_data": scored.id_split.name,
        "id_split": scored.id_split.split,
        "n_id": len(scored.id_split),
        "seed": grid.config["seed"],
    }
    rows = [*_stitched_rows(grid, layers, measured, scored, commands, common, prefix), *_sanity_rows(scored, common, prefix)]
    for row in rows:
        detector = described.get(row["end_layer"])
        row |= {
            "id_energies": f"{prefix}id.{row['end_layer']}" if detector else None,
            "detector": str(detector.path) if detector else None,
        }
    return rows, arrays


def _stitched_rows(
    grid: Grid,
    layers: tuple[list[str], list[str]],
    measured: dict[GridCell, tuple[float | None, np.ndarray | None]],
    scored: _Scored,
    commands: dict[str, str],
    common: dict,
    prefix: str,
) -> list[dict]:
    """A row for every cell of the grid; in those of missing stitches and detectors the command that makes them."""
    rows, missing = [], grid.missing()
    for cell in (GridCell(front, end, *ranks) for front in layers[0] for end in layers[1] for ranks in grid.ranks()):
        row = _row(common, *cell)
        if cell in missing:
            ends = [other.end for other in missing if other == cell._replace(end=other.end)]
            rows.append(row | {"missing": "stitch", "fill": grid.command_for(EXPERIMENTS, cell.front, ends)})
        elif cell in measured:
            accuracy, stitched = measured[cell]
            row |= _of_stitch(grid.cells[cell]) | {"accuracy": accuracy}
            if stitched is None:
                rows.append(row | {"missing": "detector", "fill": commands[cell.end]})
            else:
                rows.append(row | _scores(scored, cell.end, stitched) | {"energies": f"{prefix}{_name(cell)}"})
    return rows


def _sanity_rows(scored: _Scored, common: dict, prefix: str) -> list[dict]:
    """A row for every sanity data set and end layer with a detector."""
    return [
        _row(common, None, layer, None, None)
        | _scores(scored, layer, values)
        | {
            "kind": "sanity",
            "data": other,
            "split": scored.sanity_splits[other].split,
            "n": len(values),
            "energies": f"{prefix}{other}.{layer}",
        }
        for other, at in scored.sanity.items()
        for layer, values in at.items()
    ]


def _own(
    config: StitchOodConfig,
    grid: Grid,
    end: Checkpoint,
    described: dict[str, Detector],
    split: Split,
    batching: Batching,
) -> tuple[dict[str, Module], _Scored]:
    """The detectors' networks by end layer, and the energies of the end network's own representations."""
    loaded = {layer: checkpoints.load(detector.path, device=batching.device) for layer, detector in described.items()}
    networks = {layer: checkpoint.network.body for layer, checkpoint in loaded.items()}
    for checkpoint in loaded.values():
        if len(checkpoint.description.classes) != len(end.description.classes):
            raise UserError(
                f"{checkpoint.path}: it has {len(checkpoint.description.classes)} classes, the end network "
                f"{len(end.description.classes)}"
            )
    id_split = split
    if config.id_dataset:
        id_split = loading.load_split(config.of_id, config.id_dataset, "test", image_size=batching.size)
    fit_split = loading.fitting_images(
        config.of_id, config.id_dataset or config.data_of(grid), config.fit_on, config.fit_examples, batching.size
    )
    sanity = [loading.load_split(config.of_sanity, name, "test", image_size=batching.size) for name in config.sanity]
    sanity_splits = {"-".join(part for part in (other.name, other.variant) if part): other for other in sanity}
    inside, fitted, *outside = (
        energies.native_energies(end.network, networks, part.to(batching.device), batching)
        for part in (id_split, fit_split, *sanity_splits.values())
    )
    return networks, _Scored(inside, fitted, dict(zip(sanity_splits, outside, strict=True)), id_split, sanity_splits)


def _refuse_nothing(config: StitchOodConfig, grid: Grid) -> None:
    others = sorted({f"{other.layer} of {other.source_path}" for other in detector_files.find(config, config.detectors)})
    words = " ".join([grid.config["end_path"], grid.config["end_type"], *grid.end_layers()])
    raise UserError(
        f"-detectors {' '.join(config.detectors)}: no detector of {', '.join(grid.end_layers())} of "
        f"{grid.config['end_path']}, as it is now; there is {', '.join(others[:8]) or 'nothing'}; python "
        f"exec_ood_detector.py {words} -m TYPE -ftoodd OUTLIERS -dir NAME makes them"
    )


def _refuse_strangers(config: StitchOodConfig, grids: list[Grid]) -> None:
    """Raises `UserError` for a detector that is named itself and is another network's or another layer's."""
    for place in config.detectors:
        if input_files.locate(config, place).is_dir():
            continue
        (detector,) = detector_files.find(config, (place,))
        ends = {layer: None for grid in grids for layer in grid.end_layers() if detector.source_sha256 == grid.networks[1]}
        if not ends:
            raise UserError(
                f"-detectors {place}: the detector of another network, {detector.source_path}, with other weights "
                f"than {grids[0].config['end_path']}"
            )
        if detector.layer not in ends:
            raise UserError(
                f"-detectors {place}: the detector of another layer, {detector.layer}; these stitches end in "
                f"{', '.join(ends)}"
            )


def _detector_commands(grid: Grid, described: dict[str, Detector], model: Detector) -> dict[str, str]:
    """For every end layer without a detector the command that trains those of all of them, as another one was trained."""
    absent = [layer for layer in grid.end_layers() if layer not in described]
    settings = next(iter(described.values()), model).settings
    end = [] if described else [Path(grid.config["end_path"]).parent.name]
    return dict.fromkeys(
        absent,
        records.command(
            EXPERIMENTS,
            "ood_detector",
            settings
            | {
                "source_path": grid.config["end_path"],
                "source_type": grid.config["end_type"],
                "layer": absent,
                "directory": "-".join([settings["directory"], *end, *absent]),
            },
        ),
    )


def _row(common: dict, front: str | None, end: str, stitch_rank: int | None, pinv_rank: int | None) -> dict:
    """A row without measures."""
    empty = dict.fromkeys(
        (
            "record",
            *OF_STITCH,
            "accuracy",
            "auroc",
            "auroc_two_sided",
            "aupr_in",
            "fpr95",
            "fpr95_nearest_recall",
            "energy_id",
            "energy",
            "energies",
            "missing",
            "fill",
        )
    )
    return (
        common
        | {
            "front_layer": front,
            "end_layer": end,
            "stitch_rank": stitch_rank,
            "pinv_rank": pinv_rank,
        }
        | empty
    )


def _of_stitch(stored: Stored) -> dict:
    """What a row takes over from the record of the stitch."""
    return {"record": str(stored.record), **{name: stored.row.get(name) for name in OF_STITCH}}


def _scores(scored: _Scored, layer: str, outside: np.ndarray) -> dict:
    """How well the energy tells representations from the layer's own; the means of both."""
    inside = scored.inside[layer]
    deviations = [ood_detection.deviation(values, scored.fitted[layer]) for values in (inside, outside)]
    return {
        "auroc": ood_detection.auroc(inside, outside),
        "auroc_two_sided": ood_detection.auroc(*deviations),
        "aupr_in": ood_detection.average_precision_in(inside, outside),
        "fpr95": ood_detection.fpr_at_tpr(inside, outside),
        "fpr95_nearest_recall": ood_detection.fpr_at_nearest_recall(inside, outside),
        "energy_id": inside.mean(dtype=np.float64),
        "energy": outside.mean(dtype=np.float64),
    }


def _stated(kind: str) -> str:
    return "" if kind == "auto" else kind


def _name(cell: GridCell) -> str:
    """A stitch's name among the arrays."""
    ranks = "" if cell.ranks == (None, None) else f".{cell.stitch_rank or 'full'}.{cell.pinv_rank or 'full'}"
    return f"{cell.front}-{cell.end}{ranks}"
