"""Loads what a configuration names, after checks: data sets, checkpoints, the device.

Every experiment reads its data and networks through these, so that the common flags mean the same everywhere.
"""

import dataclasses
import warnings

import torch
from torch import nn

from lib import datasets
from lib.core import devices, distributed, terminal, text_table
from lib.core.errors import UserError
from lib.core.progress import Whole
from lib.core.text import some
from lib.datasets import names
from lib.datasets.batching import Batching
from lib.datasets.sets import imagenet16
from lib.datasets.split import Split
from lib.datasets.subsets import in_classes
from lib.models import checkpoints, class_groups, cutting, residual_blocks
from lib.models.checkpoints import Checkpoint, Description
from lib.representations import feature_dataset, feature_split
from lib.runs.cli import DeviceConfig
from lib.runs.input_files import locate
from lib.runs.network_flags import CheckpointsConfig

MOST = 6  # names of classes that a sentence lists


def in_network_classes(split: Split, description: Description, name: str, *, lacking: bool = True) -> Split:
    """The split in the network's classes, in their order; `lacking`: whether it may lack some, as images that test may.

    Raises `UserError` unless the images are labelled with classes that the network has, and are what it takes.
    """
    feature_dataset.check_whose(split, description, name)
    if bool((split.labels < 0).all()):
        raise UserError(f"-d {name}: its images have no labels, so there is no accuracy")
    ours = tuple(map(str, description.classes))
    found = in_classes(split, known_classes(description))
    if len(found.classes) != len(ours) or (len(split.classes) < len(ours) and not lacking):
        raise UserError(f"-d {name}: it has {len(split.classes)} classes, the network {len(ours)}")
    if len(split.classes) < len(ours):
        warnings.warn(
            f"{name} has {len(split.classes)} of the network's {len(ours)} classes; answers may be any of them", stacklevel=2
        )
    else:
        check_classes(description, found.classes, name)
    return found


def check_classes(description: Description, classes: tuple[str, ...], name: str) -> None:
    """Raises `UserError` for names of classes that the network does not have.

    Where the classes of one side are called by numbers, both go by their places, with a warning.
    """
    ours = known_classes(description)
    foreign = [label for label in classes if label not in ours]
    if not ours or not foreign:
        return
    if not any(all(label.isdigit() for label in side) for side in (ours, classes)):
        raise UserError(
            f"-d {name}: it has classes that the network does not have: {some(foreign, MOST)}; those of "
            f"{description.dataset}, on which the network was trained, are {some(ours, MOST)}"
        )
    warnings.warn(
        f"{name} has other classes than {description.dataset}, on which the network was trained: it goes by their places",
        stacklevel=3,
    )


def known_classes(description: Description) -> tuple[str, ...]:
    """The names of a network's classes; none where nothing says what it was trained on: they are numbers of outputs then."""
    return tuple(map(str, description.classes)) if description.dataset else ()


def answering(checkpoint: Checkpoint, split: Split, name: str) -> tuple[nn.Module, Split]:
    """The network and the images in the same classes.

    Those of the network where the split's are among them; where the split's are classes of ImageNet, or groups of them, the
    network answers in these. Raises `UserError` as `in_network_classes` does.
    """
    description = checkpoint.description
    members = ()
    if len(split.classes) != len(description.classes):
        members = imagenet16.members(split.classes, tuple(map(str, description.classes)))
    if members:
        return class_groups.Pooled(checkpoint.network, members), split
    return checkpoint.network, in_network_classes(split, description, name)


def load_split(config: DeviceConfig, name: str, split: str | None = None, *, image_size: int | None = None) -> Split:
    """The split of a data set, cut down to `--max-examples` images that are evenly spread over it."""
    data = names.parse(name)
    if data.features is not None:
        feature_dataset.check_taken(config.takes_features, name)
        return _stored_features(config, data, split)
    return datasets.load(
        name,
        config.data_root,
        split,
        image_size=image_size,
        cache_dir=config.cache_dir,
        most=config.max_examples,
        decoder=config.decoder,
    )


def _stored_features(config: DeviceConfig, data: names.DataName, split: str | None) -> Split:
    if data.features is None:
        raise ValueError(f"{data.name} is a data set of images")
    (path, kind), layer = feature_dataset.backbone(data.features[0]), data.features[1]
    network = checkpoints.load(locate(config, path), kind, device=device(config))
    described = network.description
    images = load_split(config, str(data.images), split, image_size=described.image_size)
    given = batching(config, device(config), described.channels, described.image_size)
    return feature_split.of_images(images, network, layer, data.name, given, config.cache_dir)


