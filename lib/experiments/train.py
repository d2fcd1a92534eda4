"""Training a network: `exec_train.py`.

The folder models/<dir>/ holds init.pt, the epochs that were asked for, the last epoch, best.pt, and resume.pt, from which
the same command continues after any interruption (`lib.training.run_folder`). The options are those of the stitching paper,
sections 2.1 and 2.9, and of the hyperplane paper, section 3.1.
"""

import contextlib
import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.utils import tensorboard

from lib.core import distributed, locks, progress
from lib.core.errors import Interrupted, UserError
from lib.core.text import duration
from lib.datasets.split import Split
from lib.experiments.config.train import TrainConfig
from lib.metrics import classification
from lib.models import checkpoints
from lib.runs import loading
from lib.runs.records import Result
from lib.training import epoch_plan, loop, run_folder, run_state, setup
from lib.training.ema import ExponentialMovingAverage
from lib.training.optimizers import optimizer


def train(config: TrainConfig) -> Result:
    """Trains, keeps checkpoints, and returns one row per epoch: losses, accuracies, learning rate, speed."""
    directory = run_folder.folder(config)
    if distributed.rank():
        return _train(directory, config)
    with locks.locked(
        directory / ".lock", f"another process is training in {directory}; wait for it, or choose another -dir"
    ):
        run_folder.claim(directory, config)
        return _train(directory, config)


def _train(directory: Path, config: TrainConfig) -> Result:
    processes = distributed.current()
    if config.batch_size < processes.world:
        raise UserError(f"-b {config.batch_size}: {processes.world} processes need at least one image each")
    processes.agree(True)  # process 0 has claimed the folder
    return _epochs(directory, config, processes)


def _epochs(directory: Path, config: TrainConfig, processes: distributed.Processes) -> Result:
    begin = time.perf_counter()
    device = loading.device(config)
    train_split, val_split = setup.splits(config)
    network, description = setup.start(config, train_split)
    batchnorm = setup.synchronise(config, network, processes, device)
    size = description.image_size or max(train_split.height, train_split.width)
    epoch_plan.check_batch_size(network, config.batch_size, torch.zeros(1, description.channels, size, size))
    network.to(device)
    begun = run_state.begun_channels_last(directory)
    recipe = setup.recipe(config, train_split, network, description, device, processes, begun_channels_last=begun)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    optimiser = optimizer(
        config.optimizer,
        network.parameters(),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.nesterov,
    )
    average = ExponentialMovingAverage(network, config.ema) if config.ema else None
    rows, position = run_state.resume(
        directory, network, optimiser, average, recipe.loss, config.quiet or processes.rank > 0
    )
    writes, known = processes.rank == 0, len(rows)
    if not rows and position == loop.Position():
        position.epoch += run_state.begin_behind(config, optimiser)
        if writes:
            checkpoints.save(directory / "init.pt", network, dataclasses.replace(description, epoch=position.epoch - 1))
    # of a module it makes a module, which its signature does not say
    trained = cast(nn.Module, torch.compile(network)) if config.compile else network
    result = average.network if average else network
    seconds = {"setup": time.perf_counter() - begin}
    _announce(config, recipe, position.epoch, len(train_split), len(val_split))
    train_split, val_split = train_split.to(device), val_split.to(device)
    with _curves(directory, rows, writes) as curves, loop.Stopping().listening() as stopping:
        while position.epoch <= config.epochs and not _plateau(config, rows):
            whole = loop.train_epoch(trained, train_split, optimiser, recipe, position, stopping, average)
            if whole:
                rows.append(
                    _row(trained if result is network else result, val_split, recipe, position)
                    | {"batchnorm": batchnorm, "penalty": loop.penalty(network, config.weight_decay)}
                )
                due = _due(config, position.epoch) or _plateau(config, rows)
                if config.train_acc:
                    rows[-1] |= _training_accuracy(result, train_split, recipe, due)
                if writes:
                    _log(curves, rows[-1], config, recipe.batching.whole)
                    run_state.keep(directory, result, description, rows, due)
                position = loop.Position(epoch=position.epoch + 1)
            stopped = processes.any(bool(stopping.by))
            if writes and (whole or stopped):
                run_state.save_state(directory, network, optimiser, average, recipe.loss, rows, position)
            if stopped:
                raise Interrupted(
                    f"stopped by {stopping.by} in epoch {position.epoch}, step {position.step}; the same "
                    f"command continues from {directory}/resume.pt"
                )
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["epoch"]))
    for row in rows:
        row["best"] = row is best
    seconds["training"] = sum(row["seconds"] for row in rows)
    return Result(
        rows,
        seconds=seconds,
        columns=(
            "epoch",
            "best",
            "train_loss",
            "train_accuracy",
            "val_loss",
            "val_accuracy",
            "learning_rate",
            "images_per_second",
        ),
        always=lambda row: row["best"] or row is rows[-1],
        announced=lambda row: not config.quiet and row in rows[known:],
    )


