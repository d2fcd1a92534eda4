"""Re-initialising one layer at a time: `exec_reinit.py`.

Gamba et al., "Hyperplane Arrangements of Trained ConvNets Are Biased", 2023; the protocol is that of Zhang, Bengio &
Singer, "Are All Layers Created Equal?", JMLR 2022.
"""

import hashlib
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from lib import cli, files, inputs, results
from lib.cli import above, at_least, flag
from lib.errors import UsageError, UserError
from lib.inputs import NetworkConfig
from lib.lazy import lazy
from lib.results import Result

checkpoints = lazy("lib.checkpoints")
classification = lazy("lib.metrics.classification")
devices = lazy("lib.devices")
filters = lazy("lib.filters")
graph = lazy("lib.graph")
np = lazy("numpy")
orientation = lazy("lib.metrics.orientation")
plots = lazy("lib.plots.filters")
rank_correlation = lazy("lib.metrics.rank_correlation")
reinitialization = lazy("lib.reinitialization")
torch = lazy("torch")

# what a layer's drop is correlated with, and from which column of its rows
PREDICTORS = ("bias", "bias_z", "abs_mean", "l2_distance", "criticality")


@dataclass(frozen=True, kw_only=True)
class ReinitConfig(NetworkConfig):
    """Accuracy with one layer's weights taken from another epoch, or drawn anew."""

    dataset: str = flag("", "-d", label="{}", help="data to evaluate on; default: the test split of the one it was trained "
                                                   "on")
    inits_from: tuple[str, ...] = flag((), help="checkpoints, folders of training runs, or text files with a path per line")
    rand: int = flag(0, bare=1, check=at_least(1), help="so many fresh draws of the weights; 1 without a number")
    layers: tuple[str, ...] = flag((), "-l", commas=True,
                                    help="names or globs, cuts, all; default: every convolution but 1x1")
    what: str = flag("weights", choices=("weights", "weights+bn"),
                     help="what is replaced: the layer's own weights and biases, or also the batch normalisation behind it")
    recalibrate_bn: bool = flag(False, help="estimate running statistics anew for every cell, on the images of --fit-on")
    criticality: float | None = flag(None, bare=0.1, check=above(0),
                                     help="also measure module criticality, on the images of --fit-on, at this tolerated "
                                          "rise of the loss in nats (0.1 without a number); needs the initial weights")
    fit_on: str = flag("", help="images for --recalibrate-bn and --criticality; default: the training split of -d")
    fit_examples: int = flag(1000, check=at_least(2), help="at most so many of them")
    stack: int | None = flag(None, check=at_least(1), help="so many sources share a run of what follows the layer; 1 is "
                                                           "exact to the bit, more to rounding; default: up to 8, by memory")
    fold_pool: bool = flag(False, help="sum the first linear layer's weights over the equal outputs of the pool before it "
                                       "(VGGs at 32 px); logits equal up to rounding")
    paper_json: bool = flag(False, help="also write the layout of the paper's own code, into a folder of the record's name")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.inits_from and not self.rand and not self.list_layers:
            raise UsageError("--inits-from or --rand is required: the weights that layers are given")

    def inputs(self) -> dict[str, list[Path]]:
        lists = {word: [inputs.locate(self, word)] for word in self.inits_from if _is_list(self, word)}
        named = [name for name in (self.dataset, self.fit_on) if name]
        return (super().inputs() | lists | {str(path): [path] for path in _init_files(self)[0]}
                | inputs.data_files(self, *named))


@dataclass(frozen=True)
class Source:
    """Where re-initialised weights come from. `label` is the row's source; draws share theirs."""

    label: str
    epoch: int | None
    state: dict
    file: Path | None = None


