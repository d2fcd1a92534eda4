"""Nearest-category generalisation of a network: `exec_ncg.py`.

Yang et al., "Probing Predictions on OOD Images via Nearest Categories", TMLR 2023. Pixel distances are in [0, 1] units of
the images as the data set has them; features are the activations of one layer, not rescaled: of the network itself, of a
backbone, or those stored ones that the network was trained on, which are then its only space.
"""

import collections
import contextlib
import time
import warnings
from collections.abc import Generator

import torch
from torch import Tensor

from lib.core import distributed, progress
from lib.core.errors import UsageError, UserError
from lib.datasets import names
from lib.datasets.split import Split
from lib.datasets.subsets import in_classes
from lib.experiments.config.ncg import NcgConfig
from lib.metrics.answer_null import answer_null
from lib.models import checkpoint_paths, checkpoints
from lib.models.checkpoints import Checkpoint
from lib.nearest_category import boundary_distance, distance_spaces, neighbors
from lib.nearest_category import rows as nearest_category_rows
from lib.nearest_category.neighbors import Points
from lib.representations import feature_dataset, finite, passes
from lib.runs import input_files, loading, training_data
from lib.runs.records import Result
from lib.training import loop

RADIUS_STEPS = 100  # of DDN


def ncg(config: NcgConfig) -> Result:
    """Rows per (network, images, space), in all and by distance quintile; predictions and neighbours in the arrays."""
    device = loading.device(config)
    networks = [loading.load_checkpoint(config, config.model_path, config.model_type, device)]
    if config.against:
        networks.append(loading.load_checkpoint(config, config.against, device=device))
        if networks[1].path.resolve() == networks[0].path.resolve():
            raise UsageError(f"--against {config.against}: the network itself")
    _check_space(config, networks[0])
    name = feature_dataset.as_trained(loading.dataset_name(config.dataset, networks[0]), networks[0].description)
    seen = loading.load_split(config, name, "train", image_size=networks[0].description.image_size)
    if not bool((seen.labels >= 0).all()):
        seen = seen.subset(seen.labels >= 0)  # an image without a label names no category
    for checkpoint in networks:
        feature_dataset.check_whose(seen, checkpoint.description, name)
        if config.radius and not seen.features:
            _check_pixels(checkpoint, seen)
    answers = [_answers(checkpoint, seen, name) for checkpoint in networks]
    queries = _queries(config, name, networks[0].description)
    familiar = {checkpoint.path: _familiar(config, checkpoint, queries, name) for checkpoint in networks}
    searched = [_space(config, space, networks[0], device) for space in _spaces(config, networks[0])]
    whole, processes = progress.Whole(), distributed.current()
    whole.plan(progress.FORWARD, *(len(split) for split in queries.values() for _ in networks))
    seconds: dict[str, float] = collections.defaultdict(float)
    with _clock(seconds, "passes over training images"):
        training = {space.name: space.points(seen) for space in searched}
    arrays, found, scored = {}, {}, []
    for key in ("test", *(key for key in queries if key != "test")):  # as other experiments pass over them
        split = queries[key]
        known = in_classes(split, seen.classes)  # and labels None of images that have classes of their own
        labels = known.labels if known.classes == seen.classes else None
        with _clock(seconds, "passes"):
            logits, points = _passed(config, networks, split, searched, whole)
        predicted = [values.argmax(1).numpy() for values in logits]
        arrays |= {f"labels_{key}": split.labels.numpy(), f"indices_{key}": split.indices.numpy()}
        arrays |= {f"predictions_{key}" + ("_against" if number else ""): one for number, one in enumerate(predicted)}
        for space in searched:
            begin = time.perf_counter()
            rows = found[space.name, key] = []
            table = neighbors.cached_table(
                config.cache_dir,
                points[space.name],
                training[space.name],
                seen.labels,
                len(seen.classes),
                engine=config.engine,
                quiet=config.quiet or processes.rank > 0,
                processes=processes,
            )
            neighbours = table.nearest()
            arrays |= {
                f"neighbors_{space.name}_{key}": neighbours.indices.numpy(),
                f"nearest_labels_{space.name}_{key}": neighbours.labels.numpy(),
                f"squared_distances_{space.name}_{key}": neighbours.squared.numpy(),
            }
            nearest = [answer[neighbours.labels].numpy() for answer in answers]
            hits_of_second = predicted[1] == nearest[1] if config.against else None
            for number, checkpoint in enumerate(networks):
                base = {
                    "model": str(checkpoint.path),
                    **checkpoint.description.training,
                    "against": "" if number else config.against,
                    "train": seen.name,
                    "n_train": len(seen),
                    "data": split.name,
                    "split": split.split,
                    "variant": split.variant,
                    "origin": split.origin,
                    "space": space.name,
                    **space.about,
                    "in_distribution": key == "test",
                    "seen_in_training": familiar[checkpoint.path][key],
                }
                measured = nearest_category_rows.rows(
                    base,
                    predicted[number],
                    nearest[number],
                    table,
                    space.unit,
                    classes=len(checkpoint.description.classes),
                    seed=config.seed,
                    labels=answers[number][labels].numpy() if labels is not None else None,
                    against=None if number else hits_of_second,
                )
                rows += measured
                if config.null:
                    scored.append((measured[0], (predicted[number], nearest[number])))
                if config.radius and space.of_inputs and key != "test" and not split.variant:
                    at_points = _radii(config, checkpoint, seen, answers[number][seen.labels], split, neighbours, space.unit)
                    for at, (row, values) in at_points.items():
                        rows.append({**base, "subset": "radius", "at": at, **row})
                        arrays |= {
                            f"{what}_at_{at}_{key}" + ("_against" if number else ""): array for what, array in values.items()
                        }
            seconds[f"neighbours in {space.name} space"] += time.perf_counter() - begin
    if scored:
        with _clock(seconds, "permutations"):
            null = answer_null([answers for _, answers in scored], config.null, config.seed)
            for (row, _), columns in zip(scored, null.columns(), strict=True):
                row |= columns
    rows = [row for space in searched for key in queries for row in found[space.name, key]]
    rows += nearest_category_rows.over_levels([row for row in rows if row["variant"]])
    return Result(
        rows,
        arrays,
        seconds,
        columns=(
            "model",
            "data",
            "split",
            "variant",
            "space",
            "subset",
            "n",
            "ncg",
            "ncg_low",
            "ncg_high",
            "majority",
            "independence",
            "kappa",
            "p_permutation",
            *(("null_mean", "null_q95", "p_best") if config.null else ()),
            "accuracy",
            "mean_distance",
            *(("at", "radius_mean", "radius_km", "covered") if config.radius else ()),
        ),
    )


