"""Re-initialising one layer at a time: `exec_reinit.py`.

Gamba et al., "Hyperplane Arrangements of Trained ConvNets Are Biased", 2023; the protocol is that of Zhang, Bengio &
Singer, "Are All Layers Created Equal?", JMLR 2022.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from lib.core import files
from lib.core.errors import UsageError, UserError
from lib.core.lazy import lazy
from lib.reinit import weight_sources
from lib.reinit.weight_sources import Source
from lib.runs import cli, loading, plan, records
from lib.runs.cli import above, at_least, flag
from lib.runs.loading import NetworkConfig
from lib.runs.records import Result

criticality = lazy("lib.reinit.criticality")
devices = lazy("lib.core.devices")
filters = lazy("lib.models.filters")
cutting = lazy("lib.models.cutting")
np = lazy("numpy")
plots = lazy("lib.plots.filters")
reinit_fold_pool = lazy("lib.reinit.fold_pool")
reinit_rows = lazy("lib.reinit.rows")
batchnorm = lazy("lib.reinit.batchnorm")
sweep = lazy("lib.reinit.sweep")
targets = lazy("lib.reinit.targets")
torch = lazy("torch")


@dataclass(frozen=True, kw_only=True)
class ReinitConfig(NetworkConfig):
    """Accuracy with one layer's weights taken from another epoch, or drawn anew."""

    dataset: str = flag(
        "", "-d", label="{}", help="data to evaluate on; default: the test split of the one it was trained on"
    )
    inits_from: tuple[str, ...] = flag((), help="checkpoints, folders of training runs, or text files with a path per line")
    rand: int = flag(0, bare=1, check=at_least(1), help="so many fresh draws of the weights; 1 without a number")
    layers: tuple[str, ...] = flag(
        (), "-l", commas=True, help="names or globs, cuts, all; default: every convolution but 1x1"
    )
    what: str = flag(
        "weights",
        choices=("weights", "weights+bn"),
        help="what is replaced: the layer's own weights and biases, or also the batch normalisation behind it",
    )
    recalibrate_bn: bool = flag(False, help="estimate running statistics anew for every cell, on the images of --fit-on")
    criticality: float | None = flag(
        None,
        bare=0.1,
        check=above(0),
        help="also measure module criticality, on the images of --fit-on, at this tolerated "
        "rise of the loss in nats (0.1 without a number); needs the initial weights",
    )
    fit_on: str = flag("", help="images for --recalibrate-bn and --criticality; default: the training split of -d")
    fit_examples: int = flag(1000, check=at_least(2), help="at most so many of them")
    stack: int | None = flag(
        None,
        check=at_least(1),
        help="so many sources share a run of what follows the layer; 1 is "
        "exact to the bit, more to rounding; default: up to 8, by memory",
    )
    fold_pool: bool = flag(
        False,
        help="sum the first linear layer's weights over the equal outputs of the pool before it "
        "(VGGs at 32 px); logits equal up to rounding",
    )
    paper_json: bool = flag(False, help="also write the layout of the paper's own code, into a folder of the record's name")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.inits_from and not self.rand and not self.list_layers:
            raise UsageError("--inits-from or --rand is required: the weights that layers are given")

    def work(self) -> list[str]:
        def chosen(checkpoint, listed):
            size = checkpoint.description.image_size or 32
            return _layers(self, checkpoint.network, torch.zeros(1, checkpoint.description.channels, size, size))

        return plan.of_checkpoints(
            self,
            [(self.model_path, self.model_type, chosen)],
            (self.dataset,),
            f"one over the data set, with what follows each layer once more for {len(weight_sources.files(self)[0])} files "
            f"and {self.rand} draws",
        )

    def inputs(self) -> dict[str, list[Path]]:
        lists = {word: [loading.locate(self, word)] for word in self.inits_from if weight_sources.is_list(self, word)}
        named = [name for name in (self.dataset, self.fit_on) if name]
        return (
            super().inputs()
            | lists
            | {str(path): [path] for path in weight_sources.files(self)[0]}
            | loading.data_files(self, *named)
        )


