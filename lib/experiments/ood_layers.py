"""The energy of every layer as a detector of out-of-distribution images: `exec_ood_layers.py`.

Guglielmo & Masana, "Leveraging Intermediate Representations for Better Out-of-Distribution Detection", CVWW 2025. The
paper's figure turns every AUROC below 0.5 round; rows here carry the raw one, and the turned one as that of an oracle
that knows the sign.
"""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from lib import inputs
from lib.cli import above, at_least, flag
from lib.errors import UsageError, UserError
from lib.inputs import NetworkConfig
from lib.lazy import lazy
from lib.results import Result

classification = lazy("lib.metrics.classification")
detection = lazy("lib.metrics.detection")
energies = lazy("lib.energies")
graph = lazy("lib.graph")
np = lazy("numpy")
plots = lazy("lib.plots.layers")
torch = lazy("torch")


@dataclass(frozen=True, kw_only=True)
class OodLayersConfig(NetworkConfig):
    """AUROC of every layer's energy between in- and out-of-distribution images."""

    dataset: str = flag("", "-d", label="{}", help="in-distribution data; default: the test split of the one it was trained "
                                                   "on")
    ood: tuple[str, ...] = flag((), "-ood", label="{}", help="out-of-distribution data sets")
    layers: tuple[str, ...] = flag((), "-l", commas=True, help="names or globs, cuts, all; default: every Conv2d, Linear "
                                                               "and BatchNorm2d")
    temperature: tuple[float, ...] = flag((1.0,), "-T", check=above(0), help="temperatures of the energy")
    fit_on: str = flag("", help="in-distribution images for median and MAD of the two-sided score; default: the training "
                                "split of -d")
    fit_examples: int = flag(5000, check=at_least(2), help="at most so many of them")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ood and not self.list_layers:
            raise UsageError("-ood is required: one or more out-of-distribution data sets")

    def inputs(self) -> dict[str, list[Path]]:
        named = [name for name in (self.dataset, self.fit_on, *self.ood) if name]
        return super().inputs() | inputs.data_files(self, *named)


def ood_layers(config: OodLayersConfig) -> Result:
    """One row per (layer, OOD set, temperature); every image's energies in the arrays; a bar figure per OOD set."""
    device = inputs.device(config)
    checkpoint = inputs.load_checkpoint(config, config.model_path, config.model_type, device)
    network, description = checkpoint.network, checkpoint.description
    name = config.dataset or description.dataset
    if not name:
        raise UserError(f"-d is required: {checkpoint.path} does not say what it was trained on")
    inside = inputs.load_split(config, name, image_size=description.image_size)
    size = description.image_size or max(inside.height, inside.width)
    outside = [inputs.load_split(config, other, image_size=size) for other in config.ood]
    fitted = _fitting_images(config, name, size)
    listed = graph.layers(network, torch.zeros(1, description.channels, size, size, device=device))
    layers = choose_layers(network, listed, config.layers)

    seconds = {}

    def measure(split, stage):
        begin = time.perf_counter()
        found = energies.layer_energies(network, split, layers, config.temperature, batch_size=config.batch_size,
                                        channels=description.channels, size=size, workers=config.workers,
                                        prefetch=config.prefetch, quiet=config.quiet)
        seconds[f"pass over {stage}"] = time.perf_counter() - begin
        return found

    columns, id_energies, logits = measure(inside, name)
    _, fit_energies, _ = measure(fitted, "fitting images")
    facts = _facts(network, listed, columns)
    common = {"id": inside.name, "id_split": inside.split, "n_id": len(inside),
              "id_accuracy": classification.accuracy(logits, inside.labels) if _same_classes(inside, description) else None,
              "fit_on": f"{fitted.name}:{fitted.split}", "n_fit": len(fitted)}
    arrays = {"layers": np.array(columns), "temperatures": np.array(config.temperature), "energies_id": id_energies,
              "energies_fit": fit_energies, "predictions_id": logits.argmax(1).numpy(), "labels_id": inside.labels.numpy()}
    rows, figures, scoring = [], {}, 0.0
    for other, split in zip(config.ood, outside, strict=True):
        if split.name == inside.name and split.split == inside.split and split.variant == inside.variant:
            warnings.warn(f"-ood {other} is the in-distribution set itself: every AUROC is 0.5", stacklevel=2)
        _, ood_energies, _ = measure(split, other)
        begin = time.perf_counter()
        arrays[f"energies_{other}"] = ood_energies
        key = {"ood": split.name, "ood_split": split.split, "variant": split.variant, "origin": split.origin,
               "n_ood": len(split)}
        for place, temperature in enumerate(config.temperature):
            measured = _measures(id_energies[..., place], ood_energies[..., place], fit_energies[..., place])
            rows += [{**common, **key, **facts[column], "T": temperature,
                      **{measure: values[number] for measure, values in measured.items()}}
                     for number, column in enumerate(columns)]
        figures[_suffix(other) if len(outside) > 1 else ""] = _figure(rows[-len(columns):], description, other)
        scoring += time.perf_counter() - begin
    return Result(rows, arrays, figures, {**seconds, "scoring": scoring},
                  columns=("layer", "ood", "T", "dim", "mac_fraction", "auroc", "se", "auroc_two_sided", "fpr95", "aupr_in"))


