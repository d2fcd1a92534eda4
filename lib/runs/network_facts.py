"""What records say of the networks that their runs read, so that figures and reports can name them. Free of torch."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from lib.core import files
from lib.models import checkpoint_paths
from lib.runs import input_files
from lib.runs.cli import RunConfig


def read(config_class: type[RunConfig], settings: Mapping, rows: list[dict]) -> dict[str, dict]:
    """Path, as settings and rows have it -> architecture, data set, number of classes, epoch, loss and seed.

    From the sidecars that are there now; of a file without one the type that the settings state. Nothing is raised: what
    is not known is left out.
    """
    models = Path(settings.get("models_dir") or "models")
    stated = _stated(config_class, settings)
    named = [str(row[column]) for column in _columns(config_class) for row in rows if row.get(column)]
    found = {}
    for path in dict.fromkeys([*stated, *named]):
        file = Path(path) if Path(path).exists() else models / path
        known = [_about(one, stated.get(path, "")) for one in ([file] if not file.is_dir() else _latest_first(file))]
        found[path] = next(filter(None, known), {})
    return {path: known for path, known in found.items() if known}


def _stated(config_class: type[RunConfig], settings: Mapping) -> dict[str, str]:
    """The paths of networks among the settings -> their types, "" where none is stated."""
    found = {}
    for field in dataclasses.fields(config_class):
        if field.metadata.get("network") and (value := settings.get(field.name)):
            named, kind = (value,), settings.get(field.name.replace("path", "type")) or ""
            if not isinstance(value, str):
                named, kind = input_files.split_type(tuple(value))
            found |= dict.fromkeys(named, kind if isinstance(kind, str) else "")
    return found


def _columns(config_class: type[RunConfig]) -> tuple[str, ...]:
    """The columns of rows that hold paths of networks."""
    columns = config_class.columns
    return tuple(column for column in (columns.network, *columns.roles) if column)


def _latest_first(folder: Path) -> list[Path]:
    """The snapshots of a training, the last epoch first."""
    found = [(input_files.epoch_of(file), file) for file in folder.glob("*.json")]
    return [file for _, file in sorted(((epoch, file) for epoch, file in found if epoch is not None), reverse=True)]


def _about(path: Path, kind: str) -> dict:
    try:
        described = files.read_json(checkpoint_paths.sidecar(path))
        return {
            "architecture": str(described["architecture"]),
            "dataset": str(described.get("dataset") or ""),
            "classes": len(described["classes"]),
            "epoch": described.get("epoch"),
            "loss": described.get("config", {}).get("loss"),
            "seed": described.get("config", {}).get("seed"),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # loading says what is wrong with it
        return {"architecture": kind} if kind and kind != "auto" else {}
