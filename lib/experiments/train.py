"""Training a network: `exec_train.py`.

The folder models/<dir>/ holds init.pt, the epochs that were asked for, the last epoch, best.pt, and resume.pt, from which
the same command continues after any interruption (`lib.training.run_folder`). The options are those of the stitching paper,
sections 2.1 and 2.9, and of the hyperplane paper, section 3.1.
"""

import contextlib
import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib import models
from lib.attacks.flags import PerturbationConfig
from lib.core import distributed, files
from lib.core.errors import Interrupted, UsageError
from lib.core.lazy import lazy
from lib.datasets import names
from lib.datasets.catalogue import AUGMENTATIONS
from lib.representations import feature_dataset
from lib.runs import cli, loading, plan
from lib.runs.cli import above, at_least, flag, fraction
from lib.runs.image_flags import ImagesConfig
from lib.runs.records import Result
from lib.training import losses, model_strings, run_folder
from lib.training.losses import LOSSES
from lib.training.optimizers import OptimizationConfig, optimizer

torch = lazy("torch")
training_ema = lazy("lib.training.ema")
checkpoints = lazy("lib.models.checkpoints")
classification = lazy("lib.metrics.classification")
tensorboard = lazy("torch.utils.tensorboard")
loop = lazy("lib.training.loop")
setup = lazy("lib.training.setup")


def _noise(value: float) -> None:
    if value > 1:
        raise UsageError(f"{value} is a share of labels, at most 1; negative, pixels are shuffled instead")


