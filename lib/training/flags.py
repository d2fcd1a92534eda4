"""The flags of every training, and the names of optimisers, schedules and losses."""

from dataclasses import dataclass
from pathlib import Path

from lib import models
from lib.attacks.flags import PerturbationConfig
from lib.core.errors import UsageError
from lib.datasets import names
from lib.datasets.catalogue import AUGMENTATIONS
from lib.models import paper_names
from lib.representations import feature_dataset
from lib.runs import cli, network_flags
from lib.runs.cli import RunConfig, SeedConfig, above, at_least, flag, fraction
from lib.runs.image_flags import ImagesConfig
from lib.training import recipes

# adam adds the weight decay to the gradient, adamw shrinks the weights
OPTIMIZERS = {"adam": "torch.optim:Adam", "adamw": "torch.optim:AdamW", "sgd": "torch.optim:SGD"}

SCHEDULES = {
    "none": "lib.training.optimizers:constant",
    "cosine": "lib.training.optimizers:cosine",
    "onecycle": "lib.training.optimizers:onecycle",
    "step": "lib.training.optimizers:step",
}


LOSSES = {
    "ce": "lib.training.losses:cross_entropy",
    "at": "lib.training.robust_losses:adversarial",
    "trades": "lib.training.robust_losses:trades",
    "mixup": "lib.training.robust_losses:mixup",
    "energy_layers": "lib.training.energy_loss:energy_layers",
}


PAPERS_STRINGS = "ncg"  # the recipe that model strings imply
ATTACKING, BY_ENERGIES = ("at", "trades"), ("energy_layers",)
# a setting -> the losses that it changes anything of
OF_LOSSES = {
    **dict.fromkeys(("eps", "norm", "attack_steps", "attack_step_size", "box"), ATTACKING),
    "beta": ("trades",),
    "outliers": BY_ENERGIES,
    **dict.fromkeys(
        ("energy_layers", "energy_lambda", "form", "margins_in", "energy_margins", "outlier_batches"), BY_ENERGIES
    ),
}


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig(RunConfig):
    """The flags of every script that trains by gradient steps."""

    learning_rate: float = flag(1e-3, "-lr", check=above(0), help="peak learning rate", group="training")
    weight_decay: float = flag(1e-5, "-wd", check=at_least(0), help="weight decay", group="training")
    optimizer: str = flag(
        "adam", "-o", choices=OPTIMIZERS, help="optimiser: adam (L2 in the gradient), adamw or sgd", group="training"
    )
    schedule: str = flag("none", "-sched", choices=SCHEDULES, help="schedule of the learning rate", group="training")
    milestones: tuple[int, ...] = flag(
        (), "-rlre", check=at_least(1), help="epochs after which the learning rate is multiplied by 0.1", group="training"
    )

    @classmethod
    def settings(cls, values: dict) -> dict:
        """An empty schedule, the only one of the stitching paper's code, is none."""
        return super().settings(values | {"schedule": "none"} if values.get("schedule") == "" else values)


def check_loss(config: "TrainingConfig") -> None:
    """Raises `UsageError` for flags that do not go with the configuration's loss."""
    if config.loss in ("at", "trades") and config.eps is None:
        raise UsageError(f"--eps is required: the radius of the attack of --loss {config.loss}")
    if config.loss in ("at", "trades", "mixup") and config.label_smoothing:
        raise UsageError(f"--label-smoothing is for --loss ce, not {config.loss}")
    for name, losses in OF_LOSSES.items():
        if config.loss not in losses and getattr(config, name) != config.value({}, name):
            spelling = "--no-box" if name == "box" else "--" + name.replace("_", "-")
            raise UsageError(
                f"{spelling} is for --loss {' and '.join(losses)}, not {config.loss}, which it would not change"
            )
    if config.loss == "energy_layers":
        _check_energy_layers(config)


