"""Evaluating a checkpoint: `exec_eval.py`."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from lib import inputs, results, tables
from lib.cli import flag
from lib.errors import UserError
from lib.inputs import NetworkConfig
from lib.lazy import lazy
from lib.results import Result

classification = lazy("lib.metrics.classification")
devices = lazy("lib.devices")
plots = lazy("lib.plots.confusion")
training = lazy("lib.training")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(NetworkConfig):
    """Accuracy, loss and calibration of a checkpoint."""

    dataset: tuple[str, ...] = flag((), "-d", label="{}", help="data sets to evaluate on; default: the test split of the "
                                                               "one it was trained on")
    save_logits: bool = flag(False, help="keep every image's logits and label in the .npz")
    show_list: bool = flag(False, "--list", help="list the runs and checkpoints there are, and stop", identity=False)

    def answer(self) -> str | None:
        return _listing(self) if self.show_list else super().answer()

    def inputs(self) -> dict[str, list[Path]]:
        return super().inputs() | inputs.data_files(self, *self.dataset)


def eval(config: EvalConfig) -> Result:
    """One row per data set, then one per class and per group of each; confusion matrices; logits on request."""
    device = inputs.device(config)
    checkpoint = inputs.load_checkpoint(config, config.model_path, config.model_type, device)
    description = checkpoint.description
    names = config.dataset or ((description.dataset,) if description.dataset else ())
    if not names:
        raise UserError(f"-d is required: {checkpoint.path} does not say what it was trained on")
    precision = devices.resolve_precision(config.precision, device)
    rows, arrays, figures, seconds = [], {}, {}, {}
    for name in names:
        begin = time.perf_counter()
        split = inputs.load_split(config, name, image_size=description.image_size)
        _check_classes(split, description, name)
        logits = training.predict(checkpoint.network, split, batch_size=config.batch_size, channels=description.channels,
                                  size=description.image_size, precision=precision, workers=config.workers,
                                  prefetch=config.prefetch, quiet=config.quiet)
        labels = split.labels
        rows += _rows(split, logits, labels)
        key = f"{split.name}-{split.split}" + (f"-{split.variant}" if split.variant else "")
        if config.save_logits:
            arrays |= {f"logits_{key}": logits.numpy(), f"labels_{key}": labels.numpy(),
                       f"indices_{key}": split.indices.numpy()}
        counts = classification.confusion(logits, labels, len(split.classes))
        title = f"{checkpoint.path} on {key}"
        figures[key if len(names) > 1 else ""] = plots.confusion(counts.numpy(), split.classes, title)
        seconds[name] = time.perf_counter() - begin
    return Result(rows, arrays, figures, seconds,
                  columns=("data", "split", "variant", "subset", "n", "accuracy", "se", "top5", "loss", "ece"))


def _rows(split, logits, labels) -> list[dict]:
    """The row of the whole split (subset "all"), and rows of its classes and groups."""
    parts = {"all": labels >= 0}
    if len(split.group_names) > 1:
        parts |= {f"group:{name}": split.groups == number for number, name in enumerate(split.group_names)}
    parts |= {f"class:{name}": labels == number for number, name in enumerate(split.classes)}
    rows = []
    for subset, chosen in parts.items():
        part, truth = logits[chosen], labels[chosen]
        accuracy = classification.accuracy(part, truth)
        top5 = classification.top_k_correct(part, truth, 5) / len(truth) if logits.shape[1] > 5 and len(truth) else None
        rows.append({
            "data": split.name, "split": split.split, "variant": split.variant, "origin": split.origin, "subset": subset,
            "n": len(truth), "accuracy": accuracy, "se": classification.standard_error(accuracy, len(truth)), "top5": top5,
            "loss": classification.cross_entropy(part, truth),
            "ece": classification.calibration_error(part, truth) if subset == "all" else None,
        })
    return rows


def _check_classes(split, description, name: str) -> None:
    if bool((split.labels < 0).all()):
        raise UserError(f"-d {name}: its images have no labels, so there is no accuracy")
    ours, theirs = description.classes, split.classes
    if len(ours) != len(theirs):
        raise UserError(f"-d {name}: it has {len(theirs)} classes, the network {len(ours)}")
    if tuple(map(str, ours)) != tuple(map(str, theirs)) and description.dataset:
        warnings.warn(f"{name} has other classes than {description.dataset}, on which the network was trained", stacklevel=2)


def _listing(config: EvalConfig) -> str:
    """The checkpoints and the records there are, as text."""
    checkpoints = [{"checkpoint": str(path), "MiB": round(path.stat().st_size / 2**20, 1)}
                   for path in sorted(Path(config.models_dir).rglob("*.pt"))]
    runs = [{"record": str(path), "rows": len(record["rows"]), "started": record["started"]}
            for path, record in results.records(config.results_dir)]
    return "\n\n".join(tables.text(rows) if rows else f"no {what}"
                       for rows, what in ((checkpoints, f"checkpoints under {config.models_dir}"),
                                          (runs, f"records under {config.results_dir}")))
