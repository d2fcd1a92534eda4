"""What a configuration names, checked and loaded: data sets, checkpoints, the device.

Every experiment reads its data and networks through these, so that the common flags mean the same everywhere.
Importing this needs no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib import datasets, models, tables
from lib.cli import DeviceConfig, flag
from lib.errors import UsageError
from lib.lazy import lazy

if TYPE_CHECKING:
    from lib.checkpoints import Checkpoint
    from lib.datasets.split import Split

checkpoints = lazy("lib.checkpoints")
devices = lazy("lib.devices")
graph = lazy("lib.graph")
torch = lazy("torch")


def data_files(config: DeviceConfig, *names: str) -> dict[str, list[Path]]:
    """The files behind data sets, by name, for a record; built-in sets have none."""
    found = {name: datasets.sources(name, config.data_root) for name in names}
    return {name: paths for name, paths in found.items() if paths}


def checkpoint_files(config: DeviceConfig, *paths: str) -> dict[str, list[Path]]:
    """Checkpoint files by name, for a record."""
    return {path: [locate(config, path)] for path in paths}


def locate(config: DeviceConfig, path: str) -> Path:
    """The checkpoint's path: as given, or under the folder of the checkpoints."""
    given = Path(path)
    under = Path(config.models_dir) / path
    return under if not given.exists() and under.exists() else given


def load_split(config: DeviceConfig, name: str, split: str | None = None, *, image_size: int | None = None) -> "Split":
    """The split of a data set, cut down to `--max-examples` images that are evenly spread over it."""
    found = datasets.load(name, config.data_root, split, image_size=image_size, cache_dir=config.cache_dir)
    if config.max_examples is not None and config.max_examples < len(found):
        places = torch.arange(config.max_examples, dtype=torch.float64) * (len(found) / config.max_examples)
        found = found.subset(places.long())
    return found


def check_type(name: str) -> None:
    """A check that `name` is a type, or "auto": the one that the checkpoint's sidecar states."""
    if name != "auto":
        models.check(name)


def load_checkpoint(config, path: str, architecture: str = "", device="cpu") -> "Checkpoint":
    """The network in a file, with the type and normalisation that the command line states for files without a sidecar."""
    architecture = "" if architecture == "auto" else architecture
    return checkpoints.load(locate(config, path), architecture, mean=config.mean, std=config.std, device=device)


def device(config: DeviceConfig):
    """The device the run computes on, with its kernels chosen as `--deterministic` asks."""
    devices.set_deterministic(config.deterministic)
    return devices.device(config.gpu)


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig(DeviceConfig):
    """The flags of every script that takes checkpoints."""

    mean: tuple[float, ...] = flag((), help="normalisation of a file without a sidecar: mean per channel, in [0, 1]")
    std: tuple[float, ...] = flag((), help="and standard deviation per channel")
    list_layers: bool = flag(False, help="print the network's layers, their shapes and costs, and stop", identity=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mean) != len(self.std):
            raise UsageError("--mean and --std go together, a number per channel each")
        if any(value <= 0 for value in self.std):
            raise UsageError(f"--std {self.std}: not positive")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(CheckpointsConfig):
    """The flags of every script that takes one checkpoint."""

    model_path: str = flag("", positional=True, label="{}", help="checkpoint, such as models/a/model_5.pt")
    model_type: str = flag("", positional=True, check=models.check,
                           help="its type, needed for a file without a sidecar")

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
    return {layer.name: layer.shape for layer in graph.layers(checkpoint.network, images) if layer.shape}


def layer_table(network, channels: int, size: int) -> str:
    """Every layer of a network as lines of text: name, kind, shape, multiply-accumulates, whether it can be cut there."""
    listed = graph.layers(network, torch.zeros(1, channels, size, size))
    rows = [{"layer": layer.name, "kind": layer.kind, "shape": "x".join(map(str, layer.shape)), "macs": layer.macs,
             "cut": layer.cut, "calls": layer.calls} for layer in listed]
    return tables.text(rows)
