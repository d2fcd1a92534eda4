"""Paths of a checkpoint and its description, and whether they exist. Free of torch; reads no weights."""

from pathlib import Path

from lib.core.errors import UserError
from lib.core.registry import misspelt
from lib.models import paper_names


def check(path: str | Path, architecture: str = "") -> Path:
    """The path, if a checkpoint is there that can be used with this type. Raises `UserError` if not."""
    path = Path(path)
    if path.is_dir():
        inside = ", ".join(sorted(file.name for file in path.glob("[!.]*.pt"))) or "no checkpoints"
        raise UserError(f"{path} is a folder with {inside}; name one file")
    if not path.exists():
        beside = ", ".join(sorted(file.name for file in path.parent.glob("[!.]*.pt"))) if path.parent.is_dir() else ""
        raise UserError(f"{path}: no such checkpoint" + (f"; {path.parent} has {beside}" if beside else misspelt(path)))
    if not sidecar(path).exists() and not architecture and not paper_names.of_file(path):
        raise UserError(
            f"{path} has no sidecar {sidecar(path).name}: its type must be given after the path, such as resnet18, "
            f"tv_resnet50, timm:NAME; python exec_train.py --help lists them"
        )
    return path


def sidecar(path: str | Path) -> Path:
    """Where the description of a checkpoint lies."""
    return Path(path).with_suffix(".json")
