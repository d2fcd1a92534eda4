"""Detectors of a layer's representations: `exec_ood_detector.py`.

Stitching paper, sections 2.7 and 4 of its code. models/<dir>/ holds resume.pt, and for each layer a folder with the
epochs that were asked for: model_<e>.pt of the classifier, ft_model_<e>.pt of its fine-tuning. The result goes to the
folder of detectors (`lib.stitching.detector_files`), where `exec_stitch_ood.py` finds it. Where the published code differs:
its seed is fixed, and its learning rate falls after so many batches of fine-tuning as half its epochs are
(`--ft-sched per-batch`).
"""

import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib import models
from lib.core import files
from lib.core.errors import Interrupted, UsageError
from lib.core.lazy import lazy
from lib.datasets.catalogue import AUGMENTATIONS
from lib.runs import loading, plan
from lib.runs.cli import at_least, flag
from lib.runs.loading import CheckpointsConfig
from lib.runs.records import Result
from lib.stitching import detector_files
from lib.training import run_folder
from lib.training.optimizers import OptimizationConfig

if TYPE_CHECKING:
    from lib.stitching.detector_setup import Job, Stage

checkpoints = lazy("lib.models.checkpoints")
detector_setup = lazy("lib.stitching.detector_setup")
detector = lazy("lib.stitching.detector")
grid = lazy("lib.stitching.grid")
tensorboard = lazy("torch.utils.tensorboard")
loop = lazy("lib.training.loop")

SCORES = ("energy", "OE")


@dataclass(frozen=True, kw_only=True)
class OodDetectorConfig(OptimizationConfig, CheckpointsConfig):
    """Trains a classifier of what a layer puts out, and fine-tunes it such that its energy tells outliers."""

    source_path: str = flag("", positional=True, label="{}", help="checkpoint of the network that puts out representations")
    source_type: str = flag(
        "auto", positional=True, check=loading.check_type, help="its type; auto: the one its sidecar states"
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
        return loading.layer_tables(self, {self.source_path: self.source_type})

    def work(self) -> list[str]:
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
        found = loading.checkpoint_files(self, self.source_path)
        for name, config in ((self.dataset, self), (self.ft_id, self.of_ft_id), (self.ft_outliers, self.of_outliers)):
            found |= loading.data_files(config, name) if name else {}
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


def ood_detector(config: OodDetectorConfig) -> Result:
    """One row per layer and epoch of either phase; the detector's path in the row of the last one."""
    begin = time.perf_counter()
    job = detector_setup.prepare(config)
    directory = run_folder.folder(config)
    with files.locked(
        directory / ".lock", f"another process is training in {directory}; wait for it, or choose another -dir"
    ):
        run_folder.claim(directory, config)
        if config.overwrite or not config.resume:
            for layer in job.layers:
                run_folder.clear(directory / layer)
        rows = _train(config, directory, job)
    seconds = {"training": sum(row["seconds"] for row in rows[:: len(job.layers)])}
    seconds["setup"] = time.perf_counter() - begin - seconds["training"]
    return Result(
        rows,
        seconds=seconds,
        columns=(
            "layer",
            "phase",
            "epoch",
            "train_loss",
            "train_accuracy",
            "val_loss",
            "val_accuracy",
            "energy_in",
            "energy_out",
            "detector",
        ),
    )


def _train(config: OodDetectorConfig, directory: Path, job: "Job") -> list[dict]:
    optimiser = detector_setup.optimiser(config, job.classifiers)
    rows, position = run_folder.resume(directory, job.classifiers, optimiser, None, job.stages[0].recipe.loss, config.quiet)
    with (
        tensorboard.SummaryWriter(str(directory / "tensorboard"), purge_step=position.epoch) as curves,
        loop.Stopping().listening() as stopping,
    ):
        while position.epoch <= config.epochs + config.ft_epochs:
            stage = job.stages[position.epoch > config.epochs]
            if position.epoch == config.epochs + 1 and position.step == 0:
                optimiser = detector_setup.optimiser(config, job.classifiers)  # fine-tuning has its own
            whole = loop.train_epoch(job.classifiers, stage.split, optimiser, stage.recipe, position, stopping)
            if whole:
                new = _rows(config, stage, position, job)
                _log(config, curves, new, position.epoch)
                _keep(config, directory, new, job)
                rows += new
                position = loop.Position(epoch=position.epoch + 1)
            if whole or stopping.by:
                run_folder.save_state(directory, job.classifiers, optimiser, None, stage.recipe.loss, rows, position)
            if stopping.by:
                raise Interrupted(
                    f"stopped by {stopping.by} in epoch {position.epoch}, step {position.step}; the same "
                    f"command continues from {directory}/resume.pt"
                )
    for row, network in zip(rows[-len(job.layers) :], job.classifiers.body, strict=True):
        whole = dataclasses.replace(job.described[row["layer"]], epoch=row["epoch"], metrics=dict(row))
        row["detector"] = str(detector_files.publish(config, row["layer"], checkpoints.Normalized(network), whole))
    return rows


def _rows(config: OodDetectorConfig, stage: "Stage", position, job: "Job") -> list[dict]:
    """The rows of a finished epoch, with its measures on the test images."""
    measured = detector.validate(job.source, job.layers, job.classifiers, job.val_split, job.passes)
    trained_on = detector.finish_epoch(stage.recipe.loss.state)
    first = config.epochs if stage.phase == "fine-tune" else 0
    rows = []
    for layer, trained, tested in zip(job.layers, trained_on, measured, strict=True):
        rows.append(
            {
                "layer": layer,
                "model_type": config.model_type,
                "phase": stage.phase,
                "epoch": position.epoch - first,
                "data": stage.split.name,
                "outliers": config.ft_outliers if stage.phase == "fine-tune" else None,
                "train_loss": trained["loss"],
                "ce_loss": trained["ce"],
                "train_accuracy": trained["correct"],
                "energy_in": trained["energy_in"],
                "energy_out": trained["energy_out"],
                **tested,
                "n_val": len(job.val_split),
                "learning_rate": stage.recipe.learning_rate(position.epoch - 1 + (position.step - 1) / position.step),
                "seed": config.seed,
                "images_per_second": position.images / position.seconds,
                "seconds": position.seconds,
                "detector": None,
            }
        )
    return rows


def _log(config: OodDetectorConfig, curves, rows: list[dict], epoch: int) -> None:
    for row in rows:
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_energy", "learning_rate"):
            curves.add_scalar(f"{row['layer']}/{name}", row[name], epoch)
        if not config.quiet:
            of = config.epochs if row["phase"] == "classify" else config.ft_epochs
            print(
                f"{row['phase']} epoch {row['epoch']}/{of}  {row['layer']}  loss {row['train_loss']:.4f}  accuracy "
                f"{row['train_accuracy']:.4f}  val {row['val_accuracy']:.4f}  energy {row['val_energy']:.2f}",
                file=sys.stderr,
            )


def _keep(config: OodDetectorConfig, directory: Path, rows: list[dict], job: "Job") -> None:
    """Saves the epoch that has just ended, if it is due."""
    for row, network in zip(rows, job.classifiers.body, strict=True):
        epochs, name = (config.epochs, "model") if row["phase"] == "classify" else (config.ft_epochs, "ft_model")
        if row["epoch"] == epochs or config.snapshot_every and row["epoch"] % config.snapshot_every == 0:
            whole = dataclasses.replace(job.described[row["layer"]], epoch=row["epoch"], metrics=row)
            checkpoints.save(directory / row["layer"] / f"{name}_{row['epoch']}.pt", checkpoints.Normalized(network), whole)