def _evaluate(network: nn.Module, split: Split, recipe: loop.Recipe) -> tuple[float | None, float | None]:
    """Cross-entropy and accuracy."""
    batching = dataclasses.replace(recipe.batching, batch_size=max(recipe.batching.batch_size, 256))
    logits = loop.predict(network, split, batching)
    labels = split.labels.cpu()
    return classification.cross_entropy(logits, labels), classification.accuracy(logits, labels)


def _row(network: nn.Module, split: Split, recipe: loop.Recipe, position: loop.Position) -> dict:
    """The row of a finished epoch."""
    loss, accuracy = _evaluate(network, split, recipe)
    if loss is not None and not math.isfinite(loss):
        raise UserError(
            f"the validation loss became {loss} in epoch {position.epoch}; a lower -lr, a --warmup or a --grad-clip may help"
        )
    return {
        "epoch": position.epoch,
        "train_loss": position.loss / position.images,
        "train_accuracy": position.correct / position.images,
        "val_loss": loss,
        "val_accuracy": accuracy,
        "selected_on": f"{split.name}:{split.split} accuracy",
        "n_val": len(split),
        "learning_rate": recipe.learning_rate(position.epoch - 1 + (position.step - 1) / position.step),
        "precision": recipe.batching.precision,
        "processes": recipe.processes.world,
        "images_per_second": position.images / position.seconds,
        "seconds": position.seconds,
    }


def _training_accuracy(network: nn.Module, split: Split, recipe: loop.Recipe, due: bool) -> dict:
    """What --train-acc adds to a row: the same for the training images and labels as they are trained on."""
    loss, accuracy = _evaluate(network, split, recipe) if due else (None, None)
    return {"train_eval_loss": loss, "train_eval_accuracy": accuracy}


def _due(config: TrainConfig, epoch: int) -> bool:
    """Whether the epoch is saved."""
    every = config.snapshot_every and epoch % config.snapshot_every == 0
    return bool(every) or epoch <= config.snapshot_all_until or epoch == config.epochs


def _plateau(config: TrainConfig, rows: list[dict]) -> bool:
    """Whether --kill-plateaus ends the run here: the last two validation accuracies are the same number."""
    return config.kill_plateaus and len(rows) > 1 and rows[-1]["val_accuracy"] == rows[-2]["val_accuracy"]


def _curves(directory: Path, rows: list[dict], writes: bool):
    """TensorBoard's writer; where nothing is written, nothing."""
    return (
        tensorboard.SummaryWriter(str(directory / "tensorboard"), purge_step=len(rows) + 1)
        if writes
        else contextlib.nullcontext()
    )


def _announce(config: TrainConfig, recipe: loop.Recipe, first: int, images: int, val_images: int) -> None:
    """Plans the passes of the epochs that are left: over training images, validation images, and what --train-acc adds."""
    for epoch in range(first, config.epochs + 1):
        recipe.batching.whole.plan(progress.TRAINING, recipe.epoch_images or images)
        recipe.batching.whole.plan(progress.FORWARD, val_images)
        if config.train_acc and _due(config, epoch):
            recipe.batching.whole.plan(progress.FORWARD, images)


def _log(curves, row: dict, config: TrainConfig, whole: progress.Whole) -> None:
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second"):
        curves.add_scalar(name, row[name], row["epoch"])
    if not config.quiet:
        left = whole.left() if row["epoch"] < config.epochs else None
        print(
            f"epoch {row['epoch']}/{config.epochs}  loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:.4f}"
            f"  val {row['val_accuracy']:.4f}  {duration(row['seconds'])}"
            + (f", {duration(left)} left" if left is not None else ""),
            file=sys.stderr,
        )