def reinit(config: ReinitConfig) -> Result:
    """One row per (layer, source), one per missing file, one per (source, predictor) of the drop; a heat map."""
    device = inputs.device(config)
    checkpoint = inputs.load_checkpoint(config, config.model_path, config.model_type, device)
    network, description = checkpoint.network, checkpoint.description
    name = inputs.dataset_name(config.dataset, checkpoint)
    split = inputs.load_split(config, name, image_size=description.image_size)
    if len(split.classes) < 2:
        raise UserError(f"-d {name}: with {len(split.classes)} classes there is nothing to get wrong; it needs at least 2")
    inputs.check_classes(split, description, name)
    size = description.image_size or max(split.height, split.width)
    images = torch.zeros(2, description.channels, size, size, device=device)
    units = reinitialization.targets(network, images, _layers(config, network, images), config.what == "weights+bn")
    sources, missing = _sources(config, description, units, network.body.state_dict())
    seconds, begin = {}, time.perf_counter()
    cells = [[_cell(unit, source, network, config) for source in sources] for unit in units]
    swept, cells_run = network, cells
    fitted = _fitting_batches(config, name, description, size, device) if config.recalibrate_bn or config.criticality else []
    if config.recalibrate_bn:
        cells_run = reinitialization.recalibrated(network, [batch for batch, _ in fitted], units, cells)
    critical = _criticality(config, network, fitted, units, sources)
    if config.fold_pool:
        swept, cells_run = _folded(network, images, units, cells_run)
    seconds["preparation"] = time.perf_counter() - begin
    begin = time.perf_counter()
    counts = _sweep(config, swept, split, description, size, device, units, cells_run)
    seconds["pass"] = time.perf_counter() - begin
    common = {"data": split.name, "split": split.split, "variant": split.variant, "origin": split.origin,
              "n": int((split.labels >= 0).sum()), "classes": len(description.classes), "what": config.what,
              "recalibrated": config.recalibrate_bn}
    facts = _facts(network, units, critical)
    rows = _rows(common, facts, sources, cells, counts, network.body.state_dict())
    analysis = _analysis(common, rows, config.seed)
    absent = [{**common, "source": path, "layer": None, "status": "missing"} for path in missing]
    labels = list(dict.fromkeys(row["source"] for row in rows))
    # rows are in the order of sources and layers; None, where nothing was right to begin with, becomes NaN
    drops = np.array([row["relative_drop"] for row in rows], dtype=float).reshape(len(labels), len(units))
    arrays = {"layers": np.array([unit.layer for unit in units]), "sources": np.array([source.label for source in sources]),
              "top1": counts.cells[..., 0].numpy(), "top5": counts.cells[..., 1].numpy(), "relative_drop": drops}
    title = f"{checkpoint.path} on {name}: accuracy {rows[0]['intact_accuracy']:.4f}"
    figure = plots.reset_map(drops, labels, [unit.layer for unit in units], title)
    documents = {f"reinit_{checkpoint.path.stem}": _paper_layout(description, checkpoint.path, rows, labels)}
    _partial(config).unlink(missing_ok=True)
    columns = ("source", "layer", "status", "accuracy", "accuracy_sd", "relative_drop", "mass", "l2_distance", "predictor",
               "spearman", "p_value", "partial", "partial_p")
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
    listed = graph.layers(network, images)
    leaves = [name for name in owning if next(modules[name].parameters(recurse=False), None) is not None]
    run = {layer.name for layer in listed}
    groups = {"all": [name for name in leaves if name in run],
              "cuts": [layer.name for layer in listed if layer.cut and layer.name in leaves]}
    return graph.select(owning, config.layers, groups)


def _is_list(config: ReinitConfig, word: str) -> bool:
    path = inputs.locate(config, word)
    return path.is_file() and path.suffix not in inputs.SUFFIXES


def _init_files(config: ReinitConfig) -> tuple[list[Path], list[str]]:
    """The files with initial weights, each once, in the order given, and what is named but not there."""
    there, missing = {}, []
    for word in config.inits_from:
        path = inputs.locate(config, word)
        words = [word]
        if _is_list(config, word):
            try:
                words = [line.strip() for line in path.read_text().splitlines() if line.strip()]
            except UnicodeDecodeError:
                raise UserError(f"--inits-from {word}: neither a checkpoint nor a list of paths") from None
        for line in words:
            found = inputs.locate(config, line)
            if not found.exists() and (path.parent / line).exists():
                found = path.parent / line
            if found.exists():
                there |= dict.fromkeys(inputs.snapshots(config, str(found)))
            else:
                missing.append(line)
    return list(there), missing


