"""Training a network: `exec_train.py`.

The folder models/<dir>/ holds init.pt, the epochs that were asked for, the last epoch, best.pt, and resume.pt, from which
the same command continues after any interruption.
"""

import dataclasses
import io
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lib import cli, files, inputs, models, published_names
from lib.cli import DeviceConfig, above, at_least, flag, fraction
from lib.datasets.catalogue import AUGMENTATIONS
from lib.errors import Interrupted, UsageError, UserError
from lib.lazy import lazy
from lib.losses import LOSSES
from lib.optimization import OPTIMIZERS, SCHEDULES, optimizer, schedule
from lib.perturbation import PerturbationConfig
from lib.registry import resolve
from lib.results import Result

torch = lazy("torch")
checkpoints = lazy("lib.checkpoints")
classification = lazy("lib.metrics.classification")
devices = lazy("lib.devices")
randomness = lazy("lib.randomness")
subsets = lazy("lib.datasets.subsets")
tensorboard = lazy("torch.utils.tensorboard")
training = lazy("lib.training")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(PerturbationConfig, DeviceConfig):
    """Trains a network on a data set."""

    model_type: str = flag(positional=True, check=models.check, label="{}", help="type of the network")
    dataset: str = flag("cifar10", "-d", label="{}", help="data set to train on")
    directory: str = flag(cli.MISSING, "-dir", label="{}", help="folder under models/ for the checkpoints")
    epochs: int = flag(100, "-e", check=at_least(1), help="epochs")
    learning_rate: float = flag(1e-3, "-lr", check=above(0), help="peak learning rate")
    weight_decay: float = flag(1e-5, "-wd", check=at_least(0), help="weight decay")
    optimizer: str = flag("adam", "-o", choices=OPTIMIZERS, help="adam (L2 in the gradient), adamw or sgd")
    momentum: float = flag(0.9, check=fraction, help="momentum of sgd")
    nesterov: bool = flag(False, help="Nesterov's momentum")
    schedule: str = flag("none", "-sched", choices=SCHEDULES, help="course of the learning rate")
    warmup: float = flag(0, check=at_least(0), help="epochs of linear rise of the learning rate")
    milestones: tuple[int, ...] = flag((), "-rlre", check=at_least(1),
                                       help="epochs after which the learning rate is multiplied by 0.1")
    lr_step: int = flag(30, check=at_least(1), help="epochs between the steps of -sched step")
    lr_decay: float = flag(0.1, check=above(0), help="factor of each of them")
    grad_clip: float | None = flag(None, check=above(0), help="largest L2 norm of a step's gradient")
    loss: str = flag("ce", choices=LOSSES, help="what is minimised; at is adversarial training")
    beta: float = flag(6.0, check=at_least(0), help="weight of the divergence of --loss trades")
    box: bool = flag(True, help="keep attacked images in [0, 1]")
    label_smoothing: float = flag(0.0, check=fraction, help="share of the uniform distribution in the targets")
    augmentation: str = flag("auto", choices=("auto", *AUGMENTATIONS),
                             help="augmentation of the training images; auto is the data set's customary one")
    split: float = flag(0.0, check=fraction, help="share of the training images kept for validation; 0 validates, "
                                                  "and selects best.pt, on the test set")
    image_size: int | None = flag(None, check=at_least(1), help="side to which images are resized; default: as they "
                                                                "are, or enlarged to what the network takes")
    snapshot_every: int = flag(0, "-sf", check=at_least(0), help="save every so many epochs; 0: only the last")
    snapshot_all_until: int = flag(0, check=at_least(0), help="save each of the first so many epochs")
    resume: bool = flag(True, help="continue an interrupted run of the same command", identity=False)
    compile: bool = flag(False, help="torch.compile the network")
    list_layers: bool = flag(False, help="print the network's layers, their shapes and costs, and stop", identity=False)
    channels_last: bool | None = flag(None, help="memory layout of the images; default: with bf16")

    def __post_init__(self) -> None:
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        for field, value in published_names.settings(self.model_type).items():
            if field != "model_type" and getattr(self, field) not in (value, defaults[field]):
                raise UsageError(f"type {self.model_type} and --{field.replace('_', '-')} {getattr(self, field)} disagree")
            object.__setattr__(self, field, value)  # the record is that of the settings it stands for
        super().__post_init__()
        if self.loss in ("at", "trades") and self.eps is None:
            raise UsageError(f"--eps is required: the radius of the attack of --loss {self.loss}")
        if self.loss != "ce" and self.label_smoothing:
            raise UsageError(f"--label-smoothing is for --loss ce, not {self.loss}")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise UsageError("--nesterov is for -o sgd with a momentum")
        if Path(self.directory).is_absolute() or ".." in Path(self.directory).parts:
            raise UsageError(f"-dir {self.directory}: a folder under {self.models_dir}/ is named, such as cifar10/a")
        if ":" in self.dataset and "=" not in self.dataset:
            raise UsageError(f"-d {self.dataset}: training takes a data set without a split; it uses train and test")

    def answer(self) -> str | None:
        if not self.list_layers:
            return None
        network, description = _network(self, inputs.load_split(self, self.dataset, "train"))
        return inputs.layer_table(network, description.channels, description.image_size)

    def inputs(self) -> dict[str, list[Path]]:
        return inputs.data_files(self, self.dataset)

    def outputs(self) -> list[Path]:
        return [folder(self) / f"model_{self.epochs}.pt"]


