"""Similarity of the layers of two networks: `exec_similarity.py`.

Balogh & Jelasity, "How not to Stitch Representations to Measure Similarity", AAAI 2025, compares stitching with CKA, PWCCA
and orthogonal Procrustes. Definitions are in `lib.metrics.similarity`, what counts as a sample in
`lib.representations.similarity`.
"""

import math
import time
import warnings

import numpy as np
import torch

from lib.core import randomness
from lib.core.errors import UserError
from lib.experiments.config.similarity import SimilarityConfig
from lib.metrics import similarity as metrics
from lib.plots import grid as plots
from lib.representations import passes
from lib.representations import similarity as method
from lib.runs import loading
from lib.runs.records import Result
from lib.training import loop

LIMITS = dict.fromkeys(("cka", "cka_debiased", "svcca", "mean_cca", "rsa", "knn_jaccard"), (0, 1))


DISTANCES = ("pwcca", "procrustes")


def similarity(config: SimilarityConfig) -> Result:
    """One row per pair of layers and of ranks; a heat map per index."""
    device = loading.device(config)
    loaded = [
        loading.load_checkpoint(config, path, kind, device)
        for path, kind in ((config.model1_path, config.model1_type), (config.model2_path, config.model2_type))
    ]
    split = _images(config, loaded[0])
    sizes = [checkpoint.description.image_size or max(split.height, split.width) for checkpoint in loaded]
    shapes = [loading.layer_shapes(checkpoint, size, device) for checkpoint, size in zip(loaded, sizes, strict=True)]
    patterns = config.layers1, config.layers2 or config.layers1
    layers = [
        method.choose(checkpoint.network, list(known), words, f"LAYERS{number}")
        for number, (checkpoint, known, words) in enumerate(zip(loaded, shapes, patterns, strict=True), 1)
    ]
    ranks = [
        {layer: _ranks(given, layer, _width(known[layer]), spelling) for layer in chosen}
        for given, chosen, known, spelling in zip(
            (config.model1_ranks, config.model2_ranks), layers, shapes, ("-m1r", "-m2r"), strict=True
        )
    ]
    _warn_of_few_images(len(split), layers, shapes, config.measures)
    begin = time.perf_counter()
    networks = [
        _represent(config, checkpoint, split, chosen, size)
        for checkpoint, chosen, size in zip(loaded, layers, sizes, strict=True)
    ]
    seconds = {"passes": time.perf_counter() - begin}
    begin = time.perf_counter()
    found = method.grid(*networks, config.measures, *ranks)
    seconds["indices"] = time.perf_counter() - begin
    errors = _standard_errors(config, networks, ranks, len(split))
    if errors:
        seconds["bootstrap"] = time.perf_counter() - begin - seconds["indices"]
    extra = _disagreement(config, loaded, split, sizes) if "disagreement" in config.measures else {}
    common = {"data": split.name, "split": split.split, "n": len(split)}
    rows = []
    for number, row in enumerate(found):
        whole = {
            f"rank{side + 1}": None
            if row[f"rank{side + 1}"] == _width(shapes[side][row[f"layer{side + 1}"]]) and not given
            else row[f"rank{side + 1}"]
            for side, given in enumerate((config.model1_ranks, config.model2_ranks))
        }
        rows.append({**row, **whole, **extra, **(errors[number] if errors else {}), **common})
    return Result(
        rows,
        figures=_figures(config, rows, layers),
        seconds=seconds,
        columns=("layer1", "layer2", "rank1", "rank2", "n", "rows", *config.measures),
    )


def _images(config: SimilarityConfig, checkpoint):
    name = loading.dataset_name(config.dataset, checkpoint)
    split = loading.load_split(config, name, image_size=checkpoint.description.image_size).spread(config.examples)
    if len(split) < 4:
        raise UserError(f"-n: {len(split)} images are too few to compare representations; 4 are the least")
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


