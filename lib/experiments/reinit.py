"""Re-initialising one layer at a time: `exec_reinit.py`.

Gamba et al., "Hyperplane Arrangements of Trained ConvNets Are Biased", 2023; the protocol is that of Zhang, Bengio &
Singer, "Are All Layers Created Equal?", JMLR 2022.
"""

import time

import numpy as np
import torch
from torch import Tensor

from lib.core import saved_state
from lib.core.distributed import Processes
from lib.core.errors import UserError
from lib.core.saved_state import RunFile
from lib.datasets.batching import Batching
from lib.experiments.config.reinit import ReinitConfig
from lib.models.checkpoints import Description
from lib.reinit import batchnorm, criticality, sweep, targets, weight_sources
from lib.reinit import fold_pool as reinit_fold_pool
from lib.reinit import rows as reinit_rows
from lib.reinit.weight_sources import Source
from lib.runs import loading, records
from lib.runs.records import Result


def reinit(config: ReinitConfig) -> Result:
    """One row per (layer, source), one per missing file, one per (source, predictor) of the drop."""
    device = loading.device(config)
    checkpoint = loading.load_checkpoint(config, config.model_path, config.model_type, device)
    network, description = checkpoint.network, checkpoint.description
    name = loading.dataset_name(config.dataset, checkpoint)
    split = loading.load_split(config, name, image_size=description.image_size)
    if len(split.classes) < 2:
        raise UserError(f"-d {name}: with {len(split.classes)} classes there is nothing to get wrong; it needs at least 2")
    split = loading.in_network_classes(split, description, name)
    size = description.image_size or max(split.height, split.width)
    batching = loading.batching(config, device, description.channels, size)
    images = torch.zeros(2, description.channels, size, size, device=device)
    mixes = loading.warn_of_mixing(checkpoint, tuple(images.shape[1:]), device)
    units = targets.find(network, images, targets.choose(network, images, config.layers), config.what == "weights+bn")
    sources, missing = weight_sources.load(config, description, units, network.body.state_dict())
    seconds, begin = {}, time.perf_counter()
    cells = [[_cell(unit, source, network, config) for source in sources] for unit in units]
    swept, cells_run = network, cells
    fitted = (
        _fitting_batches(config, description, name, size, batching) if config.recalibrate_bn or config.criticality else []
    )
    if config.recalibrate_bn:
        cells_run = batchnorm.recalibrated(network, [batch for batch, _ in fitted], units, cells)
    critical = _criticality(config, network, fitted, units, sources)
    if config.fold_pool:
        swept, cells_run = _folded(network, images, units, cells_run)
    seconds["preparation"] = time.perf_counter() - begin
    begin = time.perf_counter()
    saved = _saved(config)
    counts = sweep.run(
        swept,
        split,
        units,
        cells_run,
        loading.batching(config, device, description.channels, size, config.precision),
        stacked=1 if mixes else _stacked(config, size),
        checkpointing=_checkpointing(saved, batching.processes),
    )
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
    documents = {f"reinit_{checkpoint.path.stem}": reinit_rows.paper_layout(description, checkpoint.path, rows, labels)}
    if batching.processes.rank == 0:
        saved.remove()
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
        "p_least",
        "partial",
        "partial_p",
    )
    return Result(rows + analysis + absent, arrays, seconds, columns, documents if config.paper_json else {})


def _cell(unit, source: Source, network, config: ReinitConfig) -> dict | None:
    """What the source puts into the unit; None if that is what the network has, which nothing needs to be run for."""
    own = network.body.state_dict()
    cell = {key: source.state[key] for key in unit.keys}
    same = all(torch.equal(value, own[key]) for key, value in cell.items())
    return None if same and not config.recalibrate_bn else cell


def _fitting_batches(
    config: ReinitConfig, description: Description, name: str, size: int, batching: Batching
) -> list[tuple[Tensor, Tensor]]:
    """Images and labels that the accuracy is not measured on, in batches."""
    split = loading.fitting_images(config, name, config.fit_on, config.fit_examples, size)
    if config.criticality:  # which needs their labels
        split = loading.in_network_classes(split, description, split.name)
        split = split.subset(split.labels >= 0)
    return list(batching.over(split, f"images of {split.name} to fit on"))


def _criticality(config: ReinitConfig, network, batches: list, units, sources: list[Source]) -> list[float | None]:
    """Of each unit, with the earliest epoch among the sources as the beginning; Nones if it was not asked for."""
    if not config.criticality:
        return [None] * len(units)
    by_epoch = {source.epoch: source for source in reversed(sources) if source.epoch is not None}
    if not by_epoch:
        raise UserError("--criticality needs --inits-from with the initial weights, such as init.pt")
    initial = by_epoch[min(by_epoch)]
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


def _saved(config: ReinitConfig) -> RunFile:
    """The file of an interrupted pass of the same command on the same files: beside the record."""
    key = saved_state.content_key(records.under_way(config))
    return RunFile(records.place(config, "reinit").beside(".partial"), key)


def _checkpointing(saved: RunFile, processes: Processes) -> sweep.Checkpointing:
    """Continues where an interrupted pass had stopped, and says how far this one is."""
    state = processes.read_once(saved.read)
    counts = sweep.Counts(state["images"], state["intact"], state["cells"]) if state else None
    if processes.rank:
        return sweep.Checkpointing(counts)
    return sweep.Checkpointing(
        counts, lambda counts: saved.write(images=counts.images, intact=counts.intact, cells=counts.cells)
    )


def _stacked(config: ReinitConfig, size: int) -> int:
    """How many sources share a run: what they share must be the same for all, and fit into memory."""
    if config.recalibrate_bn:
        return 1  # what follows has statistics of its own in every cell
    return config.stack or min(8, max(1, STACKED_PIXELS // (config.batch_size * size**2)))


STACKED_PIXELS = 2**19  # 512 images of 32 px, whose 64 channels take 134 MB
