"""The flags of every script that takes checkpoints."""

from dataclasses import dataclass
from pathlib import Path

from lib import models
from lib.core.errors import UsageError
from lib.runs import input_files
from lib.runs.cli import RunConfig, at_least, flag, swallowed
from lib.runs.image_flags import ImagesConfig


def check_normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raises `UsageError` unless there are as many means as deviations, and these are positive."""
    if len(mean) != len(std):
        raise UsageError("--mean and --std go together, a number per channel each")
    if any(value <= 0 for value in std):
        raise UsageError(f"--std {std}: not positive")


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig(ImagesConfig):
    """The flags of every script that takes checkpoints."""

    mean: tuple[float, ...] = flag(
        (), help="mean per channel, in [0, 1], that a checkpoint without a sidecar normalises by", group="network"
    )
    std: tuple[float, ...] = flag(
        (),
        help="standard deviation per channel, in [0, 1], that a checkpoint without a sidecar normalises by",
        group="network",
    )
    channels: int = flag(
        0,
        check=at_least(0),
        help="channels of the images that a checkpoint without a sidecar was trained on, where its weights do not show them",
        group="network",
    )
    list_layers: bool = flag(
        False, help="print the network's layers with their shapes and costs, and stop", group="network", identity=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_normalisation(self.mean, self.std)

    @property
    def networks(self) -> dict[str, str]:
        """The checkpoints of the run: path -> type. Without a data set it is of the one that the first was trained on."""
        return {}

    def implied(self) -> dict[str, list[Path]]:
        networks = self.networks
        learnt = {} if getattr(self, "dataset", "") else input_files.implied_data(self, next(iter(networks), ""))
        return super().implied() | input_files.implied_files(self, networks) | learnt

    def check_inputs(self) -> None:
        input_files.check_checkpoints(self, self.networks)
        super().check_inputs()

    def layer_tables(self) -> str | None:
        """What `--list-layers` prints; None without that flag."""
        if not self.list_layers:
            return None
        input_files.check_checkpoints(self, self.networks)
        from lib.runs import loading

        return loading.layer_tables(self, self.networks)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(CheckpointsConfig):
    """The flags of every script that takes one checkpoint."""

    model_path: str = flag(
        "",
        positional=True,
        label="{}",
        help="checkpoint, such as models/a/model_5.pt",
        group="network",
        network="net",
        needed=True,
    )
    model_type: str = flag(
        "",
        positional=True,
        check=models.check,
        help="type of the network, needed for a file without a sidecar",
        group="network",
        network_type=True,
    )

    @property
    def networks(self) -> dict[str, str]:
        return {self.model_path: self.model_type}

    def inputs(self) -> dict[str, list[Path]]:
        return input_files.checkpoint_files(self, self.model_path)

    def answer(self) -> str | None:
        if not self.model_path:
            taken = swallowed(self, input_files.SUFFIXES)
            raise UsageError("MODEL_PATH is required: a checkpoint, such as models/a/model_5.pt" + taken)
        return self.layer_tables()


@dataclass(frozen=True, kw_only=True)
class SnapshotsConfig(RunConfig):
    """The flags of every script that takes any number of checkpoints of one type."""

    model_path: tuple[str, ...] = flag(
        (),
        positional=True,
        label="{}",
        help="checkpoints and folders of training runs; the last word may be the type, which files without a sidecar need",
        group="network",
        network="net",
    )

    @property
    def paths(self) -> tuple[str, ...]:
        return input_files.split_type(self.model_path)[0]

    @property
    def model_type(self) -> str:
        return input_files.split_type(self.model_path)[1]

    def inputs(self) -> dict[str, list[Path]]:
        return {path: input_files.snapshots(self, path) for path in self.paths}

    def implied(self) -> dict[str, list[Path]]:
        found = [str(file) for path in self.paths for file in input_files.snapshots(self, path) if file.exists()]
        return super().implied() | input_files.implied_files(self, dict.fromkeys(found, self.model_type))

    def check_inputs(self) -> None:
        for path in self.paths:
            input_files.check_checkpoints(self, {str(file): self.model_type for file in input_files.snapshots(self, path)})
        super().check_inputs()
