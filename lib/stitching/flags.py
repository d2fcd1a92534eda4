"""The flags of the training of detectors."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lib import models
from lib.core.errors import UsageError
from lib.datasets.catalogue import AUGMENTATIONS
from lib.runs import input_files
from lib.runs.cli import SeedConfig, at_least, flag
from lib.runs.network_flags import CheckpointsConfig
from lib.training.flags import OptimizationConfig

SCORES = ("energy", "OE")


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(OptimizationConfig, CheckpointsConfig, SeedConfig):
    """The flags of the training of detectors of a network's layers."""

    source_path: str = flag(
        "",
        positional=True,
        label="{}",
        help="checkpoint of the source network, whose representations are classified",
        group="network",
        network="net",
        needed=True,
    )
    source_type: str = flag(
        "auto",
        positional=True,
        check=input_files.check_type,
        help="type of the source network; auto: the one that its sidecar states",
        group="network",
        network_type=True,
    )
    layer: tuple[str, ...] = flag(
        (),
        positional=True,
        commas=True,
        label="{}",
        help="layers of the source network: names or globs, or cuts",
        group="network",
        selects=True,
        needed=True,
    )
    model_type: str = flag(
        "",
        "-m",
        choices=models.REPRESENTATIONS,
        label="{}",
        help="type of the classifiers that are trained: a resnet for maps, a vit for tokens",
        group="network",
        network_type=True,
        needed=True,
    )
    dataset: str = flag(
        "",
        "-d",
        help="data set that the classifiers are trained on; default: the one that the source network was trained on",
        group="data",
    )
    directory: str = flag(
        "",
        "-dir",
        help="folder under models/ for the checkpoints, with a folder in it for each layer",
        group="output",
        selects=True,
        needed=True,
    )
    detectors_dir: str = flag(
        "repr_cls_ood_detectors",
        "-fdir",
        help="folder under models/ for the finished detectors",
        group="output",
        selects=True,
    )
    epochs: int = flag(
        100, "-e", label="e{}", check=at_least(1), help="epochs of training the classifiers", group="training"
    )
    augmentation: str = flag(
        "auto",
        choices=("auto", *AUGMENTATIONS),
        help="augmentation of the training images; auto is the data set's customary one",
        group="data",
    )
    ft_epochs: int = flag(
        20, "-fe", label="fe{}", check=at_least(0), help="epochs of fine-tuning with outliers; 0: none", group="training"
    )
    ft_id: str = flag(
        "",
        "-ftidd",
        help="in-distribution data set of the fine-tuning; default: that of -d",
        group="data",
        metavar="DATASET",
    )
    ft_id_root: str = flag(
        "", "-ftiddata", help="folder of the data set of -ftidd; default: that of -data", group="data", identity=False
    )
    ft_outliers: str = flag(
        "",
        "-ftoodd",
        help="outlier data set of the fine-tuning; its training split is used",
        group="data",
        metavar="DATASET",
    )
    ft_outliers_root: str = flag(
        "", "-ftooddata", help="folder of the data set of -ftoodd; default: that of -data", group="data", identity=False
    )
    m_in: float = flag(-25.0, "-m-in", help="margin of the fine-tuning: images of -ftidd are pushed to energies below it")
    m_out: float = flag(-7.0, "-m-out", help="margin of the fine-tuning: outliers are pushed to energies above it")
    score: str = flag(
        "energy",
        "-score",
        choices=SCORES,
        help="loss term of the fine-tuning: squared hinges of the energies, or outlier exposure",
    )
    ft_sched: str = flag(
        "per-epoch",
        choices=("per-epoch", "per-batch"),
        help="when the learning rate of the fine-tuning is multiplied by 0.1: after half of the epochs, or, "
        "as published, after that number of batches",
        group="training",
    )
    snapshot_every: int = flag(
        0,
        "-sf",
        check=at_least(0),
        help="epochs from one saved checkpoint to the next; 0: only the last is saved",
        group="training",
        selects=True,
    )
    resume: bool = flag(
        True,
        help="continue an interrupted run of the same command; --no-resume begins it again",
        group="training",
        identity=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.list_layers:
            return
        for value, name, meaning in (
            (self.model_type, "-m", "the type of the classifiers, such as repr_cls_resnet18"),
            (self.directory, "-dir", "a folder under models/ for the checkpoints"),
        ):
            if not value:
                raise UsageError(f"{name} is required: {meaning}")
        if Path(self.directory).is_absolute() or ".." in Path(self.directory).parts:
            raise UsageError(f"-dir {self.directory}: a folder under {self.models_dir}/ is named, such as cifar10/a")
        if self.ft_epochs and not self.ft_outliers:
            raise UsageError("-ftoodd is required: outliers to fine-tune against; without them -fe 0")
        if self.ft_epochs and self.batch_size < 4:
            raise UsageError(f"-b {self.batch_size}: half of a batch of the fine-tuning are outliers, so it holds 4 or more")
        if self.m_in >= self.m_out:
            raise UsageError(f"-m-in {self.m_in}: not below -m-out {self.m_out}; outliers have the higher energy")
        for name, value in (("-d", self.dataset), ("-ftidd", self.ft_id)):
            if ":" in value and "=" not in value:
                raise UsageError(f"{name} {value}: a data set without a split is named; its train and test are used")

    @property
    def of_ft_id(self) -> Self:
        """The configuration with the data root of -ftidd."""
        return dataclasses.replace(self, data_root=self.ft_id_root or self.data_root)

    @property
    def of_outliers(self) -> Self:
        """The configuration with the data root of -ftoodd."""
        return dataclasses.replace(self, data_root=self.ft_outliers_root or self.data_root)

    @property
    def last(self) -> str:
        """The name of the last checkpoint of a layer."""
        return f"ft_model_{self.ft_epochs}.pt" if self.ft_epochs else f"model_{self.epochs}.pt"