def reinit(config: ReinitConfig) -> Result:
    """One row per (layer, source), one per missing file, one per (source, predictor) of the drop; a heat map."""
    device = loading.device(config)
    checkpoint = loading.load_checkpoint(config, config.model_path, config.model_type, device)
    network, description = checkpoint.network, checkpoint.description
    name = loading.dataset_name(config.dataset, checkpoint)
    split = loading.load_split(config, name, image_size=description.image_size)
    if len(split.classes) < 2:
        raise UserError(f"-d {name}: with {len(split.classes)} classes there is nothing to get wrong; it needs at least 2")
    loading.check_classes(split, description, name)
    size = description.image_size or max(split.height, split.width)
    images = torch.zeros(2, description.channels, size, size, device=device)
    units = targets.find(network, images, _layers(config, network, images), config.what == "weights+bn")
    sources, missing = weight_sources.load(config, description, units, network.body.state_dict())
    seconds, begin = {}, time.perf_counter()
    cells = [[_cell(unit, source, network, config) for source in sources] for unit in units]
    swept, cells_run = network, cells
    fitted = _fitting_batches(config, name, description, size, device) if config.recalibrate_bn or config.criticality else []
    if config.recalibrate_bn:
        cells_run = batchnorm.recalibrated(network, [batch for batch, _ in fitted], units, cells)
    critical = _criticality(config, network, fitted, units, sources)
    if config.fold_pool:
        swept, cells_run = _folded(network, images, units, cells_run)
    seconds["preparation"] = time.perf_counter() - begin
    begin = time.perf_counter()
    counts = _sweep(config, swept, split, description, size, device, units, cells_run)
    seconds["pass"] = time.perf_counter() - begin
    common = {
        "data": split.name,
        "split": split.split,
        "variant": split.variant,
        "origin": split.origin,
        "n": int((split.labels >= 0).sum()),
        "classes": len(description.classes),
        "what": config.what,
        "recalibrated": config.recalibrate_bn,
    }
    facts = reinit_rows.facts(network, units, critical)
    rows = reinit_rows.rows(common, facts, sources, cells, counts, network.body.state_dict())
    analysis = reinit_rows.analysis(common, rows, config.seed)
    absent = [{**common, "source": path, "layer": None, "status": "missing"} for path in missing]
    labels = list(dict.fromkeys(row["source"] for row in rows))
    # rows are in the order of sources and layers; None, where nothing was right to begin with, becomes NaN
    drops = np.array([row["relative_drop"] for row in rows], dtype=float).reshape(len(labels), len(units))
    arrays = {
        "layers": np.array([unit.layer for unit in units]),
        "sources": np.array([source.label for source in sources]),
        "top1": counts.cells[..., 0].numpy(),
        "top5": counts.cells[..., 1].numpy(),
        "relative_drop": drops,
    }
    title = f"{checkpoint.path} on {name}: accuracy {rows[0]['intact_accuracy']:.4f}"
    figure = plots.reset_map(drops, labels, [unit.layer for unit in units], title)
    documents = {f"reinit_{checkpoint.path.stem}": reinit_rows.paper_layout(description, checkpoint.path, rows, labels)}
    _partial(config).unlink(missing_ok=True)
    columns = (
        "source",
        "layer",
        "status",
        "accuracy",
        "accuracy_sd",
        "relative_drop",
        "mass",
        "l2_distance",
        "predictor",
        "spearman",
        "p_value",
        "partial",
        "partial_p",
    )
    return Result(rows + analysis + absent, arrays, {"": figure}, seconds, columns, documents if config.paper_json else {})


def _layers(config: ReinitConfig, network, images) -> list[str]:
    """The layers that `--layers` names; without it the convolutions that the paper resets."""
    if not config.layers:
        return [layer.name for layer in filters.layers(network)]
    modules = {name: module for name, module in network.body.named_modules() if name}
    owning = [name for name, module in modules.items() if next(module.parameters(), None) is not None]
    for pattern in config.layers:
        if pattern in modules and pattern not in owning:
            raise UserError(f"--layers {pattern}: {type(modules[pattern]).__name__} owns no weights")
    listed = cutting.layers(network, images)
    leaves = [name for name in owning if next(modules[name].parameters(recurse=False), None) is not None]
    run = {layer.name for layer in listed}
    groups = {
        "all": [name for name in leaves if name in run],
        "cuts": [layer.name for layer in listed if layer.cut and layer.name in leaves],
    }
    return cutting.select(owning, config.layers, groups)