def _decay(value: float) -> None:
    if not 0 < value < 1:
        raise UsageError(f"{value} is not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(PerturbationConfig, OptimizationConfig, ImagesConfig):
    """Trains a network on a data set."""

    model_type: str = flag(positional=True, check=models.check, label="{}", help="type of the network")
    dataset: str = flag("cifar10", "-d", label="{}", help="data set to train on")
    directory: str = flag(cli.MISSING, "-dir", label="{}", help="folder under models/ for the checkpoints")
    epochs: int = flag(100, "-e", check=at_least(1), help="epochs")
    momentum: float = flag(0.9, check=fraction, help="momentum of sgd")
    nesterov: bool = flag(False, help="Nesterov's momentum")
    warmup: float = flag(0, check=at_least(0), help="epochs of linear rise of the learning rate")
    lr_step: int = flag(30, check=at_least(1), help="epochs between the steps of -sched step")
    lr_decay: float = flag(0.1, check=above(0), help="factor of each of them")
    grad_clip: float | None = flag(None, check=above(0), help="largest L2 norm of a step's gradient")
    loss: str = flag("ce", choices=LOSSES, help="what is minimised; at is adversarial training")
    beta: float = flag(6.0, check=at_least(0), help="weight of the divergence of --loss trades")
    box: bool = flag(True, help="keep attacked images in [0, 1]; stored features go anywhere")
    label_smoothing: float = flag(0.0, check=fraction, help="share of the uniform distribution in the targets")
    outliers: str = flag("", help="outliers for --loss energy_layers: a data set, its training split")
    energy_layers: tuple[str, ...] = flag(
        (),
        commas=True,
        help="layers whose energies are trained: names, globs, cuts, all; default: batch normalisations and the last Linear",
    )
    energy_lambda: float = flag(0.1, check=at_least(0), help="weight of their term; 0 is plain training")
    form: str = flag("hinge", choices=("hinge", "contrastive"), help="of that term: squared hinges, or softplus over pairs")
    margins_in: str = flag(
        "z",
        choices=("z", "raw"),
        help="unit of the margins: running standard deviations of the data's energies, or energies as they are",
    )
    energy_margins: tuple[float, ...] = flag((), help="margins of data and outliers; default 1 4, for z only")
    outlier_batches: str = flag(
        "joint", choices=("joint", "separate"), help="batch normalisation sees outliers with the data, or by themselves"
    )
    augmentation: str = flag(
        "auto",
        choices=("auto", *AUGMENTATIONS),
        help="augmentation of the training images; auto is the data set's customary one",
    )
    split: float = flag(
        0.0,
        check=fraction,
        help="share of the training images kept for validation; 0 validates, and "
        "selects best.pt, on the set's own val split, else on the test set",
    )
    stratified: bool = flag(False, help="the same share of every class (--split)")
    split_seed: int | None = flag(None, help="seed of that choice; default: --seed")
    noise: float = flag(
        0.0, check=_noise, help="share of the training labels that are made wrong; negative: --pixel-shuffle"
    )
    pixel_shuffle: bool = flag(False, help="each training image with its pixels in a random order of its own")
    noise_seed: int | None = flag(None, help="seed of wrong labels and orders; default: --seed")
    epoch_images: int | None = flag(
        None,
        check=at_least(1),
        help="images per epoch, each epoch the next slice of a random order; default: all, 50,000 for cifar5m",
    )
    unnormalize: bool = flag(False, help="pixels go in as they are, in [0, 1]")
    mean: tuple[float, ...] = flag((), help="mean per channel, in [0, 1], to normalise by; default: the training images'")
    std: tuple[float, ...] = flag((), help="and standard deviation per channel")
    per_image_std: bool = flag(
        False, help="normalise by the mean of the images' own standard deviations instead of the one over all pixels"
    )
    pretrained: bool = flag(False, help="start from torchvision's or timm's weights, with their normalisation")
    resume_from: str = flag("", help="start from the weights, and the normalisation, of a checkpoint of the same type")
    snapshot_every: int = flag(0, "-sf", check=at_least(0), help="save every so many epochs; 0: only the last")
    snapshot_all_until: int = flag(0, check=at_least(0), help="save each of the first so many epochs")
    kill_plateaus: bool = flag(False, help="stop, and save, when two epochs running have the same validation accuracy")
    train_acc: bool = flag(False, help="at saved epochs, evaluate on the training images too, without augmentation")
    ema: float | None = flag(
        None, check=_decay, help="validate and save the running average of the weights, with this decay per step"
    )
    sync_batchnorm: bool = flag(False, help="under torchrun on GPUs: batch statistics of the whole batch, not per process")
    resume: bool = flag(
        True, help="continue an interrupted run of the same command; --no-resume begins it again", identity=False
    )
    compile: bool = flag(False, help="torch.compile the network")
    list_layers: bool = flag(False, help="print the network's layers, their shapes and costs, and stop", identity=False)
    channels_last: bool | None = flag(None, help="memory layout of the images; default: with bf16")

    parallel: ClassVar[bool] = True
    takes_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        for field, value in model_strings.settings(self.model_type).items():
            if field != "model_type" and getattr(self, field) not in (value, defaults[field]):
                raise UsageError(f"type {self.model_type} and --{field.replace('_', '-')} {getattr(self, field)} disagree")
            object.__setattr__(self, field, value)  # the record is that of the settings it stands for
        if size := names.loaded_size(self.dataset):
            if self.stated_size not in (None, size):
                raise UsageError(f"-d {self.dataset}: its images have {size} px, not {self.stated_size}")
            object.__setattr__(self, "dataset", str(names.parse(self.dataset)))
            object.__setattr__(self, "image_size", size)
        super().__post_init__()
        loading.check_normalisation(self.mean, self.std)
        if self.noise < 0:  # the paper's way to ask for shuffled pixels
            object.__setattr__(self, "noise", 0.0)
            object.__setattr__(self, "pixel_shuffle", True)
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise UsageError("--nesterov is for -o sgd with a momentum")
        losses.check(self)
        of_features = names.parse(self.dataset).features is not None
        if of_features:
            feature_dataset.check_training(self)
        if Path(self.directory).is_absolute() or ".." in Path(self.directory).parts:
            raise UsageError(f"-dir {self.directory}: a folder under {self.models_dir}/ is named, such as cifar10/a")
        if (":" in self.dataset and "=" not in self.dataset) or (of_features and names.parse(self.dataset).split):
            raise UsageError(f"-d {self.dataset}: training takes a data set without a split; it uses train and test")
        if distributed.world() > 1 and self.gpu is not None and self.gpu >= 0:
            raise UsageError(f"-gpu {self.gpu}: under torchrun each process takes the GPU of its own number; without -gpu")
        if (self.stratified or self.split_seed is not None) and not self.split:
            raise UsageError("--stratified and --split-seed are about --split, which is 0")
        if self.pretrained and self.resume_from:
            raise UsageError("--pretrained and --resume-from exclude one another")

    def answer(self) -> str | None:
        if not self.list_layers:
            return None
        network, description = setup.start(self, setup.splits(self)[0])
        return loading.layer_table(network, description.channels, description.image_size)

    def work(self) -> list[str]:
        network, description = setup.start(self, setup.splits(self)[0])
        return plan.of_training(
            self, network, description, f"{self.epochs} epochs of training, each followed by one over the validation images"
        )

    def inputs(self) -> dict[str, list[Path]]:
        files_read = loading.data_files(self, self.dataset, *([self.outliers] if self.outliers else []))
        return files_read | (loading.checkpoint_files(self, self.resume_from) if self.resume_from else {})

    def outputs(self) -> list[Path]:
        last = "best.pt" if self.kill_plateaus else f"model_{self.epochs}.pt"  # which epoch is the last is not known
        return [run_folder.folder(self) / last]


def train(config: TrainConfig) -> Result:
    """Trains, keeps checkpoints, and returns one row per epoch: losses, accuracies, learning rate, speed."""
    directory = run_folder.folder(config)
    if distributed.rank():
        return _train(directory, config)
    with files.locked(
        directory / ".lock", f"another process is training in {directory}; wait for it, or choose another -dir"
    ):
        run_folder.claim(directory, config)
        return _train(directory, config)


def _train(directory: Path, config: TrainConfig) -> Result:
    with distributed.joined(config.batch_size) as processes:  # process 0 has claimed the folder
        return _epochs(directory, config, processes)


def _epochs(directory: Path, config: TrainConfig, processes: distributed.Processes) -> Result:
    begin = time.perf_counter()
    device = loading.device(config)
    train_split, val_split = setup.splits(config)
    network, description = setup.start(config, train_split)
    batchnorm = setup.synchronise(config, network, processes, device)
    network.to(device)
    recipe = setup.recipe(config, train_split, description, device, processes)
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
    average = training_ema.Average(network, config.ema) if config.ema else None
    rows, position = run_folder.resume(
        directory, network, optimiser, average, recipe.loss, config.quiet or processes.rank > 0
    )
    writes = processes.rank == 0
    if writes and not rows and position.step == 0:
        checkpoints.save(directory / "init.pt", network, dataclasses.replace(description, epoch=0))
    trained = torch.compile(network) if config.compile else network
    result = average.network if average else network
    seconds = {"setup": time.perf_counter() - begin}
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
                    _log(curves, rows[-1], config)
                    run_folder.keep(directory, result, description, rows, due)
                position = loop.Position(epoch=position.epoch + 1)
            stopped = processes.any(bool(stopping.by))
            if writes and (whole or stopped):
                run_folder.save_state(directory, network, optimiser, average, recipe.loss, rows, position)
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
            "train_loss",
            "train_accuracy",
            "val_loss",
            "val_accuracy",
            "learning_rate",
            "images_per_second",
            "best",
        ),
    )


