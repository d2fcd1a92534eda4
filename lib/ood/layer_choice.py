"""Choosing one layer, without labelled outliers or with those of another set.

OOD-layers paper, claim C2 and section 7: no layer is best for every kind of outlier. What is chosen is a column of
energies (n, L); the regret of a choice is how much higher the AUROC of the best column is.
"""

from dataclasses import replace

import numpy as np
import torch

from lib.core import randomness
from lib.core.errors import UserError
from lib.datasets.split import Split
from lib.datasets.storage.lazy_images import LazyImages
from lib.metrics import ood_detection
from lib.ood import comparison, halves
from lib.ood.flags import CHOICES

TILES = 4  # per side


def scores(
    names: tuple[str, ...],
    layers: list[str],
    inside: np.ndarray,
    outside: dict[str, np.ndarray],
    fitted: np.ndarray,
    proxies: np.ndarray | None,
    seed: int,
) -> dict[str, list[comparison.Score]]:
    """By OOD set, the scores of the layers that `names`, of CHOICES, choose when the test outliers are those of that set.

    Energies (., L) of test images, of the outliers of every set, of in-distribution images to fit on, and, for jigsaw, of
    their shuffled copies. Choices are scored by |E - median| / MAD; transfer also by the energy with the sign that the other
    set's outliers had. `best` is the AUROC of the best layer by the same kind of score.
    """
    inner = ood_detection.deviation(inside, fitted)
    outer = {name: ood_detection.deviation(part, fitted) for name, part in outside.items()}
    proxied = None if proxies is None else by_proxies(fitted, proxies, seed)
    by_set: dict[str, list[comparison.Score]] = {}
    for other in outside:
        chosen = {}
        if "mixture" in names:
            chosen["mixture"] = by_mixture(fitted, np.concatenate([inside, outside[other]]))
        if proxied is not None:
            chosen["jigsaw"] = proxied
        best = float(ood_detection.auroc(inner, outer[other]).max()) if chosen else None
        by_set[other] = [
            comparison.Score(
                {"layer": layers[layer], "score": f"two-sided, chosen by {name}", "needs": CHOICES[name]},
                inner[:, layer],
                outer[other][:, layer],
                best=best,
            )
            for name, layer in chosen.items()
        ]
    if "transfer" in names and len(outside) > 1:
        two_sided = _transferred("two-sided", layers, inner, outer, seed, signed=False)
        energies = _transferred("signed energy", layers, inside, outside, seed, signed=True)
        for other in outside:
            by_set[other] += [score for pair in zip(two_sided[other], energies[other], strict=True) for score in pair]
    return by_set


def _transferred(
    kind: str, layers: list[str], inside: np.ndarray, outside: dict[str, np.ndarray], seed: int, signed: bool
) -> dict[str, list[comparison.Score]]:
    """By test set, the scores of the layer, and if `signed` its sign, that is best on each of the other sets of outliers.

    Chosen on one half of the images and tested on the other, both ways: on its own images a layer that is one of the best
    by chance stays one. The outliers are halved as well, since two sets may be of the same images, corrupted in two ways;
    sets of equal size are halved alike. What chooses for one half is what the other half's choice is tested on, so that the
    two results are a little correlated: where no layer tells anything, intervals lie above 0.5 in 0.03 instead of 0.025.
    """
    if fewest := next((name for name, part in {"-d": inside, **outside}.items() if len(part) < 2), ""):
        raise UserError(f"--choose transfer: {fewest} has one image; it takes two, one to choose on and one to test")
    of_inside = halves.draw(len(inside), seed, "transfer")
    of_outside = {name: halves.draw(len(part), seed, "transfer") for name, part in outside.items()}

    def strength(auroc: np.ndarray) -> np.ndarray:
        return np.maximum(auroc, 1 - auroc) if signed else auroc

    # AUROCs (2, L) on each half of the images; the first half is tested with what the second one chose
    on_halves = {
        name: np.stack([ood_detection.auroc(inside[of_inside == half], part[of_outside[name] == half]) for half in (1, 0)])
        for name, part in outside.items()
    }
    best = {name: float(strength(ood_detection.auroc(inside, part)).max()) for name, part in outside.items()}
    made: dict[str, list[comparison.Score]] = {other: [] for other in outside}
    for source in outside:
        chosen = strength(on_halves[source]).argmax(1)
        signs = np.where(signed & (on_halves[source][[0, 1], chosen] < 0.5), -1, 1)

        def scored(energies: np.ndarray, half: np.ndarray, chosen: np.ndarray = chosen, signs: np.ndarray = signs):
            return signs[half] * energies[np.arange(len(energies)), chosen[half]]

        about = {
            "layer": " or ".join(dict.fromkeys(layers[layer] for layer in chosen)),
            "score": f"{kind}, chosen on {source}",
            "needs": CHOICES["transfer"],
            "chosen_on": source,
        }
        for other in (other for other in outside if other != source):
            made[other].append(
                comparison.Score(
                    about,
                    scored(inside, of_inside),
                    scored(outside[other], of_outside[other]),
                    halves=(of_inside, of_outside[other]),
                    best=best[other],
                )
            )
    return made


def by_mixture(fitted: np.ndarray, mixture: np.ndarray) -> int:
    """The layer whose energies of unlabelled images (n, L) differ most from in-distribution ones (f, L).

    By the Kolmogorov-Smirnov distance, which needs no direction. The mixture holds the test images of both kinds.
    """
    return int(np.argmax([_distance(a, b) for a, b in zip(fitted.T, mixture.T, strict=True)]))


def by_proxies(fitted: np.ndarray, proxies: np.ndarray, seed: int) -> int:
    """The layer that tells made-up outliers (m, L) best from in-distribution images (f, L), in either direction.

    Median and MAD come from one half of the images, the AUROC from the other.
    """
    half = halves.draw(len(fitted), seed, "jigsaw")
    first, second = fitted[half == 0], fitted[half == 1]
    return int(
        np.argmax(ood_detection.auroc(ood_detection.deviation(second, first), ood_detection.deviation(proxies, first)))
    )


def jigsaw(split: Split, seed: int) -> Split:
    """The images with their 4 x 4 tiles in another order: the colours and textures, not the objects.

    Rows and columns that 4 does not divide stay where they are.
    """
    if isinstance(split.images, LazyImages):
        raise UserError("--choose jigsaw: it takes images that fit into memory")
    n, c, h, w = split.images.shape
    high, wide = h // TILES, w // TILES
    if not high or not wide:
        raise UserError(f"--choose jigsaw: images of {h} x {w} have no {TILES} x {TILES} tiles")
    order = torch.rand(n, TILES**2, generator=randomness.generator(seed, "jigsaw")).argsort(1)
    images = split.images.clone()
    part = images[:, :, : high * TILES, : wide * TILES]
    tiles = part.reshape(n, c, TILES, high, TILES, wide).permute(0, 2, 4, 1, 3, 5).reshape(n, TILES**2, c, high, wide)
    tiles = tiles[torch.arange(n)[:, None], order.to(tiles.device)]
    part.copy_(tiles.reshape(n, TILES, TILES, c, high, wide).permute(0, 3, 1, 4, 2, 5).reshape(part.shape))
    return replace(split, images=images)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference of the two empirical distribution functions."""
    values = np.concatenate([first, second])
    return float(
        np.abs(
            np.searchsorted(np.sort(first), values, "right") / len(first)
            - np.searchsorted(np.sort(second), values, "right") / len(second)
        ).max()
    )
