"""Prepares a training: its images, the network with its normalisation, the recipe.

The options are those of `TrainConfig`; the hyperplane paper, section 4, has their meaning, and its defects D3 to D7 what
they must not mean.
"""

import dataclasses
import warnings

import torch

from lib import datasets, models
from lib.core import devices
from lib.core.distributed import Processes
from lib.core.errors import UserError
from lib.core.registry import resolve
from lib.datasets.catalogue import EPOCH_IMAGES, KNOWN
from lib.datasets.label_noise import label_noise, pixel_shuffle
from lib.datasets.names import parse
from lib.datasets.split import Split
from lib.datasets.statistics import channel_statistics
from lib.datasets.subsets import validation_split
from lib.models import checkpoints
from lib.models.checkpoints import Description
from lib.models.normalisations import NORMALISATIONS
from lib.models.normalized import Normalized
from lib.runs import cli, input_files, loading, plan
from lib.training.flags import ATTACKING, LOSSES, TrainingConfig
from lib.training.loop import Recipe
from lib.training.optimizers import schedule


def splits(config: TrainingConfig) -> tuple[Split, Split]:
    """The training images and those that validate: a part of them with --split, else the set's own val, else its test set.

    Wrong labels and shuffled pixels are for training images only.
    """
    train_split = loading.load_split(config, config.dataset, "train", image_size=config.stated_size)
    if len(train_split.classes) < 2 or bool((train_split.labels < 0).any()):
        raise UserError(f"-d {config.dataset}: training needs labelled images of two classes or more")
    if config.split:
        seed = config.seed if config.split_seed is None else config.split_seed
        train_split, val_split = validation_split(train_split, config.split, seed, config.stratified)
    else:
        name = "val" if "val" in datasets.splits(str(parse(config.dataset).images), config.data_root) else "test"
        val_split = loading.load_split(config, config.dataset, name, image_size=config.stated_size)
    seed = config.seed if config.noise_seed is None else config.noise_seed
    if config.noise:
        train_split = label_noise(train_split, config.noise, seed)
    if config.pixel_shuffle:
        train_split = pixel_shuffle(train_split, seed)
    return train_split, val_split


def planned(config: TrainingConfig) -> tuple[Normalized, Description, dict[str, int | None]]:
    """A network as the run has it, with its description, and how many images an epoch and its validation have, by name.

    What the name of a registered set says is taken from there, so that its images need not be there; others are read.
    """
    shape, name = datasets.shape(config.dataset), parse(config.dataset)
    known = KNOWN.get(name.base)
    if shape is None or known is None or not known.sizes:
        train_split, val_split = splits(config)
        network, description = start(config, train_split)
        counts: list[int | None] = [len(train_split), len(val_split)]
        names = [f"{split.name}:{split.split}" for split in (train_split, val_split)]
    else:
        description = Description(
            architecture=config.model_type,
            classes=tuple(map(str, range(shape.classes))),
            channels=shape.channels,
            image_size=config.stated_size or models.accepted_size(config.model_type, shape.side),
            padding=config.padding,
            dataset=config.dataset,
            config=cli.identity(config),
        )
        network, description = _built(config, description)
        names = [f"{config.dataset}:{part}" for part in ("train", "val" if "val" in known.splits else "test")]
        counts = [plan.images(part, config.max_examples) for part in names]
        if config.split and counts[0] is not None:
            held_out = round(counts[0] * config.split)
            names[1], counts = f"{names[0]}, held out", [counts[0] - held_out, held_out]
    per_epoch = config.epoch_images or EPOCH_IMAGES.get(name.base)
    return network, description, dict(zip(names, [per_epoch or counts[0], counts[1]], strict=True))