def _sources(config: ReinitConfig, description, units, own: dict) -> tuple[list[Source], list[str]]:
    """Snapshots by epoch and fresh draws, with the tensors that are needed only; and the files that are missing."""
    there, missing = _init_files(config)
    for path in missing:
        warnings.warn(f"--inits-from: {path} is missing; the others are used", stacklevel=2)
    if not there and not config.rand:
        raise UserError(f"--inits-from {' '.join(config.inits_from)}: none of its files is there")
    needed = {key for unit in units for key in unit.keys}
    found = []
    for file in there:
        described, state = checkpoints.weights(file, description.architecture)
        wrong = [key for key in needed if state[key].shape != own[key].shape]
        if wrong:
            raise UserError(f"--inits-from {file}: {wrong[0]} has the shape {tuple(state[wrong[0]].shape)}, in "
                            f"{config.model_path} it has {tuple(own[wrong[0]].shape)}")
        epoch = described.epoch if described.epoch is not None else inputs.epoch_of(file)
        label = str(epoch) if epoch is not None else file.stem
        if any(source.label == label for source in found):
            label = f"{label} {'/'.join(file.with_suffix('').parts[-2:])}"
        found.append(Source(label, epoch, {key: state[key].to(own[key].device) for key in needed}, file))
    for draw in range(config.rand):
        state = checkpoints.fresh(description, config.seed, "rand", draw).body.state_dict()
        found.append(Source("rand", None, {key: state[key].to(own[key].device) for key in needed}))
    return found, missing


def _cell(unit, source: Source, network, config: ReinitConfig) -> dict | None:
    """What the source puts into the unit; None if that is what the network has, which nothing needs to be run for."""
    own = network.body.state_dict()
    cell = {key: source.state[key] for key in unit.keys}
    same = all(torch.equal(value, own[key]) for key, value in cell.items())
    return None if same and not config.recalibrate_bn else cell


def _fitting_batches(config: ReinitConfig, name: str, description, size: int, device) -> list:
    """Images and labels that the accuracy is not measured on, in batches."""
    split = inputs.fitting_images(config, name, size)
    batches = split.batches(config.batch_size, device=device, channels=description.channels, size=size,
                            workers=config.workers, prefetch=config.prefetch)
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
    return reinitialization.criticality(network, batches, units, states, tolerance=config.criticality, draws=2,
                                        seed=config.seed)


def _folded(network, images, units, cells: list[list]) -> tuple:
    """The network with its replicating pool folded into the first linear layer, and cells that fit it."""
    folded, linear, positions = reinitialization.fold_pool(network, images)
    key = linear + ".weight"
    fitting = [[cell | {key: reinitialization.folded_weight(cell[key], positions)} if cell and key in cell else cell
                for cell in row] for row in cells]
    return folded, fitting


def _sweep(config: ReinitConfig, network, split, description, size: int, device, units, cells):
    """The pass over the data; continues where an interrupted one of the same command, on the same files, had stopped."""
    path = _partial(config)
    state = {"config": cli.identity(config), "inputs": results.fingerprints(config)}
    key = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def save(counts):
        files.write_json(path, {"key": key, "images": counts.images, "intact": counts.intact.tolist(),
                                "cells": counts.cells.tolist()})
    return reinitialization.sweep(
        network, split, units, cells, batch_size=config.batch_size, channels=description.channels, size=size,
        precision=devices.resolve_precision(config.precision, device), counts=_continued(path, key), save=save,
        stacked=_stacked(config, size), workers=config.workers, prefetch=config.prefetch,
        quiet=config.quiet)


