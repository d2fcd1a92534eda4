"""Similarity of the layers of two networks: `exec_similarity.py`.

Balogh & Jelasity, "How not to Stitch Representations to Measure Similarity", AAAI 2025, compares stitching with CKA, PWCCA
and orthogonal Procrustes. Definitions are in `lib.metrics.similarity`, what counts as a sample in
`lib.representations.similarity`.
"""

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lib.core import progress, randomness
from lib.core.errors import UserError
from lib.datasets.split import Split
from lib.experiments.config.similarity import SimilarityConfig
from lib.metrics import image_permutations
from lib.metrics import similarity as metrics
from lib.metrics.image_permutations import Permutations
from lib.models import cutting
from lib.models.checkpoints import Checkpoint
from lib.representations import aliases, finite, passes
from lib.representations import similarity as method
from lib.runs import loading
from lib.runs.records import Result
from lib.training import loop

FEWEST = 4  # images that can be compared


@dataclass(frozen=True)
class _Side:
    """One of the two networks: its checkpoint, the side of its images, and the layers that are compared, in order.

    shapes    of the output of every layer for one image
    ranks     those that each of the layers is limited to
    limited   whether ranks were asked for
    named     layers that were named one by one: they stay, whatever they put out
    aliases   by layer, those that put out the same, as a row states them
    """

    checkpoint: Checkpoint
    size: int
    shapes: dict[str, tuple[int, ...]]
    layers: list[str]
    ranks: dict[str, list[int]]
    limited: bool
    named: tuple[str, ...]
    aliases: dict[str, str | None] = field(default_factory=dict)

    def shown_rank(self, layer: str, rank: int) -> int | None:
        """The rank as rows state it: None for a whole layer where none was asked for."""
        return rank if self.limited or rank != _width(self.shapes[layer]) else None


def similarity(config: SimilarityConfig) -> Result:
    """One row per pair of layers and of ranks; a heat map per index."""
    device = loading.device(config)
    checkpoints = [
        loading.load_checkpoint(config, path, kind, device)
        for path, kind in ((config.model1_path, config.model1_type), (config.model2_path, config.model2_type))
    ]
    split = _images(config, checkpoints[0])
    first, second = _sides(config, checkpoints, split, device)
    _warn_of_few_images(len(split), (first, second), config.measures)
    begin = time.perf_counter()
    whole = progress.Whole()
    whole.plan(progress.FORWARD, *[len(split)] * 2)
    (second, two), (first, one) = (_represent(config, side, split, device, whole) for side in (second, first))
    seconds = {"passes": time.perf_counter() - begin}
    begin = time.perf_counter()
    orders = _permutations(config, len(split))
    measured = method.grid(one, two, config.measures, first.ranks, second.ranks, orders)
    seconds["indices"] = time.perf_counter() - begin
    errors = _standard_errors(config, (first, second), (one, two), len(split))
    if errors:
        seconds["bootstrap"] = time.perf_counter() - begin - seconds["indices"]
    disagreement = {}
    if "disagreement" in config.measures:
        disagreement = {"disagreement": _disagreement(config, (first, second), split, device)}
    common = {"data": split.name, "split": split.split, "n": len(split)}
    rows = []
    for number, row in enumerate(measured):
        ranks = {
            "rank1": first.shown_rank(row["layer1"], row["rank1"]),
            "rank2": second.shown_rank(row["layer2"], row["rank2"]),
        }
        same = {"aliases1": first.aliases[row["layer1"]], "aliases2": second.aliases[row["layer2"]]}
        rows.append({**row, **same, **ranks, **disagreement, **(errors[number] if errors else {}), **common})
    return Result(
        rows,
        seconds=seconds,
        columns=("layer1", "layer2", "rank1", "rank2", "n", "rows", *_shown(config)),
    )


def _shown(config: SimilarityConfig) -> Iterator[str]:
    """The columns of indices that are printed."""
    for name in config.measures:
        yield name
        if config.null and name != "disagreement":
            yield from (f"{name}_null_mean", f"{name}_p_best")


def _permutations(config: SimilarityConfig, n: int) -> Permutations | None:
    """The orders of the second network's images behind `--null`."""
    return image_permutations.draw(n, config.null, randomness.generator(config.seed, "null")) if config.null else None


def _sides(
    config: SimilarityConfig, checkpoints: list[Checkpoint], split: Split, device: torch.device
) -> tuple[_Side, _Side]:
    """Both networks with what of them is compared; raises `UserError` for layers and ranks that they do not have."""
    sizes = [checkpoint.description.image_size or max(split.height, split.width) for checkpoint in checkpoints]
    found = [loading.layers(checkpoint, size, device) for checkpoint, size in zip(checkpoints, sizes, strict=True)]
    shapes = [{layer.name: layer.shape for layer in listed} for listed in found]
    words = config.layers1, config.layers2 or config.layers1
    layers = [
        cutting.tapped(listed, tuple(pattern.split(",")), f"LAYERS{number}")
        for number, (listed, pattern) in enumerate(zip(found, words, strict=True), 1)
    ]

    def side(number: int, given: tuple[int, ...], spelling: str) -> _Side:
        listed = shapes[number]
        ranks = {layer: _ranks(given, layer, _width(listed[layer]), spelling) for layer in layers[number]}
        named = tuple(words[number].split(","))
        return _Side(checkpoints[number], sizes[number], listed, layers[number], ranks, bool(given), named)

    return side(0, config.model1_ranks, "-m1r"), side(1, config.model2_ranks, "-m2r")