def start(config: TrainingConfig, split: Split) -> tuple[Normalized, Description]:
    """The network that the run starts from and its description.

    Published weights, and those of a checkpoint, come with the normalisation they were trained with, types whose published
    networks normalise inside with that; others get that of the training images as the network sees them.
    """
    size = config.stated_size or models.accepted_size(config.model_type, max(split.height, split.width))
    if not split.features and split.height != split.width:
        warnings.warn(
            f"{config.dataset}: images of {split.height} x {split.width} pixels are stretched to {size} x {size}",
            stacklevel=2,
        )
    description = Description(
        architecture=config.model_type,
        classes=split.classes,
        channels=split.channels,
        image_size=size,
        padding=config.padding,
        dataset=config.dataset,
        features=split.features,
        config=cli.identity(config),
    )
    network, description = _built(config, description)
    normalisation = network.normalisation if config.pretrained else None
    if config.resume_from:
        path = input_files.locate(config, config.resume_from)
        checkpoints.fill(network, path, config.model_type)
        if checkpoints.sidecar(path).exists():
            there = checkpoints.describe(path)
            normalisation = there.mean, there.std
    if config.unnormalize or split.features:
        normalisation = (), ()
    elif config.mean:
        if len(config.mean) not in (split.channels, description.channels):
            raise UserError(f"--mean: {len(config.mean)} numbers for {split.channels} channels of {config.dataset}")
        normalisation = config.mean, config.std
    elif normalisation is None and split.channels == 3:
        normalisation = NORMALISATIONS.get(config.model_type)
    if normalisation is None:
        normalisation = channel_statistics(
            split, size=size, padding=config.padding, per_image=config.per_image_std, workers=config.workers
        )
    mean, std = (values * description.channels if len(values) == 1 else values for values in map(tuple, normalisation))
    network.normalise(mean, std)
    return network, dataclasses.replace(description, mean=mean, std=std)


def _built(config: TrainingConfig, description: Description) -> tuple[Normalized, Description]:
    """The network with fresh or published weights; for three channels where it takes no grey images as they are."""
    try:
        return checkpoints.fresh(description, config.seed, "init", pretrained=config.pretrained), description
    except UserError:
        if description.channels != 1:
            raise
        coloured = dataclasses.replace(description, channels=3)
        try:
            network = checkpoints.fresh(coloured, config.seed, "init", pretrained=config.pretrained)
        except UserError:
            network = None
        if network is None:
            raise
    warnings.warn(
        f"{config.model_type} takes images of three channels only: the channel of {config.dataset} is repeated", stacklevel=3
    )
    return network, coloured


def recipe(
    config: TrainingConfig,
    split: Split,
    network: torch.nn.Module,
    description: Description,
    device: torch.device,
    processes: Processes,
    *,
    begun_channels_last: bool | None = None,
) -> Recipe:
    """How every epoch of the network is trained; `begun_channels_last` is how a run that goes on has begun."""
    precision = devices.resolve_precision(config.precision, device, training=True)
    usual = EPOCH_IMAGES.get(parse(config.dataset).base)
    # stored features have no bounds that an attack could keep to
    boundless = bool(split.features) and config.loss in ATTACKING
    return Recipe(
        loss=resolve(LOSSES[config.loss])(dataclasses.replace(config, box=False) if boundless else config),
        learning_rate=schedule(
            config.schedule,
            learning_rate=config.learning_rate,
            epochs=config.epochs,
            milestones=config.milestones,
            warmup=config.warmup,
            lr_step=config.lr_step,
            lr_decay=config.lr_decay,
        ),
        seed=config.seed,
        epochs=config.epochs,
        batching=dataclasses.replace(
            loading.batching(config, device, description.channels, description.image_size), precision=precision
        ),
        augmentation=split.augmentation if config.augmentation == "auto" else config.augmentation,
        channels_last=next(
            (asked for asked in (config.channels_last, begun_channels_last) if asked is not None),
            # in that order PyTorch sums batch statistics one after another in float32 on the CPU: variances are off by 1e-3
            precision == "bf16" or (device.type == "cpu" and not normalises_batches(network)),
        ),
        grad_clip=config.grad_clip,
        epoch_images=config.epoch_images or (usual and min(usual, len(split))),
        processes=processes,
    )


def synchronise(config: TrainingConfig, network: Normalized, processes: Processes, device: torch.device) -> str | None:
    """Makes batch statistics those of all processes if asked; says whose they are, None without batch normalisation."""
    if not normalises_batches(network):
        return None
    if processes.world == 1:
        return "one process"
    if not config.sync_batchnorm:
        return "per process"
    if device.type != "cuda":
        raise UserError("--sync-batchnorm: PyTorch has synchronised batch normalisation for GPUs only")
    network.body = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network.body)
    return "synchronised"


def normalises_batches(network: torch.nn.Module) -> bool:
    """Whether any of its modules is a batch normalisation."""
    return any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in network.modules())