def batching(
    config: DeviceConfig,
    device: torch.device,
    channels: int,
    size: int | None,
    precision: str = "fp32",
    whole: Whole | None = None,
) -> Batching:
    """How a pass gives images of these channels and this side to a network on the device, as the flags say.

    The arithmetic is float32, or for passes that `--precision` is for the one that it asks for.
    """
    return Batching(
        device=device,
        batch_size=config.batch_size,
        channels=channels,
        size=size,
        precision=devices.resolve_precision(precision, device),
        workers=config.workers,
        prefetch=config.prefetch,
        quiet=config.quiet or distributed.rank() > 0,
        whole=whole or Whole(),
        processes=distributed.current(),
    )


def fitting_images(config: DeviceConfig, name: str, fit_on: str, count: int, size: int | None) -> Split:
    """At most `count` in-distribution images that no measure is made on.

    The training split of the data set `name`, whatever split it states, unless `fit_on` names others.
    """
    return load_split(config, fit_on or names.undivided(name), "train", image_size=size).spread(count)


def dataset_name(given: str, checkpoint: Checkpoint) -> str:
    """The data set that `-d` names, else the one that the checkpoint was trained on."""
    name = given or checkpoint.description.dataset
    if not name:
        raise UserError(f"-d is required: {checkpoint.path} does not say what it was trained on")
    return name


def load_checkpoint(
    config: CheckpointsConfig, path: str, architecture: str = "", device: torch.device | str = "cpu"
) -> Checkpoint:
    """The network in a file, with the type and images that the command line states for files without a sidecar.

    Sums inside residual blocks are layers of it where the command line names them: `layer1.0.add`.
    """
    architecture = "" if architecture == "auto" else architecture
    loaded = checkpoints.load(
        locate(config, path),
        architecture,
        mean=config.mean,
        std=config.std,
        channels=config.channels,
        image_size=config.stated_size,
        padding=config.padding,
        device=device,
    )
    residual_blocks.name_sums(loaded.network.body, _words(config))
    return loaded


def warn_of_mixing(checkpoint: Checkpoint, form: tuple[int, ...], device: torch.device) -> bool:
    """Whether the network's answer to an image of this form depends on the other images of its batch; warns of it."""
    mixing = cutting.answers_mix(checkpoint.network, torch.zeros(1, *form, device=device))
    if mixing:
        warnings.warn(
            f"{checkpoint.path}: its answer to an image depends on the other images of the batch, from layer {mixing[0]} "
            f"on, {cutting.MIXING}, so that -b changes what is measured",
            stacklevel=3,
        )
    return bool(mixing)


def _words(config: CheckpointsConfig) -> list[str]:
    """All words of the settings, those joined by commas each by itself."""
    values = [getattr(config, field.name) for field in dataclasses.fields(config)]
    texts = [one for value in values for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, str)]
    return [word for text in texts for word in text.split(",")]


def device(config: DeviceConfig):
    """The device the run computes on, with its kernels chosen as `--deterministic` asks."""
    devices.set_deterministic(config.deterministic)
    return devices.device(config.gpu)


def layer_tables(config: CheckpointsConfig, types: dict[str, str]) -> str:
    """What `--list-layers` prints for checkpoints of these types."""
    parts = []
    for path, kind in types.items():
        loaded = load_checkpoint(config, path, kind)
        table = layer_table(loaded.network, loaded.description.channels, loaded.description.image_size or 224)
        parts.append(table if len(types) == 1 else f"{path}\n{table}")
    return "\n\n".join(parts)


def layers(checkpoint: Checkpoint, size: int, device="cpu") -> list[cutting.Layer]:
    """Every layer that a pass over images of this side runs, in execution order."""
    images = torch.zeros(1, checkpoint.description.channels, size, size, device=device)
    return cutting.layers(checkpoint.network, images)


def layer_table(network, channels: int, size: int) -> str:
    """Every layer of a network as lines of text: name, kind, role, shape, multiply-accumulates, whether it is a cut.

    Below them why a layer has no features, and why it is no cut, each reason once.
    """
    listed = cutting.layers(network, torch.zeros(1, channels, size, size))
    rows = [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "role": layer.role,
            "shape": "x".join(map(str, layer.shape)),
            "macs": layer.macs,
            "cut": layer.cut,
            "calls": layer.calls,
        }
        for layer in listed
    ]
    width = terminal.width()
    table = text_table.text(rows, width=width, rest=terminal.PIPED)
    return "\n".join([table, *(terminal.wrapped(reason, width) for reason in _reasons(listed))])


def _reasons(listed: list[cutting.Layer]) -> list[str]:
    """A line per reason for which layers cannot be tapped or cut, with their names."""
    names: dict[str, list[str]] = {}
    for layer in listed:
        if layer.untapped:
            names.setdefault(f"no features, {layer.untapped}", []).append(layer.name)
        if layer.uncut:
            names.setdefault(f"no cut, {layer.uncut}", []).append(layer.name)
    return [f"{reason}: {', '.join(members)}" for reason, members in names.items()]