def _images(config: SimilarityConfig, checkpoint: Checkpoint) -> Split:
    """The images that are compared on."""
    name = loading.dataset_name(config.dataset, checkpoint)
    split = loading.load_split(config, name, image_size=checkpoint.description.image_size).spread(config.examples)
    if len(split) < FEWEST:
        raise UserError(f"-n: {len(split)} images are too few to compare representations; {FEWEST} are the least")
    return split


def _ranks(given: tuple[int, ...], layer: str, width: int, spelling: str) -> list[int]:
    """The ranks that a layer of this width can be limited to; its width where none were asked for."""
    usable = sorted({rank for rank in given if rank <= width}, reverse=True)
    if len(usable) == len(set(given)):
        return usable or [width]
    wide = ", ".join(str(rank) for rank in given if rank > width)
    if not usable:
        raise UserError(f"{spelling} {wide}: layer {layer} has only {width} channels")
    warnings.warn(f"{spelling} {wide}: left out for layer {layer}, which has {width} channels", stacklevel=2)
    return usable


def _width(shape: tuple[int, ...]) -> int:
    """The channels of (c, h, w), the features of (t, d) and (d,)."""
    return shape[0] if len(shape) == 3 else shape[-1]


def _warn_of_few_images(n: int, sides: tuple[_Side, _Side], measures: tuple[str, ...]) -> None:
    """Canonical correlations of as many features as samples are 1 whatever the features are."""
    if not {"pwcca", "svcca", "mean_cca"} & set(measures):
        return
    widest = max(_width(side.shapes[layer]) for side in sides for layer in side.layers)
    if n <= 2 * widest:
        warnings.warn(
            f"-n {n}: canonical correlations of means over positions are inflated unless images are many more "
            f"than channels, of which there are up to {widest}",
            stacklevel=2,
        )


def _represent(
    config: SimilarityConfig, side: _Side, split: Split, device: torch.device, whole: progress.Whole
) -> tuple[_Side, dict[str, method.Representation]]:
    """layer -> representation, from one pass that ends behind the deepest of the layers; the side with each only once."""
    values: dict[str, Tensor] = {}
    network, channels = side.checkpoint.network, side.checkpoint.description.channels
    batching = loading.batching(config, device, channels, side.size, whole=whole)
    done = 0
    for batch in passes.represent(network, split, side.layers, batching, as_it_is, label=str(side.checkpoint.path)):
        for layer, rows in batch.items():
            if layer not in values:  # written into at once: parts that are joined in the end would be there twice
                values[layer] = rows.new_empty(len(split), *rows.shape[1:])
            values[layer][done : done + len(rows)] = rows
        done += len(rows)
    path = side.checkpoint.path
    for layer in side.layers:
        finite.check(values[layer], f"layer {layer} of {path}: its outputs", split)
        if bool((values[layer] == values[layer][:1]).all()):
            warnings.warn(
                f"layer {layer} of {path} puts out the same for all {len(split)} images: its CKA is empty, and what other "
                "indices say is of its positions alone",
                stacklevel=2,
            )
    partition: aliases.Partition[str] = aliases.Partition(side.layers)
    partition.add({layer: method.by_position(whole) for layer, whole in values.items()})
    once = aliases.settle(partition, side.layers, lambda layer: layer, side.named)
    side = replace(side, layers=once.kept, aliases={layer: once.words(layer) for layer in once.kept})
    return side, {layer: method.representation(values.pop(layer)) for layer in side.layers}


def as_it_is(output: Tensor) -> Tensor:
    """The whole output of a layer."""
    return output


def _standard_errors(
    config: SimilarityConfig,
    sides: tuple[_Side, _Side],
    representations: tuple[dict[str, method.Representation], dict[str, method.Representation]],
    n: int,
) -> list[dict]:
    """For each row of the grid the deviation of each index over resamples of the images."""
    if not config.bootstrap:
        return []
    names = [name for name in config.measures if name != "disagreement"]
    generator = randomness.generator(config.seed, "bootstrap")
    draws = []
    for _ in range(config.bootstrap):
        positions = torch.randint(n, (n,), generator=generator)
        one, two = (
            {layer: whole.resampled(positions.to(whole.values.device)) for layer, whole in layers.items()}
            for layers in representations
        )
        measured = method.grid(one, two, config.measures, sides[0].ranks, sides[1].ranks)
        draws.append([[row[name] for name in names] for row in measured])
    values = np.array(draws)  # (draws, rows, indices)
    deviations = values.std(0, ddof=1) if config.bootstrap > 1 else np.full(values.shape[1:], math.nan)
    return [{f"{name}_se": value for name, value in zip(names, row, strict=True)} for row in deviations.tolist()]


def _disagreement(config: SimilarityConfig, sides: tuple[_Side, _Side], split: Split, device: torch.device) -> float:
    """The share of images that the two whole networks put into different classes: the same in every row."""
    if len({len(side.checkpoint.description.classes) for side in sides}) > 1:
        raise UserError("--measures disagreement: the networks have different numbers of classes")
    first, second = (
        finite.check(
            loop.predict(
                side.checkpoint.network,
                split,
                loading.batching(config, device, side.checkpoint.description.channels, side.size),
            ),
            f"{side.checkpoint.path}: its logits",
            split,
        )
        for side in sides
    )
    return metrics.disagreement(first, second)