def _warn_of_few_images(n: int, layers, shapes, measures) -> None:
    """Canonical correlations of as many features as samples are 1 whatever the features are."""
    if not {"pwcca", "svcca", "mean_cca"} & set(measures):
        return
    widest = max(_width(known[layer]) for chosen, known in zip(layers, shapes, strict=True) for layer in chosen)
    if n <= 2 * widest:
        warnings.warn(
            f"-n {n}: canonical correlations of means over positions are inflated unless images are many more "
            f"than channels, of which there are up to {widest}",
            stacklevel=2,
        )


def _represent(config: SimilarityConfig, checkpoint, split, layers: list[str], size: int) -> dict:
    """layer -> representation, from one pass that ends behind the deepest of the layers."""
    parts: dict[str, list] = {layer: [] for layer in layers}
    batching = loading.batching(config, loading.device(config), checkpoint.description.channels, size)
    for batch in passes.represent(
        checkpoint.network, split, layers, batching, lambda output: output, label=str(checkpoint.path)
    ):
        for layer, values in batch.items():
            parts[layer].append(values)
    return {layer: method.representation(torch.cat(parts.pop(layer))) for layer in layers}


def _standard_errors(config: SimilarityConfig, networks: list[dict], ranks: list[dict], n: int) -> list[dict]:
    """For each row of the grid the deviation of each index over resamples of the images."""
    if not config.bootstrap:
        return []
    names = [name for name in config.measures if name != "disagreement"]
    generator = randomness.generator(config.seed, "bootstrap")
    draws = []
    for _ in range(config.bootstrap):
        positions = torch.randint(n, (n,), generator=generator)
        drawn = [
            {layer: found.resampled(positions.to(found.values.device)) for layer, found in network.items()}
            for network in networks
        ]
        draws.append([[row[name] for name in names] for row in method.grid(*drawn, config.measures, *ranks)])
    deviations = np.array(draws).std(0, ddof=1) if config.bootstrap > 1 else np.full(np.array(draws).shape[1:], math.nan)
    return [{f"{name}_se": value for name, value in zip(names, row, strict=True)} for row in deviations.tolist()]


def _disagreement(config: SimilarityConfig, loaded: list, split, sizes: list[int]) -> dict:
    """The share of images that the two whole networks put into different classes: the same in every row."""
    if len({len(checkpoint.description.classes) for checkpoint in loaded}) > 1:
        raise UserError("--measures disagreement: the networks have different numbers of classes")
    logits = [
        loop.predict(
            checkpoint.network,
            split,
            loading.batching(config, loading.device(config), checkpoint.description.channels, size),
        )
        for checkpoint, size in zip(loaded, sizes, strict=True)
    ]
    return {"disagreement": metrics.disagreement(*logits)}


def _figures(config: SimilarityConfig, rows: list[dict], layers: list[list[str]]) -> dict:
    """Heat maps over layers at the highest rank, and over ranks for a single pair of layers at several."""
    measures = [name for name in config.measures if name != "disagreement"]
    if not measures:
        return {}
    title = f"{config.model1_path} and {config.model2_path} on {rows[0]['n']} images of {rows[0]['data']}"
    best = {}
    for row in rows:
        best.setdefault((row["layer1"], row["layer2"]), row)  # ranks fall within a pair of layers
    panels = {name: plots.matrix(list(best.values()), "layer1", "layer2", layers, name) for name in measures}
    whole = plots.heat_maps(panels, *layers, "layer of the first network", "layer of the second", title, LIMITS, DISTANCES)
    figures = {"": whole}
    if len(best) == 1 and len(rows) > 1:
        named = [{**row, "rank1": str(row["rank1"]), "rank2": str(row["rank2"])} for row in rows]
        names = [list(dict.fromkeys(row[key] for row in named)) for key in ("rank1", "rank2")]
        panels = {name: plots.matrix(named, "rank1", "rank2", names, name) for name in measures}
        pair = f"{layers[0][0]} and {layers[1][0]} of {title}"
        figures["ranks"] = plots.heat_maps(
            panels, *names, "rank of the first", "rank of the second", pair, LIMITS, DISTANCES
        )
    return figures