def _check_energy_layers(config: "TrainingConfig") -> None:
    if not config.outliers:
        raise UsageError("--loss energy_layers needs --outliers: a data set of outliers to train against")
    if config.margins_in == "raw" and not config.energy_margins:
        raise UsageError("--margins-in raw needs --energy-margins IN OUT: raw energies have no common scale")
    margins = config.energy_margins
    if margins and (len(margins) != 2 or margins[0] >= margins[1]):
        raise UsageError(
            f"--energy-margins {' '.join(map(str, margins))}: two numbers, the data's and a higher one for the outliers"
        )
    if config.compile:
        raise UsageError("--loss energy_layers looks inside the network, which --compile hides")


def _noise(value: float) -> None:
    if value > 1:
        raise UsageError(f"{value} is a share of labels, at most 1; negative, pixels are shuffled instead")


def _decay(value: float) -> None:
    if not 0 < value < 1:
        raise UsageError(f"{value} is not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(PerturbationConfig, OptimizationConfig, ImagesConfig, SeedConfig):
    """The flags of a training of a network on a data set."""

    model_type: str = flag(
        positional=True,
        check=models.check,
        label="{}",
        help="type of the network, such as resnet20",
        group="network",
        missing=models.every_type,
    )
    dataset: str = flag("cifar10", "-d", label="{}", help="data set to train on", group="data")
    directory: str = flag(cli.MISSING, "-dir", label="{}", help="folder under models/ for the checkpoints", group="output")
    recipe: str = flag(
        "",
        choices=recipes.RECIPES,
        identity=False,
        help="settings of a paper's training code, for flags that are not given; a model string of the "
        "nearest-category paper implies ncg; lir is OpenOOD's, as its paper's code trains nothing",
        group="training",
    )
    epochs: int = flag(100, "-e", check=at_least(1), help="epochs of training", group="training")
    momentum: float = flag(0.9, check=fraction, help="momentum of sgd", group="training")
    nesterov: bool = flag(False, help="use Nesterov's momentum", group="training")
    warmup: float = flag(0, check=at_least(0), help="epochs of linear rise of the learning rate", group="training")
    lr_step: int = flag(
        30, check=at_least(1), help="epochs between the steps of the learning rate, for -sched step", group="training"
    )
    lr_decay: float = flag(
        0.1, check=above(0), help="factor of the learning rate at each step, for -sched step", group="training"
    )
    grad_clip: float | None = flag(None, check=above(0), help="largest L2 norm of a step's gradient", group="training")
    loss: str = flag("ce", choices=LOSSES, help="loss that is minimised; at is adversarial training")
    beta: float = flag(6.0, check=at_least(0), help="weight of the divergence of --loss trades")
    box: bool = flag(True, help="keep attacked images in [0, 1]; --no-box for stored features, which go anywhere")
    label_smoothing: float = flag(
        0.0, check=fraction, help="share of the uniform distribution in the targets", group="training"
    )
    outliers: str = flag(
        "", help="data set of outliers for --loss energy_layers; its training split is used", group="data", metavar="DATASET"
    )
    energy_layers: tuple[str, ...] = flag(
        (),
        commas=True,
        help="layers whose energies --loss energy_layers trains: names, globs, cuts, all; default: batch "
        "normalisations and the last Linear",
    )
    energy_lambda: float = flag(
        0.1, check=at_least(0), help="weight of the energy term in --loss energy_layers; 0 is plain training"
    )
    form: str = flag(
        "hinge",
        choices=("hinge", "contrastive"),
        help="form of the energy term in --loss energy_layers: squared hinges, or softplus over pairs",
    )
    margins_in: str = flag(
        "z",
        choices=("z", "raw"),
        help="unit of --energy-margins: running standard deviations of the data's energies, or energies as they are",
    )
    energy_margins: tuple[float, ...] = flag(
        (), help="margins of data and outliers for --loss energy_layers; default: 1 4, for --margins-in z only"
    )
    outlier_batches: str = flag(
        "joint",
        choices=("joint", "separate"),
        help="whether batch normalisation sees outliers with the data, or by themselves",
    )
    augmentation: str = flag(
        "auto",
        choices=("auto", *AUGMENTATIONS),
        bare="auto",
        help="augmentation of the training images; auto, or no word, is the data set's customary one",
        group="data",
    )
    split: float = flag(
        0.0,
        check=fraction,
        help="share of the training images kept for validation; 0 validates, and selects best.pt, on the "
        "set's own val split, else on the test set",
        group="data",
    )
    stratified: bool = flag(False, help="take the same share of every class for --split", group="data")
    split_seed: int | None = flag(None, help="seed of the images that --split draws; default: --seed", group="data")
    noise: float = flag(
        0.0,
        check=_noise,
        help="share of the training labels that are replaced by wrong ones; negative: --pixel-shuffle",
        group="data",
    )
    pixel_shuffle: bool = flag(
        False, help="shuffle the pixels of each training image, in a random order of its own", group="data"
    )
    noise_seed: int | None = flag(
        None, help="seed of wrong labels (--noise) and of orders (--pixel-shuffle); default: --seed", group="data"
    )
    epoch_images: int | None = flag(
        None,
        check=at_least(1),
        help="images per epoch, each epoch the next slice of a random order; default: all, 50,000 for cifar5m",
        group="data",
    )
    unnormalize: bool = flag(False, help="give pixels to the network as they are, in [0, 1]", group="network")
    mean: tuple[float, ...] = flag(
        (), help="mean per channel, in [0, 1], to normalise by; default: that of the training images", group="network"
    )
    std: tuple[float, ...] = flag(
        (),
        help="standard deviation per channel, in [0, 1], to normalise by; default: that of the training images",
        group="network",
    )
    per_image_std: bool = flag(
        False,
        help="normalise by the mean of the images' own standard deviations instead of the one over all pixels",
        group="network",
    )
    pretrained: bool = flag(
        False, help="start from torchvision's or timm's weights, with their normalisation", group="network"
    )
    resume_from: str = flag(
        "",
        help="start from the weights, and the normalisation, of a checkpoint of the same type",
        group="network",
        metavar="CHECKPOINT",
    )
    start_epoch: int | None = flag(
        None,
        check=at_least(0),
        help="epochs that the checkpoint of --resume-from has behind it; default: those of a .tar snapshot, "
        "whose optimiser goes on, too, else 0",
        group="training",
    )
    eval_regularization_loss: bool = flag(
        False,
        help="print what the weight decay penalises of the weights that the run starts from, and stop",
        group="training",
        identity=False,
    )
    snapshot_every: int = flag(
        0,
        "-sf",
        check=at_least(0),
        help="epochs from one saved checkpoint to the next; 0: only the last is saved",
        group="training",
        selects=True,
    )
    snapshot_all_until: int = flag(
        0,
        check=at_least(0),
        help="number of first epochs after each of which a checkpoint is saved",
        group="training",
        selects=True,
    )
    kill_plateaus: bool = flag(
        False, help="stop, and save, when two epochs running have the same validation accuracy", group="training"
    )
    train_acc: bool = flag(
        False,
        help="at saved epochs, evaluate on the training images too, without augmentation",
        group="training",
        selects=True,
    )
    ema: float | None = flag(
        None,
        check=_decay,
        help="validate and save the running average of the weights, with this decay per step",
        group="training",
    )
    sync_batchnorm: bool = flag(
        False, help="compute batch statistics over the whole batch, not per process, under torchrun on GPUs", group="machine"
    )
    resume: bool = flag(
        True,
        help="continue an interrupted run of the same command; --no-resume begins it again",
        group="training",
        identity=False,
    )
    compile: bool = flag(False, help="compile the network with torch.compile", group="machine")
    list_layers: bool = flag(
        False, help="print the network's layers with their shapes and costs, and stop", group="network", identity=False
    )
    channels_last: bool | None = flag(
        None,
        help="store images and weights channels last (NHWC); default: with bf16, and on the CPU without batch normalisation",
        group="machine",
    )

    @classmethod
    def settings(cls, values: dict) -> dict:
        """The settings that a model string, a data set with a size in its name, or a negative `--noise` stands for."""
        values, kind = dict(cls._enlarged(values)), str(values.get("model_type"))
        for name in cls._idle(values):
            del values[name]
        string = paper_names.settings(kind)
        for name, value in string.items():
            if name != "model_type" and cls.value(values, name) not in (value, cls.value({}, name)):
                raise UsageError(f"type {kind} and --{name.replace('_', '-')} {values[name]} disagree")
            values[name] = value
        data = cls.value(values, "dataset")
        if size := names.loaded_size(data):
            sides = {"image_size": cls.value(values, "image_size"), "upscale": 224, "upscale_padding": 112}
            stated = [side for name, side in sides.items() if cls.value(values, name)]
            if stated not in ([], [size]):
                raise UsageError(f"-d {data}: its images have {size} px, not {stated[0]}")
            values |= {"dataset": str(names.parse(data)), "image_size": size}
        recipe = cls.value(values, "recipe") or (PAPERS_STRINGS if string else "")
        if recipe in recipes.RECIPES:
            added = recipes.settings(recipe, values, cls.value(values, "dataset"), cls.value({}, "epochs"))
            values |= added | {"recipe": recipe}
        if ("lr_step" in values or "lr_decay" in values) and "schedule" not in values:
            values["schedule"] = "step"  # the hyperplane paper's code has no other
        if cls.value(values, "noise") < 0:  # the paper's way to ask for shuffled pixels
            values |= {"noise": 0.0, "pixel_shuffle": True}
        return super().settings(values)

    @classmethod
    def _idle(cls, values: dict) -> list[str]:
        """The attack's flags where a model string has no attack: the nearest-category paper's code requires them of all."""
        string = paper_names.settings(str(values.get("model_type")))
        attacking = string.get("loss") in ATTACKING
        return [name for name in ("eps", "norm") if name in values] if string and not attacking else []

    @classmethod
    def remarks(cls, values: dict) -> list[str]:
        idle = [f"--{name} has no effect: {values['model_type']} has no attack" for name in cls._idle(values)]
        return [*idle, *super().remarks(values)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_epoch and not self.resume_from:
            raise UsageError(f"--start-epoch {self.start_epoch} is about --resume-from, which is not given")
        if self.start_epoch is not None and self.start_epoch >= self.epochs:
            raise UsageError(f"--start-epoch {self.start_epoch}: -e {self.epochs} leaves no epoch to train")
        network_flags.check_normalisation(self.mean, self.std)
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise UsageError("--nesterov is for -o sgd with a momentum")
        if self.momentum not in (0, self.value({}, "momentum")) and self.optimizer != "sgd":
            raise UsageError(f"--momentum is for -o sgd, not {self.optimizer}")
        if self.schedule != "step" and (self.lr_step, self.lr_decay) != (
            self.value({}, "lr_step"),
            self.value({}, "lr_decay"),
        ):
            raise UsageError(f"--lr-step and --lr-decay are for -sched step, not {self.schedule}")
        if self.noise_seed is not None and not self.noise and not self.pixel_shuffle:
            raise UsageError("--noise-seed is about --noise and --pixel-shuffle, neither of which is asked for")
        check_loss(self)
        of_features = names.parse(self.dataset).features is not None
        if of_features:
            feature_dataset.check_training(self)
        if Path(self.directory).is_absolute() or ".." in Path(self.directory).parts:
            raise UsageError(f"-dir {self.directory}: a folder under {self.models_dir}/ is named, such as cifar10/a")
        if (":" in self.dataset and "=" not in self.dataset) or (of_features and names.parse(self.dataset).split):
            raise UsageError(f"-d {self.dataset}: training takes a data set without a split; it uses train and test")
        if (self.stratified or self.split_seed is not None) and not self.split:
            raise UsageError("--stratified and --split-seed are about --split, which is 0")
        if self.pretrained and self.resume_from:
            raise UsageError("--pretrained and --resume-from exclude one another")
