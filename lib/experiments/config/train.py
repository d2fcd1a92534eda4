"""The flags of `exec_train.py`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lib import models
from lib.attacks.flags import PerturbationConfig
from lib.core import distributed
from lib.core.errors import UsageError
from lib.datasets import names
from lib.datasets.catalogue import AUGMENTATIONS
from lib.representations import feature_dataset
from lib.runs import cli, input_files, network_flags
from lib.runs.cli import above, at_least, flag, fraction
from lib.runs.image_flags import ImagesConfig
from lib.training import model_strings, run_folder
from lib.training.flags import LOSSES, OptimizationConfig, check_loss


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
        network_flags.check_normalisation(self.mean, self.std)
        if self.noise < 0:  # the paper's way to ask for shuffled pixels
            object.__setattr__(self, "noise", 0.0)
            object.__setattr__(self, "pixel_shuffle", True)
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise UsageError("--nesterov is for -o sgd with a momentum")
        check_loss(self)
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

    def check_inputs(self) -> None:
        super().check_inputs()
        input_files.check_checkpoints(self, {self.resume_from: self.model_type})

    def answer(self) -> str | None:
        if not self.list_layers:
            return None
        self.check_inputs()
        from lib.training import setup

        network, description = setup.start(self, setup.splits(self)[0])
        from lib.runs import loading

        return loading.layer_table(network, description.channels, description.image_size)

    def work(self) -> list[str]:
        from lib.runs import plan
        from lib.training import setup

        network, description = setup.start(self, setup.splits(self)[0])
        return plan.of_training(
            self, network, description, f"{self.epochs} epochs of training, each followed by one over the validation images"
        )

    def inputs(self) -> dict[str, list[Path]]:
        files_read = input_files.data_files(self, self.dataset, *([self.outliers] if self.outliers else []))
        return files_read | (input_files.checkpoint_files(self, self.resume_from) if self.resume_from else {})

    def outputs(self) -> list[Path]:
        last = "best.pt" if self.kill_plateaus else f"model_{self.epochs}.pt"  # which epoch is the last is not known
        return [run_folder.folder(self) / last]
