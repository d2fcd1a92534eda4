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
        "", positional=True, label="{}", help="checkpoint of the network that puts out representations", network="net"
    )
    source_type: str = flag(
        "auto",
        positional=True,
        check=input_files.check_type,
        help="its type; auto: the one its sidecar states",
        network_type=True,
    )
    layer: tuple[str, ...] = flag(
        (), positional=True, commas=True, label="{}", help="layers: names or globs, or cuts", selects=True
    )
    model_type: str = flag(
        "",
        "-m",
        choices=models.REPRESENTATIONS,
        label="{}",
        help="type of the classifiers: a resnet for maps, a vit for tokens",
        network_type=True,
    )
    dataset: str = flag("", "-d", help="data set that they are trained on; default: the one that the source was trained on")
    directory: str = flag(
        "", "-dir", help="folder under models/ for the checkpoints, one in it for each layer", selects=True
    )
    detectors_dir: str = flag(
        "repr_cls_ood_detectors", "-fdir", help="folder under models/ for the finished detectors", selects=True
    )
    epochs: int = flag(100, "-e", label="e{}", check=at_least(1), help="epochs of training the classifiers")
    augmentation: str = flag(
        "auto",
        choices=("auto", *AUGMENTATIONS),
        help="augmentation of the training images; auto is the data set's customary one",
    )
    ft_epochs: int = flag(20, "-fe", label="fe{}", check=at_least(0), help="epochs of fine-tuning with outliers; 0: none")
    ft_id: str = flag("", "-ftidd", help="in-distribution images of the fine-tuning; default: those of -d")
    ft_id_root: str = flag("", "-ftiddata", help="folder of its data set; default: that of -data", identity=False)
    ft_outliers: str = flag("", "-ftoodd", help="outliers of the fine-tuning: a data set, its training split")
    ft_outliers_root: str = flag("", "-ftooddata", help="folder of its data set; default: that of -data", identity=False)
    m_in: float = flag(-25.0, "-m-in", help="energy below which images of -ftidd are to be")
    m_out: float = flag(-7.0, "-m-out", help="energy above which outliers are to be")
    score: str = flag(
        "energy",
        "-score",
        choices=SCORES,
        help="term of the fine-tuning: squared hinges of the energies, or outlier exposure",
    )
    ft_sched: str = flag(
        "per-epoch",
        choices=("per-epoch", "per-batch"),
        help="when the learning rate of the fine-tuning is multiplied by 0.1: after half its epochs, or, "
        "as published, after that number of batches",
    )
    snapshot_every: int = flag(0, "-sf", check=at_least(0), help="save every so many epochs; 0: only the last", selects=True)
    resume: bool = flag(
        True, help="continue an interrupted run of the same command; --no-resume begins it again", identity=False
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