def train(config: TrainConfig) -> Result:
    """Trains, keeps checkpoints, and returns one row per epoch: losses, accuracies, learning rate, speed."""
    directory = folder(config)
    with files.locked(directory / ".lock", f"another process is training in {directory}; wait for it, or choose "
                                           "another -dir"):
        _claim(directory, config)
        return _train(directory, config)


def folder(config: TrainConfig) -> Path:
    """The folder of the run's checkpoints: `-dir a` and `-dir models/a` are the same."""
    given = Path(config.directory)
    root = Path(config.models_dir)
    return given if given.is_relative_to(root) else root / given


def _train(directory: Path, config: TrainConfig) -> Result:
    begin = time.perf_counter()
    device = inputs.device(config)
    train_split, val_split = _splits(config)
    network, description = _network(config, train_split)
    network.to(device)
    precision = devices.resolve_precision(config.precision, device, training=True)
    channels_last = config.channels_last if config.channels_last is not None else precision == "bf16"
    if channels_last:
        network.to(memory_format=torch.channels_last)
    optimiser = optimizer(config.optimizer, network.parameters(), learning_rate=config.learning_rate,
                          weight_decay=config.weight_decay, momentum=config.momentum, nesterov=config.nesterov)
    recipe = training.Recipe(
        loss=resolve(LOSSES[config.loss])(config),
        learning_rate=schedule(config.schedule, learning_rate=config.learning_rate, epochs=config.epochs,
                               milestones=config.milestones, warmup=config.warmup, lr_step=config.lr_step,
                               lr_decay=config.lr_decay),
        seed=config.seed, batch_size=config.batch_size, channels=description.channels, size=description.image_size,
        augmentation=train_split.augmentation if config.augmentation == "auto" else config.augmentation,
        precision=precision, channels_last=channels_last, grad_clip=config.grad_clip, workers=config.workers,
        prefetch=config.prefetch, quiet=config.quiet)
    rows, position = _resume(directory, config, network, optimiser)
    if not rows and position.step == 0:
        checkpoints.save(directory / "init.pt", network, dataclasses.replace(description, epoch=0))
    compiled = torch.compile(network) if config.compile else network
    seconds = {"setup": time.perf_counter() - begin}
    train_split, val_split = train_split.to(device), val_split.to(device)
    selected_on = f"{val_split.name}:{val_split.split} accuracy"
    with tensorboard.SummaryWriter(str(directory / "tensorboard"), purge_step=len(rows) + 1) as writer, \
            training.Stopping().listening() as stopping:
        while position.epoch <= config.epochs:
            whole = training.train_epoch(compiled, train_split, optimiser, recipe, position, stopping)
            if whole:
                rows.append(_epoch(compiled, val_split, recipe, position, selected_on))
                _log(writer, rows[-1], config)
                _keep(directory, network, description, rows, config)
                position = training.Position(epoch=position.epoch + 1)
            if whole or stopping.by:
                _save_state(directory, network, optimiser, rows, position)
            if stopping.by:
                raise Interrupted(f"stopped by {stopping.by} in epoch {position.epoch}, step {position.step}; the same "
                                  f"command continues from {directory}/resume.pt")
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["epoch"]))
    for row in rows:
        row["best"] = row is best
    seconds["training"] = sum(row["seconds"] for row in rows)
    return Result(rows, seconds=seconds, columns=("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
                                                  "learning_rate", "images_per_second", "best"))


def _splits(config: TrainConfig):
    """The training images and those that validate: a part of them with --split, else the test set."""
    train_split = inputs.load_split(config, config.dataset, "train", image_size=config.image_size)
    if len(train_split.classes) < 2 or bool((train_split.labels < 0).any()):
        raise UserError(f"-d {config.dataset}: training needs labelled images of two classes or more")
    if config.split:
        return subsets.validation_split(train_split, config.split, config.seed)
    return train_split, inputs.load_split(config, config.dataset, "test", image_size=config.image_size)