def _check_space(config: NcgConfig, checkpoint) -> None:
    """Raises `UsageError` for flags that do not go with what the network takes."""
    if checkpoint.description.features and ("pixel" in config.space or config.layer or config.backbone):
        raise UsageError(
            f"--space pixel, --layer and --backbone: {checkpoint.path} takes stored features, and distances "
            "are taken among these"
        )
    if config.radius and not checkpoint.description.features and "pixel" not in _spaces(config, checkpoint):
        raise UsageError("--radius is measured in --space pixel, where images are changed")


def _spaces(config: NcgConfig, checkpoint) -> tuple[str, ...]:
    return tuple(dict.fromkeys(config.space)) or (("feature",) if checkpoint.description.features else ("pixel",))


def _space(config: NcgConfig, name: str, checkpoint, device):
    if name == "pixel":
        return distance_spaces.of_pixels()
    if checkpoint.description.features:
        return distance_spaces.of_stored_features(checkpoint.description.dataset)
    backbone = loading.load_checkpoint(config, config.backbone, device=device) if config.backbone else checkpoint
    described = backbone.description
    batching = loading.batching(config, device, described.channels, described.image_size)
    return distance_spaces.of_layer(backbone, config.layer, batching)


def _radii(config: NcgConfig, checkpoint, seen, labels, split, nearest, unit: float) -> dict[str, tuple[dict, dict]]:
    """Row and arrays of the distances to the boundary, at the images' neighbours (the paper) and at the images."""
    images, distances = distance_spaces.pixels(seen), nearest.squared.double().sqrt().numpy() / unit
    sampling = boundary_distance.Sampling(
        count=config.radius,
        seed=config.seed,
        steps=RADIUS_STEPS,
        batch_size=config.batch_size,
        quiet=config.quiet,
        processes=distributed.current(),
    )
    return {
        "neighbours": boundary_distance.at_training_examples(
            checkpoint.network, images, labels, nearest, distances, sampling
        ),
        "images": boundary_distance.at_images(
            checkpoint.network, distance_spaces.pixels(split), images[nearest.indices], distances, sampling
        ),
    }


def _check_pixels(checkpoint, seen) -> None:
    described, size = checkpoint.description, checkpoint.description.image_size
    if seen.height != seen.width:
        raise UserError(
            f"--radius: images of {seen.name} have {seen.height} x {seen.width} pixels, and networks take "
            "squares: their distances are in different units"
        )
    if described.channels != seen.channels or size not in (None, seen.height):
        raise UserError(
            f"--radius: {checkpoint.path} takes {described.channels} x {size} x {size} images and {seen.name} "
            f"has {seen.channels} x {seen.height} x {seen.width}: their distances are in different units"
        )


