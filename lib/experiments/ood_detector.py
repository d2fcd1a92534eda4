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
from pathlib import Path

from torch.utils import tensorboard

from lib.core import locks, progress
from lib.core.errors import Interrupted
from lib.experiments.config.ood_detector import OodDetectorConfig
from lib.models import checkpoints
from lib.runs.records import Result
from lib.stitching import detector, detector_files, detector_setup
from lib.stitching.detector_setup import Job, TrainingPhase
from lib.training import loop, run_folder, run_state


def ood_detector(config: OodDetectorConfig) -> Result:
    """One row per layer and epoch of either phase; the detector's path in the row of the last one."""
    begin = time.perf_counter()
    job = detector_setup.prepare(config)
    directory = run_folder.folder(config)
    with locks.locked(
        directory / ".lock", f"another process is training in {directory}; wait for it, or choose another -dir"
    ):
        run_folder.claim(directory, config)
        if config.overwrite or not config.resume:
            for layer in job.layers:
                run_folder.clear(directory / layer)
        rows, known = _train(config, directory, job)
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
        always=lambda row: row["detector"],
        announced=lambda row: not config.quiet and row in rows[known:],
    )


def _train(config: OodDetectorConfig, directory: Path, job: Job) -> tuple[list[dict], int]:
    """The rows, and how many of them an interrupted run had made."""
    optimiser = detector_setup.optimiser(config, job.classifiers)
    rows, position = run_state.resume(directory, job.classifiers, optimiser, None, job.phases[0].recipe.loss, config.quiet)
    known = len(rows)
    _announce(config, job, position.epoch)
    with (
        tensorboard.SummaryWriter(str(directory / "tensorboard"), purge_step=position.epoch) as curves,
        loop.Stopping().listening() as stopping,
    ):
        while position.epoch <= config.epochs + config.ft_epochs:
            phase = job.phases[1 if position.epoch > config.epochs else 0]
            if position.epoch == config.epochs + 1 and position.step == 0:
                optimiser = detector_setup.optimiser(config, job.classifiers)  # fine-tuning has its own
            whole = loop.train_epoch(job.classifiers, phase.split, optimiser, phase.recipe, position, stopping)
            if whole:
                new = _rows(config, phase, position, job)
                _log(config, curves, new, position.epoch)
                _keep(config, directory, new, job)
                rows += new
                position = loop.Position(epoch=position.epoch + 1)
            if whole or stopping.by:
                run_state.save_state(directory, job.classifiers, optimiser, None, phase.recipe.loss, rows, position)
            if stopping.by:
                raise Interrupted(
                    f"stopped by {stopping.by} in epoch {position.epoch}, step {position.step}; the same "
                    f"command continues from {directory}/resume.pt"
                )
    for row, network in zip(rows[-len(job.layers) :], job.classifiers.body, strict=True):
        whole = dataclasses.replace(job.described[row["layer"]], epoch=row["epoch"], metrics=dict(row))
        row["detector"] = str(detector_files.publish(config, row["layer"], checkpoints.Normalized(network), whole))
    return rows, known


def _announce(config: OodDetectorConfig, job: Job, first: int) -> None:
    """Plans the passes of the epochs that are left, each over its training images and the test images."""
    for epoch in range(first, config.epochs + config.ft_epochs + 1):
        phase = job.phases[1 if epoch > config.epochs else 0]
        job.batching.whole.plan(progress.TRAINING, phase.recipe.epoch_images or len(phase.split))
        job.batching.whole.plan(progress.FORWARD, len(job.val_split))


def _rows(config: OodDetectorConfig, phase: TrainingPhase, position: loop.Position, job: Job) -> list[dict]:
    """The rows of a finished epoch, with its measures on the test images."""
    measured = detector.validate(job.source, job.layers, job.classifiers, job.val_split, job.batching)
    trained_on = detector.finish_epoch(job.state)
    first = config.epochs if phase.name == "fine-tune" else 0
    rows = []
    for layer, trained, tested in zip(job.layers, trained_on, measured, strict=True):
        rows.append(
            {
                "layer": layer,
                "model_type": config.model_type,
                "phase": phase.name,
                "epoch": position.epoch - first,
                "data": phase.split.name,
                "outliers": config.ft_outliers if phase.name == "fine-tune" else None,
                "train_loss": trained["loss"],
                "ce_loss": trained["ce"],
                "train_accuracy": trained["correct"],
                "energy_in": trained["energy_in"],
                "energy_out": trained["energy_out"],
                **tested,
                "n_val": len(job.val_split),
                "learning_rate": phase.recipe.learning_rate(position.epoch - 1 + (position.step - 1) / position.step),
                "seed": config.seed,
                "images_per_second": position.images / position.seconds,
                "seconds": position.seconds,
                "detector": None,
            }
        )
    return rows


def _log(config: OodDetectorConfig, curves: tensorboard.SummaryWriter, rows: list[dict], epoch: int) -> None:
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


def _keep(config: OodDetectorConfig, directory: Path, rows: list[dict], job: Job) -> None:
    """Saves the epoch that has just ended, if it is due."""
    for row, network in zip(rows, job.classifiers.body, strict=True):
        epochs, name = (config.epochs, "model") if row["phase"] == "classify" else (config.ft_epochs, "ft_model")
        if row["epoch"] == epochs or config.snapshot_every and row["epoch"] % config.snapshot_every == 0:
            whole = dataclasses.replace(job.described[row["layer"]], epoch=row["epoch"], metrics=row)
            checkpoints.save(directory / row["layer"] / f"{name}_{row['epoch']}.pt", checkpoints.Normalized(network), whole)