def _network(config: TrainConfig, split):
    """The initial network and its description, normalised by the training images' own statistics."""
    size = config.image_size or models.accepted_size(config.model_type, max(split.height, split.width))
    mean, std = split.statistics()
    if min(std) == 0:
        raise UserError(f"-d {config.dataset}: a channel of the training images is constant")
    description = checkpoints.Description(
        architecture=config.model_type, classes=split.classes, channels=split.channels, image_size=size, mean=mean, std=std,
        dataset=split.name, config={key: value for key, value in cli.identity(config).items()})
    torch.manual_seed(randomness.stream(config.seed, "init"))
    return checkpoints.build(description), description


def _epoch(network, split, recipe, position, selected_on: str) -> dict:
    """The row of a finished epoch."""
    logits = training.predict(network, split, batch_size=max(recipe.batch_size, 256), channels=recipe.channels,
                              size=recipe.size, precision=recipe.precision, workers=recipe.workers,
                              prefetch=recipe.prefetch, quiet=recipe.quiet)
    labels = split.labels.cpu()
    return {
        "epoch": position.epoch, "train_loss": position.loss / position.images,
        "train_accuracy": position.correct / position.images, "val_loss": classification.cross_entropy(logits, labels),
        "val_accuracy": classification.accuracy(logits, labels), "selected_on": selected_on, "n_val": len(split),
        "learning_rate": recipe.learning_rate(position.epoch - 1 + (position.step - 1) / position.step),
        "precision": recipe.precision, "images_per_second": position.images / position.seconds,
        "seconds": position.seconds,
    }


def _keep(directory: Path, network, description, rows: list[dict], config: TrainConfig) -> None:
    """Saves the epoch that has just ended, where it was asked for, and as best.pt if it is the first of the best."""
    row = rows[-1]
    epoch = row["epoch"]
    described = dataclasses.replace(description, epoch=epoch, metrics=row)
    due = config.snapshot_every and epoch % config.snapshot_every == 0
    if due or epoch <= config.snapshot_all_until or epoch == config.epochs:
        checkpoints.save(directory / f"model_{epoch}.pt", network, described)
    if all(row["val_accuracy"] > earlier["val_accuracy"] for earlier in rows[:-1]):
        checkpoints.save(directory / "best.pt", network, described)


def _log(writer, row: dict, config: TrainConfig) -> None:
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second"):
        writer.add_scalar(name, row[name], row["epoch"])
    if not config.quiet:
        print(f"epoch {row['epoch']}/{config.epochs}  loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:.4f}"
              f"  val {row['val_accuracy']:.4f}  {row['images_per_second']:.0f} images/s", file=sys.stderr)


def _claim(directory: Path, config: TrainConfig) -> None:
    """Makes the folder this configuration's; raises `UserError` if it holds the run of another one."""
    wanted = json.loads(json.dumps(cli.identity(config)))
    marker = directory / "run.json"
    if config.overwrite or not config.resume:
        for pattern in ("init", "model_*", "best", "resume", "run"):
            for path in (*directory.glob(f"{pattern}.pt"), *directory.glob(f"{pattern}.json")):
                path.unlink()
    if marker.exists():
        try:
            there = json.loads(marker.read_text())
        except ValueError:
            raise UserError(f"{marker} is broken; --overwrite starts the run again") from None
        defaults = {item.name: item.default for item in dataclasses.fields(config)}
        keys = [key for key in sorted(wanted.keys() | there.keys())
                if wanted.get(key, defaults.get(key)) != there.get(key, defaults.get(key))]
        if keys:
            differences = ", ".join(f"{key} {there.get(key)} there, {wanted.get(key)} here" for key in keys)
            raise UserError(f"-dir {config.directory}: {directory} holds another run ({differences}); choose another "
                            "-dir, or --overwrite it")
    elif any(directory.glob("*.pt")):
        raise UserError(f"-dir {config.directory}: {directory} holds checkpoints of unknown origin; choose another -dir, "
                        "or --overwrite them")
    files.write_json(marker, wanted)


def _save_state(directory: Path, network, optimiser, rows: list[dict], position) -> None:
    state = {"network": network.body.state_dict(), "optimizer": optimiser.state_dict(), "rows": rows,
             "position": dataclasses.asdict(position)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files.write_atomically(directory / "resume.pt", lambda file: file.write(buffer.getbuffer()))


def _resume(directory: Path, config: TrainConfig, network, optimiser):
    """The rows and the position from which the run continues; the network and the optimiser are set to them."""
    path = directory / "resume.pt"
    if not path.exists():
        return [], training.Position()
    try:
        state = torch.load(path, map_location=next(network.parameters()).device, weights_only=True)
        network.body.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimizer"])
        position = training.Position(**state["position"])
    except Exception as error:
        raise UserError(f"{path} cannot be continued ({type(error).__name__}); --overwrite starts the run again") from None
    if not config.quiet:
        print(f"continuing {directory} in epoch {position.epoch}, step {position.step}", file=sys.stderr)
    return state["rows"], position
