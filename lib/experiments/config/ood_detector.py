"""The flags of `exec_ood_detector.py`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib import models
from lib.core.errors import UsageError
from lib.datasets.catalogue import AUGMENTATIONS
from lib.runs import input_files
from lib.runs.cli import at_least, flag
from lib.runs.network_flags import CheckpointsConfig
from lib.stitching import detector_files
from lib.training import run_folder
from lib.training.flags import OptimizationConfig

if TYPE_CHECKING:
    pass

SCORES = ("energy", "OE")


@dataclass(frozen=True, kw_only=True)
class OodDetectorConfig(OptimizationConfig, CheckpointsConfig):
    """Trains a classifier of what a layer puts out, and fine-tunes it such that its energy tells outliers."""

    source_path: str = flag("", positional=True, label="{}", help="checkpoint of the network that puts out representations")
    source_type: str = flag(
        "auto", positional=True, check=input_files.check_type, help="its type; auto: the one its sidecar states"
    )
    layer: tuple[str, ...] = flag((), positional=True, commas=True, label="{}", help="layers: names or globs, or cuts")
    model_type: str = flag(
        "",
        "-m",
        choices=models.REPRESENTATIONS,
        label="{}",
        help="type of the classifiers: a resnet for maps, a vit for tokens",
    )
    dataset: str = flag("", "-d", help="data set that they are trained on; default: the one that the source was trained on")
    directory: str = flag("", "-dir", help="folder under models/ for the checkpoints, one in it for each layer")
    detectors_dir: str = flag("repr_cls_ood_detectors", "-fdir", help="folder under models/ for the finished detectors")
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
    snapshot_every: int = flag(0, "-sf", check=at_least(0), help="save every so many epochs; 0: only the last")
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

    def answer(self) -> str | None:
        if not self.source_path or not (self.layer or self.list_layers):
            raise UsageError("SOURCE_PATH SOURCE_TYPE LAYER ... are required: a checkpoint, its type or auto, and layers")
        return self.layer_tables()

    @property
    def networks(self) -> dict[str, str]:
        return {self.source_path: self.source_type}

    def work(self) -> list[str]:
        from lib.runs import plan
        from lib.stitching import grid

        def chosen(checkpoint, listed):
            shapes = {layer.name: layer.shape for layer in listed if layer.shape}
            return grid.choose(checkpoint, shapes, self.layer, "LAYER")

        data = self.dataset, *filter(None, (self.ft_id, self.ft_outliers))
        return plan.of_checkpoints(
            self,
            [(self.source_path, self.source_type, chosen)],
            data,
            f"{self.epochs} epochs of a classifier per layer, {self.ft_epochs} of its fine-tuning",
        )

    def inputs(self) -> dict[str, list[Path]]:
        found = input_files.checkpoint_files(self, self.source_path)
        for name, config in ((self.dataset, self), (self.ft_id, self.of_ft_id), (self.ft_outliers, self.of_outliers)):
            found |= input_files.data_files(config, name) if name else {}
        return found

    def outputs(self) -> list[Path]:
        # which layers a glob stands for is known from the folders that they have
        folder = run_folder.folder(self)
        layers = sorted(path.parent.name for path in folder.glob(f"*/{self.last}"))
        return [detector_files.path_of(self, layer) for layer in layers] or [folder / "*" / self.last]

    @property
    def of_ft_id(self) -> "OodDetectorConfig":
        """The configuration with the data root of -ftidd."""
        return dataclasses.replace(self, data_root=self.ft_id_root or self.data_root)

    @property
    def of_outliers(self) -> "OodDetectorConfig":
        """The configuration with the data root of -ftoodd."""
        return dataclasses.replace(self, data_root=self.ft_outliers_root or self.data_root)

    @property
    def last(self) -> str:
        """The name of the last checkpoint of a layer."""
        return f"ft_model_{self.ft_epochs}.pt" if self.ft_epochs else f"model_{self.epochs}.pt"
