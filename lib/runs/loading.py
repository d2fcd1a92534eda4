"""What a configuration names, checked and loaded: data sets, checkpoints, the device.

Every experiment reads its data and networks through these, so that the common flags mean the same everywhere.
Importing this needs no torch.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib import datasets, models
from lib.core import text_table
from lib.core.errors import UsageError, UserError
from lib.core.lazy import lazy
from lib.datasets import names
from lib.representations import feature_dataset
from lib.runs.cli import DeviceConfig, RunConfig, flag
from lib.runs.image_flags import ImagesConfig

if TYPE_CHECKING:
    from lib.datasets.split import Split
    from lib.models.checkpoints import Checkpoint

checkpoints = lazy("lib.models.checkpoints")
devices = lazy("lib.core.devices")
imagenet16 = lazy("lib.datasets.sets.imagenet16")
cutting = lazy("lib.models.cutting")
class_groups = lazy("lib.models.class_groups")
torch = lazy("torch")


def data_files(config: DeviceConfig, *wanted: str) -> dict[str, list[Path]]:
    """The files behind data sets, by name, for a record; built-in sets have none."""
    found = {name: _sources(config, name) for name in wanted}
    return {name: paths for name, paths in found.items() if paths}


def _sources(config: DeviceConfig, name: str) -> list[Path]:
    data = names.parse(name)
    if data.features is None:
        return datasets.sources(name, config.data_root)
    feature_dataset.check_taken(config, name)
    path, _ = feature_dataset.backbone(data.features[0])
    return [locate(config, path), *datasets.sources(str(data.images), config.data_root)]


def checkpoint_files(config: RunConfig, *paths: str) -> dict[str, list[Path]]:
    """Checkpoint files by name, for a record."""
    return {path: [locate(config, path)] for path in paths}


def locate(config: RunConfig, path: str) -> Path:
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


def snapshots(config: RunConfig, path: str) -> list[Path]:
    """The checkpoint at `path`; of the folder of a training run all its epochs, the initial weights first.

    best.pt and resume.pt are left out, and of two files of one epoch the second. Reads no weights.
    """
    found = locate(config, path)
    if not found.is_dir():
        return [found]
    epochs = {}
    for file in sorted(file for file in found.iterdir() if file.suffix in SUFFIXES and file.stem not in ("best", "resume")):
        epoch = epoch_of(file)
        if epoch is not None:
            epochs.setdefault(epoch, file)
    if not epochs:
        raise UserError(f"{path}: a folder without snapshots of a training, such as init.pt and model_5.pt")
    return [epochs[epoch] for epoch in sorted(epochs)]


SUFFIXES = (".pt", ".pth", ".tar", ".safetensors")


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


def check_classes(split: "Split", description, name: str) -> None:
    """Raises `UserError` unless the images are labelled with as many classes as the network has, and are what it takes."""
    feature_dataset.check_whose(split, description, name)
    if bool((split.labels < 0).all()):
        raise UserError(f"-d {name}: its images have no labels, so there is no accuracy")
    ours, theirs = description.classes, split.classes
    if len(ours) != len(theirs):
        raise UserError(f"-d {name}: it has {len(theirs)} classes, the network {len(ours)}")
    if tuple(map(str, ours)) != tuple(map(str, theirs)) and description.dataset:
        warnings.warn(f"{name} has other classes than {description.dataset}, on which the network was trained", stacklevel=2)


def answering(checkpoint: "Checkpoint", split: "Split", name: str):
    """The network, with answers in the split's classes where those are classes of ImageNet, or groups of them.

    Raises `UserError` as `check_classes` does.
    """
    description = checkpoint.description
    members = ()
    if len(split.classes) != len(description.classes):
        members = imagenet16.members(split.classes, tuple(map(str, description.classes)))
    if members:
        return class_groups.Pooled(checkpoint.network, members)
    check_classes(split, description, name)
    return checkpoint.network


def load_split(config: DeviceConfig, name: str, split: str | None = None, *, image_size: int | None = None) -> "Split":
    """The split of a data set, cut down to `--max-examples` images that are evenly spread over it."""
    data = names.parse(name)
    if data.features is not None:
        feature_dataset.check_taken(config, name)
        return _stored_features(config, data, split)
    found = datasets.load(name, config.data_root, split, image_size=image_size, cache_dir=config.cache_dir)
    if config.max_examples is not None and config.max_examples < len(found):
        places = torch.arange(config.max_examples, dtype=torch.float64) * (len(found) / config.max_examples)
        found = found.subset(places.long())
    return found


def _stored_features(config: DeviceConfig, data: names.DataName, split: str | None) -> "Split":
    (path, kind), layer = feature_dataset.backbone(data.features[0]), data.features[1]
    network = checkpoints.load(locate(config, path), kind, device=device(config))
    images = load_split(config, str(data.images), split, image_size=network.description.image_size)
    return feature_dataset.made(
        network,
        layer,
        images,
        data.name,
        cache_dir=config.cache_dir,
        workers=config.workers,
        batch_size=config.batch_size,
        prefetch=config.prefetch,
        quiet=config.quiet,
    )


def check_type(name: str) -> None:
    """A check that `name` is a type, or "auto": the one that the checkpoint's sidecar states."""
    if name != "auto":
        models.check(name)