def _cell(unit, source: Source, network, config: ReinitConfig) -> dict | None:
    """What the source puts into the unit; None if that is what the network has, which nothing needs to be run for."""
    own = network.body.state_dict()
    cell = {key: source.state[key] for key in unit.keys}
    same = all(torch.equal(value, own[key]) for key, value in cell.items())
    return None if same and not config.recalibrate_bn else cell


def _fitting_batches(config: ReinitConfig, name: str, description, size: int, device) -> list:
    """Images and labels that the accuracy is not measured on, in batches."""
    split = loading.fitting_images(config, name, size)
    batches = split.batches(
        config.batch_size,
        device=device,
        channels=description.channels,
        size=size,
        workers=config.workers,
        prefetch=config.prefetch,
    )
    return [(images, labels) for images, labels, _ in batches]


def _criticality(config: ReinitConfig, network, batches: list, units, sources: list[Source]) -> list[float | None]:
    """Of each unit, with the earliest epoch among the sources as the beginning; Nones if it was not asked for."""
    if not config.criticality:
        return [None] * len(units)
    known = [source for source in sources if source.epoch is not None]
    if not known:
        raise UserError("--criticality needs --inits-from with the initial weights, such as init.pt")
    initial = min(known, key=lambda source: source.epoch)
    states = [{key: initial.state[key] for key in unit.keys} for unit in units]
    return criticality.measure(network, batches, units, states, tolerance=config.criticality, draws=2, seed=config.seed)


def _folded(network, images, units, cells: list[list]) -> tuple:
    """The network with its replicating pool folded into the first linear layer, and cells that fit it."""
    folded, linear, positions = reinit_fold_pool.fold(network, images)
    key = linear + ".weight"
    fitting = [
        [
            cell | {key: reinit_fold_pool.folded_weight(cell[key], positions)} if cell and key in cell else cell
            for cell in row
        ]
        for row in cells
    ]
    return folded, fitting


def _sweep(config: ReinitConfig, network, split, description, size: int, device, units, cells):
    """The pass over the data; continues where an interrupted one of the same command, on the same files, had stopped."""
    path = _partial(config)
    state = {"config": cli.identity(config), "inputs": records.fingerprints(config)}
    key = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def save(counts):
        files.write_json(
            path, {"key": key, "images": counts.images, "intact": counts.intact.tolist(), "cells": counts.cells.tolist()}
        )

    return sweep.run(
        network,
        split,
        units,
        cells,
        batch_size=config.batch_size,
        channels=description.channels,
        size=size,
        precision=devices.resolve_precision(config.precision, device),
        counts=_continued(path, key),
        save=save,
        stacked=_stacked(config, size),
        workers=config.workers,
        prefetch=config.prefetch,
        quiet=config.quiet,
    )


def _stacked(config: ReinitConfig, size: int) -> int:
    """How many sources share a run: what they share must be the same for all, and fit into memory."""
    if config.recalibrate_bn:
        return 1  # what follows has statistics of its own in every cell
    return config.stack or min(8, max(1, STACKED_PIXELS // (config.batch_size * size**2)))


STACKED_PIXELS = 2**19  # 512 images of 32 px, whose 64 channels take 134 MB


def _partial(config: ReinitConfig) -> Path:
    """Where the counts of an interrupted pass lie: beside the record."""
    return records.place(config, "reinit").beside(".partial")


def _continued(path: Path, key: str):
    """The counts of an interrupted pass of this very run; None if there are none."""
    try:
        found = json.loads(path.read_text())
        if found["key"] != key:
            return None
        counts = (torch.tensor(found[name], dtype=torch.int64) for name in ("intact", "cells"))
        return sweep.Counts(found["images"], *counts)
    except (OSError, ValueError, KeyError, TypeError):
        return None