def choose_layers(network, listed, patterns: tuple[str, ...]) -> list[str]:
    """The layers that `--layers` names, in registration order; those without an energy are refused only by name."""
    usable = {layer.name for layer in listed if layer.shape}
    order = [name for name, _ in (network.body.named_modules()) if name]
    default = [name for name in energies.default_layers(network) if name in usable]
    if not patterns:
        return default
    for pattern in patterns:
        if pattern in order and pattern not in usable:
            raise UserError(f"--layers {pattern}: it puts out no tensor in a forward pass, so it has no energy")
    groups = {"all": [name for name in order if name in usable], "cuts": [layer.name for layer in listed if layer.cut]}
    return graph.select([name for name in order if name in usable], patterns, groups)


def _fitting_images(config: OodLayersConfig, name: str, size: int):
    """In-distribution images that no measure is made on: the training split, unless `--fit-on` names others."""
    base = name if "=" in name else name.partition(":")[0]
    split = inputs.load_split(config, config.fit_on or base, "train", image_size=size)
    if len(split) <= config.fit_examples:
        return split
    return split.subset(torch.arange(config.fit_examples) * len(split) // config.fit_examples)


def _facts(network, listed, columns: list[str]) -> dict[str, dict]:
    """What each column's layer is: place in registration and execution order, kind, size, share of the cost."""
    by_name = {layer.name: layer for layer in listed}
    spent = graph.macs_before(listed)
    order = {name: number for number, (name, _) in enumerate(network.body.named_modules())}
    ranked = sorted({column.partition("@")[0] for column in columns}, key=order.get)
    facts = {}
    for column in columns:
        layer = by_name[column.partition("@")[0]]
        facts[column] = {"layer": column, "index": ranked.index(layer.name), "execution_index": layer.index,
                         "kind": layer.kind, "dim": int(np.prod(layer.shape)), "mac_fraction": spent[layer.name]}
    return facts


def _measures(inside, outside, fitted) -> dict:
    """Arrays (L,) of all measures, from energies (n, L), (m, L) and (f, L)."""
    auroc = detection.auroc(inside, outside)
    return {
        "auroc": auroc, "sign": np.where(auroc >= 0.5, 1, -1), "auroc_oracle_sign": np.maximum(auroc, 1 - auroc),
        "auroc_two_sided": detection.auroc(detection.deviation(inside, fitted), detection.deviation(outside, fitted)),
        "se": detection.auroc_standard_error(auroc, len(inside), len(outside)),
        "fpr95": detection.fpr_at_tpr(inside, outside), "aupr_in": detection.average_precision_in(inside, outside),
        "aupr_out": detection.average_precision_out(inside, outside),
    }


def _figure(rows: list[dict], description, other: str):
    final = max(rows, key=lambda row: row["execution_index"])["layer"]
    return plots.layer_bars([row["layer"] for row in rows], [row["auroc"] for row in rows], [row["se"] for row in rows],
                            final, f"{description.architecture}: {rows[0]['id']} against {other}")


def _same_classes(split, description) -> bool:
    return len(split.classes) == len(description.classes) and bool((split.labels >= 0).any())


def _suffix(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