def _answers(checkpoint, seen, name: str):
    """The network's number of each class of the training set, by the names of classes, and -1 behind them: of no label.

    Where the names are not those of the network, numbers are: its own, or those of the set with all classes.
    """
    description, ours = checkpoint.description, seen.classes
    count, own = len(description.classes), loading.known_classes(description)
    if set(ours) <= set(own) and len(set(own)) == count:
        return torch.tensor([*map(own.index, ours), -1])
    with_unseen = len(ours) + names.parse(name).unseen
    if count in (len(ours), with_unseen):
        loading.check_classes(description, ours, name)
    if count == len(ours):
        return torch.tensor([*range(count), -1])
    if count == with_unseen:
        return torch.tensor([*seen.original_labels, -1])
    whole = f", or {with_unseen} with those held out" if with_unseen > len(seen.classes) else ""
    images, path = names.parse(name).images, checkpoint.path
    way_out = (
        "; a backbone of other classes needs a head for these: exec_train.py LargeMLP -d "
        f"features={path}:LAYER:{images} -dir head trains one at a LAYER that --list-layers names, and exec_ncg.py "
        "models/head/best.pt takes it"
    )
    way_out = "" if seen.features else way_out
    raise UserError(f"-d {name}: it has {len(seen.classes)} classes{whole}, the network {path} has {count}{way_out}")


def _query_names(config: NcgConfig, name: str) -> list[str]:
    """The data sets of the images from elsewhere, and of the test images corrupted."""
    named = config.ood or ((f"{name}:ood",) if names.parse(name).unseen else ())
    if not named and not config.corruptions:
        raise UserError(f"-ood or --corruptions is required: {name} holds no class out")
    return [*named, *config.corrupted(name)]


def _queries(config: NcgConfig, name: str, description) -> dict:
    """Key of the arrays -> images: those from elsewhere, the test images, and these corrupted."""
    queries = {}
    for other in _query_names(config, name):
        split = loading.load_split(config, feature_dataset.as_trained(other, description), image_size=description.image_size)
        feature_dataset.check_whose(split, description, other)
        queries[_key(other)] = split
    return {**queries, "test": loading.load_split(config, name, "test", image_size=description.image_size)}


def _familiar(config: NcgConfig, checkpoint, queries: dict, name: str) -> dict[str, bool | None]:
    """Key -> whether the network, or the backbone of what it takes, was trained on these images' classes; with a warning."""
    descriptions, dataset = [checkpoint.description], checkpoint.description.dataset
    if dataset and (features := names.parse(dataset).features):
        path = input_files.locate(config, feature_dataset.backbone(features[0])[0])
        descriptions += [checkpoints.describe(path)] if checkpoint_paths.sidecar(path).exists() else []
    named = {"test": name} | {_key(other): other for other in _query_names(config, name)}
    familiar: dict[str, bool | None] = {}
    for key, split in queries.items():
        seen = [training_data.seen_in_training(one, named[key], split, corrupted=False) for one in descriptions]
        familiar[key] = True if any(seen) else None if all(one is None for one in seen) else False
        if familiar[key] and key != "test" and not split.variant:
            warnings.warn(
                f"{split.name}:{split.split}: {checkpoint.path} was trained on images of these classes, so that its answers "
                "do not tell how it generalises to others",
                stacklevel=2,
            )
    return familiar


def _passed(
    config: NcgConfig,
    networks: list[Checkpoint],
    split: Split,
    spaces: list[distance_spaces.Space],
    whole: progress.Whole,
) -> tuple[list[Tensor], dict[str, Points]]:
    """The logits (n, k) of each network on a split, and its points in every space, from one pass of each network."""
    device, logits, points = loading.device(config), [], {}
    for checkpoint in networks:
        described = checkpoint.description
        batching = loading.batching(config, device, described.channels, described.image_size, config.precision, whole)
        own = [space for space in spaces if space.network is checkpoint.network and batching.precision == "fp32"]
        if own:
            layers = list(dict.fromkeys(space.about["layer"] for space in own))
            activations, answered = passes.features_and_logits(checkpoint.network, split, layers, batching)
            for space in own:
                if space.of_activations is not None:
                    points[space.name] = space.of_activations(split, activations[space.about["layer"]])
        else:
            answered = loop.predict(checkpoint.network, split, batching)
        logits.append(finite.check(answered, f"{checkpoint.path}: its logits", split))
    return logits, {space.name: points.get(space.name) or space.points(split) for space in spaces}


@contextlib.contextmanager
def _clock(seconds: dict[str, float], stage: str) -> Generator[None]:
    """Adds the time of a block to that of a stage."""
    begin = time.perf_counter()
    yield
    seconds[stage] += time.perf_counter() - begin


def _key(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in str(names.parse(name).images)).strip("-")