def _stacked(config: ReinitConfig, size: int) -> int:
    """How many sources share a run: what they share must be the same for all, and fit into memory."""
    if config.recalibrate_bn:
        return 1  # what follows has statistics of its own in every cell
    return config.stack or min(8, max(1, STACKED_PIXELS // (config.batch_size * size**2)))


STACKED_PIXELS = 2**19  # 512 images of 32 px, whose 64 channels take 134 MB


def _partial(config: ReinitConfig) -> Path:
    """Where the counts of an interrupted pass lie: beside the record."""
    return results.place(config, "reinit").beside(".partial")


def _continued(path: Path, key: str):
    """The counts of an interrupted pass of this very run; None if there are none."""
    try:
        found = json.loads(path.read_text())
        if found["key"] != key:
            return None
        counts = (torch.tensor(found[name], dtype=torch.int64) for name in ("intact", "cells"))
        return reinitialization.Counts(found["images"], *counts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _facts(network, units, critical: list) -> dict[str, dict]:
    """What is known of each layer without running it: place, orientation of its filters, criticality."""
    state, facts = network.body.state_dict(), {}
    for index, (unit, value) in enumerate(zip(units, critical, strict=True)):
        weight = state.get(unit.layer + ".weight")
        fact = {"layer": unit.layer, "index": index, "kind": type(network.body.get_submodule(unit.layer)).__name__,
                "mass": None, "bias": None, "bias_z": None, "abs_mean": None, "criticality": value}
        if weight is not None and weight.ndim > 1:
            share = orientation.mass(orientation.projections(weight))
            score = orientation.z_score(share, len(weight))
            mean = float(np.nanmean(orientation.projections(weight, normalize=True)))
            fact |= {"mass": share, "bias": abs(share - 0.5), "bias_z": abs(score), "abs_mean": abs(mean)}
        facts[unit.layer] = fact
    return facts


def _rows(common: dict, facts: dict, sources: list[Source], cells: list[list], counts, own: dict) -> list[dict]:
    """One row per (source, layer); draws share a row, with the mean of their accuracies and its deviation."""
    n, rows = common["n"], []
    intact, intact_five = (counts.intact.double() / n).tolist()
    shares = counts.cells.double() / n
    for label in dict.fromkeys(source.label for source in sources):
        members = [place for place, source in enumerate(sources) if source.label == label]
        for number, fact in enumerate(facts.values()):
            accuracies = shares[number, members, 0]
            accuracy = accuracies.mean().item()
            moved = [_distance(fact["layer"], sources[place], own) for place in members]
            idle = all(cells[number][place] is None for place in members)
            rows.append({
                **common, **fact, "source": label, "draws": len(members) if label == "rand" else None,
                "status": "unchanged" if idle else "measured", "accuracy": accuracy,
                "accuracy_sd": accuracies.std().item() if len(members) > 1 else None,
                "relative_drop": (intact - accuracy) / intact if intact else None,
                "top5_accuracy": shares[number, members, 1].mean().item() if common["classes"] > 5 else None,
                "se": classification.standard_error(accuracy, n), "intact_accuracy": intact,
                "intact_top5_accuracy": intact_five if common["classes"] > 5 else None,
                "l2_distance": None if None in moved else sum(moved) / len(moved)})
    return rows


def _distance(layer: str, source: Source, own: dict) -> float | None:
    """How far the trained weights of a layer are from the source's."""
    key = layer + ".weight"
    return orientation.distances(own[key], source.state[key])[0] if key in source.state else None


def _analysis(common: dict, rows: list[dict], seed: int) -> list[dict]:
    """Per source and predictor, over the layers: rank correlation with the drop, alone and given depth.

    Layers without filters, and predictors that were not measured, are left out.
    """
    found = []
    for label in dict.fromkeys(row["source"] for row in rows):
        for predictor in PREDICTORS:
            members = [row for row in rows if row["source"] == label and row["relative_drop"] is not None
                       and row[predictor] is not None and np.isfinite(row[predictor])]
            if not members:
                continue
            x, y, depth = (np.array([row[column] for row in members]) for column in (predictor, "relative_drop", "index"))
            found.append({
                **common, "source": label, "layer": None, "status": "analysis", "predictor": predictor,
                "layers": len(members), "spearman": rank_correlation.spearman(x, y),
                "p_value": rank_correlation.spearman_p(x, y, seed=seed),
                "partial": rank_correlation.partial_spearman(x, y, depth),
                "partial_p": rank_correlation.partial_spearman_p(x, y, depth, seed=seed)})
    return found


def _paper_layout(description, path: Path, rows: list[dict], labels: list[str]) -> dict:
    """The paper's JSON (section 3.3): accuracies in per cent, a list over the layers for each source."""
    percent = {label: [100 * row["accuracy"] for row in rows if row["source"] == label] for label in labels}
    five = rows[0]["intact_top5_accuracy"]
    epoch = description.epoch if description.epoch is not None else inputs.epoch_of(path)
    seed = description.config.get("seed")
    return {"init_from_epoch": percent, "arch": description.architecture, "dataset": rows[0]["data"],
            "top1_test": 100 * rows[0]["intact_accuracy"], "top5_test": None if five is None else 100 * five,
            "epoch": str(epoch)} | ({} if seed is None else {"seed": str(seed)})
