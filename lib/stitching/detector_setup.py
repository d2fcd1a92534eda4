"""Prepares the training of detectors: the source network, a classifier per layer, the two phases.

The options are those of `exec_ood_detector.py`; stitching paper, sections 4.1 to 4.3 of its code.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch

from lib import models
from lib.core import devices
from lib.core.errors import UserError
from lib.core.registry import resolve
from lib.datasets import overlap
from lib.datasets.batching import Batching
from lib.datasets.catalogue import AUGMENTATIONS
from lib.datasets.split import Split
from lib.models import checkpoints
from lib.models.checkpoints import Checkpoint, Description
from lib.models.normalized import Normalized
from lib.runs import cli, loading
from lib.stitching import detector, grid
from lib.stitching.flags import DetectorConfig
from lib.training.loop import Recipe
from lib.training.optimizers import optimizer, schedule


@dataclass(frozen=True)
class TrainingPhase:
    """Training the classifiers ("classify"), or fine-tuning them ("fine-tune"): on which images, and how."""

    name: str
    split: Split
    recipe: Recipe


@dataclass(frozen=True)
class Job:
    """Classifiers of the layers of a frozen network, and how they are trained; `described` is by layer.

    `state` is that of the losses of both phases: an interrupted run continues from one file.
    """

    source: Normalized
    layers: list[str]
    described: dict[str, Description]
    classifiers: detector.Classifiers
    phases: list[TrainingPhase]
    state: dict[str, torch.Tensor]
    val_split: Split
    batching: Batching


def prepare(config: DetectorConfig) -> Job:
    """Raises `UserError` for networks, layers and data that do not go together; trains nothing and writes nothing."""
    device = loading.device(config)
    source = loading.load_checkpoint(config, config.source_path, config.source_type, device)
    source.network.requires_grad_(False)
    name, size = loading.dataset_name(config.dataset, source), source.description.image_size
    train_split, test_split = (
        loading.in_network_classes(
            loading.load_split(config, name, part, image_size=size), source.description, name, lacking=part == "test"
        )
        for part in ("train", "test")
    )
    size = size or max(test_split.height, test_split.width)
    listed = loading.layers(source, size, device)
    layers, shapes = grid.choose(source, listed, config.layer, "LAYER"), {layer.name: layer.shape for layer in listed}
    described = {layer: _description(config, source, layer, shapes[layer], size, name) for layer in layers}
    networks = [checkpoints.fresh(described[layer], config.seed, "init", layer).body for layer in layers]
    batching = dataclasses.replace(
        loading.batching(config, device, source.description.channels, size), batch_size=max(config.batch_size, 256)
    )
    state: dict[str, torch.Tensor] = {}
    return Job(
        source.network,
        layers,
        described,
        detector.Classifiers(networks).to(device),
        _phases(config, source, layers, state, batching, train_split, test_split),
        state,
        test_split.to(device),
        batching,
    )


def optimiser(config: DetectorConfig, classifiers: detector.Classifiers) -> torch.optim.Optimizer:
    """What a phase begins with."""
    return optimizer(
        config.optimizer, classifiers.parameters(), learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )


def ft_rate(config: DetectorConfig, steps: int):
    """The learning rate of the fine-tuning, of `steps` batches an epoch, at a time counted from the run's first epoch."""
    milestone = max(config.ft_epochs // 2, 1) if config.ft_sched == "per-epoch" else config.ft_epochs // 2 / steps
    rate = schedule("none", learning_rate=config.learning_rate, epochs=config.ft_epochs, milestones=(milestone,))
    return lambda time: rate(time - config.epochs + 1e-9)  # the time of a batch is a rounded sum


def _description(
    config: DetectorConfig, source: Checkpoint, layer: str, shape: tuple[int, ...], size: int, dataset: str
) -> Description:
    """Describes the classifier of a layer; raises `UserError` for one that does not take what the layer puts out."""
    kind = "maps" if len(shape) == 3 else "tokens"
    if models.takes(config.model_type) != kind:
        fitting = [name for name in models.REPRESENTATIONS if models.takes(name) == kind]
        raise UserError(
            f"-m {config.model_type}: it takes {models.takes(config.model_type)}, and layer {layer} puts out "
            f"{kind}, {'x'.join(map(str, shape))}; {fitting[0]} and its like take them"
        )
    return Description(
        architecture=config.model_type,
        classes=source.description.classes,
        channels=shape[0] if kind == "maps" else shape[1],
        image_size=size,
        dataset=dataset,
        config=cli.identity(config) | {"layer": [layer]},
    )


def _phases(
    config: DetectorConfig,
    source: Checkpoint,
    layers: list[str],
    state: dict[str, torch.Tensor],
    batching: Batching,
    train_split: Split,
    test_split: Split,
) -> list[TrainingPhase]:
    """How the classifiers are trained, and then fine-tuned: half of a batch are images, half outliers."""
    device, size = batching.device, batching.size

    def recipe(batch_size, **options):
        precision = devices.resolve_precision(config.precision, device, training=True)
        return Recipe(
            seed=config.seed,
            epochs=config.epochs + config.ft_epochs,
            batching=dataclasses.replace(batching, batch_size=batch_size, precision=precision),
            **options,
        )

    def augmentation(split):
        return split.augmentation if config.augmentation == "auto" else config.augmentation

    rate = schedule(config.schedule, learning_rate=config.learning_rate, epochs=config.epochs, milestones=config.milestones)
    phases = [
        TrainingPhase(
            "classify",
            train_split.to(device),
            recipe(
                loss=detector.ClassifierLoss(source.network, layers, state),
                learning_rate=rate,
                batch_size=config.batch_size,
                augmentation=augmentation(train_split),
            ),
        )
    ]
    if not config.ft_epochs:
        return phases
    inside = train_split
    if config.ft_id:
        inside = loading.load_split(config.of_ft_id, config.ft_id, "train", image_size=size)
        if len(inside.classes) != len(train_split.classes) or bool((inside.labels < 0).any()):
            raise UserError(
                f"-ftidd {config.ft_id}: fine-tuning needs labelled images of the {len(train_split.classes)} "
                f"classes of {train_split.name}"
            )
    outside = loading.load_split(config.of_outliers, config.ft_outliers, "train", image_size=size)
    overlap.refuse(outside, f"-ftoodd {config.ft_outliers}", train_split, test_split, inside)
    half = config.batch_size // 2
    images = min(len(inside), len(outside))
    if images < 2:
        raise UserError(f"-ftoodd {config.ft_outliers}: one image is no batch; fine-tuning needs two or more")
    images -= images % half == 1  # a single image has no batch statistics
    outliers = detector.Outliers(
        split=outside, augment=resolve(AUGMENTATIONS[augmentation(inside)]), seed=config.seed, batch_size=half
    )
    terms = {
        "energy": lambda one, two: detector.energy_term(one, two, config.m_in, config.m_out),
        "OE": detector.uniform_term,
    }
    return [
        *phases,
        TrainingPhase(
            "fine-tune",
            inside.to(device),
            recipe(
                loss=detector.ClassifierLoss(source.network, layers, state, outliers, terms[config.score]),
                learning_rate=ft_rate(config, math.ceil(images / half)),
                batch_size=half,
                augmentation=augmentation(inside),
                epoch_images=images,
            ),
        ),
    ]