def fitting_images(config, name: str, size: int) -> "Split":
    """At most `--fit-examples` in-distribution images that no measure is made on.

    The training split of the data set `name`, whatever split it states, unless `--fit-on` names others.
    """
    base = name if "=" in name else name.partition(":")[0]
    return load_split(config, config.fit_on or base, "train", image_size=size).spread(config.fit_examples)


def dataset_name(given: str, checkpoint: "Checkpoint") -> str:
    """The data set that `-d` names, else the one that the checkpoint was trained on."""
    name = given or checkpoint.description.dataset
    if not name:
        raise UserError(f"-d is required: {checkpoint.path} does not say what it was trained on")
    return name


def trained_on(config: RunConfig, path: str) -> str:
    """The data set that a checkpoint's sidecar names, "" where none does: known before the checkpoint is loaded."""
    try:
        return str(json.loads(locate(config, path).with_suffix(".json").read_text())["dataset"])
    except (OSError, ValueError, KeyError, TypeError):  # loading says what is wrong
        return ""


def load_checkpoint(config, path: str, architecture: str = "", device="cpu") -> "Checkpoint":
    """The network in a file, with the type and images that the command line states for files without a sidecar."""
    architecture = "" if architecture == "auto" else architecture
    return checkpoints.load(
        locate(config, path),
        architecture,
        mean=config.mean,
        std=config.std,
        image_size=config.stated_size,
        padding=config.padding,
        device=device,
    )


def device(config: DeviceConfig):
    """The device the run computes on, with its kernels chosen as `--deterministic` asks."""
    devices.set_deterministic(config.deterministic)
    return devices.device(config.gpu)


def check_normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raises `UsageError` unless there are as many means as deviations, and these are positive."""
    if len(mean) != len(std):
        raise UsageError("--mean and --std go together, a number per channel each")
    if any(value <= 0 for value in std):
        raise UsageError(f"--std {std}: not positive")


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig(ImagesConfig):
    """The flags of every script that takes checkpoints."""

    mean: tuple[float, ...] = flag((), help="normalisation of a file without a sidecar: mean per channel, in [0, 1]")
    std: tuple[float, ...] = flag((), help="and standard deviation per channel")
    list_layers: bool = flag(False, help="print the network's layers, their shapes and costs, and stop", identity=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_normalisation(self.mean, self.std)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(CheckpointsConfig):
    """The flags of every script that takes one checkpoint."""

    model_path: str = flag("", positional=True, label="{}", help="checkpoint, such as models/a/model_5.pt")
    model_type: str = flag("", positional=True, check=models.check, help="its type, needed for a file without a sidecar")

    def inputs(self) -> dict[str, list[Path]]:
        return checkpoint_files(self, self.model_path)

    def answer(self) -> str | None:
        if not self.model_path:
            raise UsageError("MODEL_PATH is required: a checkpoint, such as models/a/model_5.pt")
        return layer_tables(self, {self.model_path: self.model_type})


def layer_tables(config: CheckpointsConfig, types: dict[str, str]) -> str | None:
    """What `--list-layers` prints for checkpoints of these types; None without that flag."""
    if not config.list_layers:
        return None
    parts = []
    for path, kind in types.items():
        loaded = load_checkpoint(config, path, kind)
        table = layer_table(loaded.network, loaded.description.channels, loaded.description.image_size or 224)
        parts.append(table if len(types) == 1 else f"{path}\n{table}")
    return "\n\n".join(parts)


def layer_shapes(checkpoint: "Checkpoint", size: int, device="cpu") -> dict[str, tuple[int, ...]]:
    """The shape of one image's output of every layer that puts out a tensor, in execution order."""
    images = torch.zeros(1, checkpoint.description.channels, size, size, device=device)
    return {layer.name: layer.shape for layer in cutting.layers(checkpoint.network, images) if layer.shape}


@dataclass(frozen=True, kw_only=True)
class SnapshotsConfig(RunConfig):
    """The flags of every script that takes any number of checkpoints of one type."""

    model_path: tuple[str, ...] = flag(
        (),
        positional=True,
        label="{}",
        help="checkpoints and folders of training runs; the last word may be the type, which files without a sidecar need",
    )

    @property
    def paths(self) -> tuple[str, ...]:
        return split_type(self.model_path)[0]

    @property
    def model_type(self) -> str:
        return split_type(self.model_path)[1]

    def inputs(self) -> dict[str, list[Path]]:
        return {path: snapshots(self, path) for path in self.paths}


def layer_table(network, channels: int, size: int) -> str:
    """Every layer of a network as lines of text: name, kind, shape, multiply-accumulates, whether it can be cut there."""
    listed = cutting.layers(network, torch.zeros(1, channels, size, size))
    rows = [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "shape": "x".join(map(str, layer.shape)),
            "macs": layer.macs,
            "cut": layer.cut,
            "calls": layer.calls,
        }
        for layer in listed
    ]
    return text_table.text(rows)