def _evaluate(network, split, recipe) -> tuple[float, float]:
    """Cross-entropy and accuracy."""
    logits = loop.predict(
        network,
        split,
        batch_size=max(recipe.batch_size, 256),
        channels=recipe.channels,
        size=recipe.size,
        precision=recipe.precision,
        workers=recipe.workers,
        prefetch=recipe.prefetch,
        quiet=recipe.quiet,
        processes=recipe.processes,
    )
    labels = split.labels.cpu()
    return classification.cross_entropy(logits, labels), classification.accuracy(logits, labels)


def _row(network, split, recipe, position) -> dict:
    """The row of a finished epoch."""
    loss, accuracy = _evaluate(network, split, recipe)
    return {
        "epoch": position.epoch,
        "train_loss": position.loss / position.images,
        "train_accuracy": position.correct / position.images,
        "val_loss": loss,
        "val_accuracy": accuracy,
        "selected_on": f"{split.name}:{split.split} accuracy",
        "n_val": len(split),
        "learning_rate": recipe.learning_rate(position.epoch - 1 + (position.step - 1) / position.step),
        "precision": recipe.precision,
        "processes": recipe.processes.world,
        "images_per_second": position.images / position.seconds,
        "seconds": position.seconds,
    }


def _training_accuracy(network, split, recipe, due: bool) -> dict:
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


def _log(curves, row: dict, config: TrainConfig) -> None:
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second"):
        curves.add_scalar(name, row[name], row["epoch"])
    if not config.quiet:
        print(
            f"epoch {row['epoch']}/{config.epochs}  loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:.4f}"
            f"  val {row['val_accuracy']:.4f}  {row['images_per_second']:.0f} images/s",
            file=sys.stderr,
        )
