"""The files of the data sets and checkpoints that a configuration names. Loads nothing."""

from pathlib import Path
from typing import ClassVar, Protocol

from lib import datasets, models
from lib.core import files, trusted_files
from lib.core.errors import UsageError, UserError
from lib.datasets import catalogue, names
from lib.models import checkpoint_paths
from lib.representations import feature_dataset
from lib.runs.cli import RunConfig


class DataRoot(Protocol):
    """What a configuration says of where data sets and checkpoints lie."""

    takes_features: ClassVar[bool]

    @property
    def data_root(self) -> str: ...

    @property
    def models_dir(self) -> str: ...

    @property
    def plan(self) -> bool: ...


class ModelsDir(Protocol):
    """What a configuration says of where checkpoints lie."""

    @property
    def models_dir(self) -> str: ...


def data_files(config: DataRoot, *wanted: str) -> dict[str, list[Path]]:
    """The files behind data sets, by name, for a record; built-in sets have none.

    A plan needs no files of a registered set whose sizes are known: where they are missing, the name says how to get them.
    """
    found = {}
    for name in wanted:
        try:
            if paths := _sources(config, name):
                found[name] = paths
        except UserError as error:
            known = catalogue.KNOWN.get(names.parse(name).base)
            if isinstance(error, UsageError) or not config.plan or known is None or not known.sizes:
                raise
            found[f"{name} (not there: {str(error).removeprefix(f'{name}: ')})"] = []
    return found


def _sources(config: DataRoot, name: str) -> list[Path]:
    data = names.parse(name)
    if data.features is None:
        return datasets.sources(name, config.data_root)
    feature_dataset.check_taken(config.takes_features, name)
    path, _ = feature_dataset.backbone(data.features[0])
    return [locate(config, path), *datasets.sources(str(data.images), config.data_root)]


def checkpoint_files(config: RunConfig, *paths: str) -> dict[str, list[Path]]:
    """Checkpoint files by name, for a record."""
    return {path: [locate(config, path)] for path in paths}


def implied_files(config: RunConfig, networks: dict[str, str]) -> dict[str, list[Path]]:
    """What checkpoints, path -> type, are read with: their sidecars, and the Python files that build them."""
    found: dict[str, list[Path]] = {}
    for path, kind in networks.items():
        if not path:
            continue
        beside = checkpoint_paths.sidecar(locate(config, path))
        if beside.exists():
            found[str(checkpoint_paths.sidecar(path))] = [beside]
        found |= type_files(_described(config, path, "architecture") if kind in ("", "auto") else kind)
    return found


def type_files(kind: str) -> dict[str, list[Path]]:
    """The Python file of a type such as `nets.py:small`, by its name in the record."""
    return {file: [Path(file)] for file in trusted_files.named([kind]) if Path(file).exists()}


def implied_data(config: DataRoot, path: str) -> dict[str, list[Path]]:
    """The files of the data set that a checkpoint was trained on, for a run that names none; none where they are missing."""
    try:
        return data_files(config, name) if (name := trained_on(config, path)) else {}
    except UserError:  # loading says what is wrong
        return {}


def check_checkpoints(config: ModelsDir, networks: dict[str, str]) -> None:
    """Raises `UserError` for a checkpoint, path -> type, that is not there or needs a type; empty paths name none."""
    for path, kind in networks.items():
        if path:
            checkpoint_paths.check(locate(config, path), "" if kind == "auto" else kind)


def locate(config: ModelsDir, path: str) -> Path:
    """The checkpoint's path: as given, or under the folder of the checkpoints."""
    given = Path(path)
    under = Path(config.models_dir) / path
    return under if not given.exists() and under.exists() else given


def split_type(words: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Positionals that may end in a type: the others, and the type, "" if the last one is no registered name.

    A folder under models/ that is called like a type is named as `models/<type>`.
    """
    try:
        models.check(words[-1] if words else "")
    except UsageError:
        return words, ""
    return words[:-1], words[-1]


SUFFIXES = (".pt", ".pth", ".tar", ".safetensors")


def snapshots(config: ModelsDir, path: str) -> list[Path]:
    """The checkpoint at `path`; of the folder of a training run all its epochs, the initial weights first.

    best.pt and resume.pt are left out, and of two files of one epoch the second. Reads no weights.
    """
    found = locate(config, path)
    if not found.is_dir():
        return [found]
    epochs = {}
    for file in sorted(
        file
        for file in found.iterdir()
        if file.suffix in SUFFIXES and file.stem not in ("best", "resume") and not files.is_litter(file.name)
    ):
        epoch = epoch_of(file)
        if epoch is not None:
            epochs.setdefault(epoch, file)
    if not epochs:
        raise UserError(f"{path}: a folder without snapshots of a training, such as init.pt and model_5.pt")
    return [epochs[epoch] for epoch in sorted(epochs)]


def epoch_of(path: Path) -> int | None:
    """Finished epochs by the name of a file without a sidecar; -1 for published weights, None where it says nothing.

    The rules of the hyperplanes paper (2.6), without their collisions: `x_init_0.pt` is 0, `x_pretrained_0.pt` is -1,
    the snapshot `x_39.tar` counts from zero and is 40, and `x_40.pt` is 40.
    """
    words = path.stem.split("_")
    if words[-1] == "init" or "init" in words[:-1]:
        return 0
    if not words[-1].isdigit():
        return None
    if path.suffix == ".tar":
        return int(words[-1]) + 1
    return -1 if "pretrained" in words and int(words[-1]) == 0 else int(words[-1])


def trained_on(config: ModelsDir, path: str) -> str:
    """The data set that a checkpoint's sidecar names, "" where none does: known before the checkpoint is loaded."""
    return _described(config, path, "dataset")


def _described(config: ModelsDir, path: str, what: str) -> str:
    try:
        return str(files.read_json(locate(config, path).with_suffix(".json"))[what])
    except (OSError, ValueError, KeyError, TypeError):  # loading says what is wrong
        return ""


def check_layers(text: str) -> None:
    """A check that no word of names joined by commas is empty."""
    if not all(word.strip() for word in text.split(",")):
        raise UsageError(f"{text}: a word between its commas is empty; layers are names or globs joined by commas")


def check_type(name: str) -> None:
    """A check that `name` is a type, or "auto": the one that the checkpoint's sidecar states."""
    if name != "auto":
        models.check(name)
