"""Choosing one layer, without labelled outliers or with those of another set.

OOD-layers paper, claim C2 and section 7: no layer is best for every kind of outlier. What is chosen is a column of
energies (n, L); the regret of a choice is how much higher the AUROC of the best column is.
"""

from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Transfer:
    """What the outliers of one set choose: for each half of the images the layer, and the sign, that is best on the other.

    chosen, signs (2,); scores are deviations, or if `signed` energies, with the sign that the set's outliers had.
    """

    source: str
    signed: bool
    chosen: np.ndarray
    signs: np.ndarray

    def score(self, values: np.ndarray, half: np.ndarray) -> np.ndarray:
        """The scores (n,) of images by the choice of their half (n,), from the deviations or energies (n, L)."""
        return self.signs[half] * values[np.arange(len(values)), self.chosen[half]]


def scores(
    names: tuple[str, ...],
    layers: list[str],
    inside: np.ndarray,
    outside: dict[str, np.ndarray],
    fitted: np.ndarray,
    proxies: np.ndarray | None,
    transferred: list[Transfer],
    other: str,
    seed: int,
) -> list[comparison.Score]:
    """The scores of the layers that `names`, of CHOICES, choose when the test outliers are those of the set `other`.

    Energies (., L) of test images, of the outliers of every set, of in-distribution images to fit on, and, for jigsaw, of
    their shuffled copies; for transfer the choices of every set. Choices are scored by |E - median| / MAD; transfer also by
    the energy with the sign that the other set's outliers had. `best` is the AUROC of the best layer by the same kind of
    score.
    """
    if not names:
        return []
    inner, outer = (ood_detection.deviation(part, fitted) for part in (inside, outside[other]))
    best = float(ood_detection.auroc(inner, outer).max())
    chosen = {}
    if "entropy" in names:
        chosen["entropy"] = by_entropy(fitted)
    if "mixture" in names:
        chosen["mixture"] = by_mixture(fitted, np.concatenate([inside, outside[other]]))
    if proxies is not None:
        chosen["jigsaw"] = by_proxies(fitted, proxies, seed)
    scored = [
        comparison.Score(
            {"layer": layers[layer], "score": f"two-sided, chosen by {name}", "needs": CHOICES[name]},
            inner[:, layer],
            outer[:, layer],
            best=best,
        )
        for name, layer in chosen.items()
    ]
    if transferred:
        signed_best = float(_strength(ood_detection.auroc(inside, outside[other])).max())
        of_halves = _halves(inside, seed), _halves(outside[other], seed)
        for choice in (choice for choice in transferred if choice.source != other):
            sides = (inside, outside[other]) if choice.signed else (inner, outer)
            kind = "signed energy" if choice.signed else "two-sided"
            about = {
                "layer": " or ".join(dict.fromkeys(layers[layer] for layer in choice.chosen)),
                "score": f"{kind}, chosen on {choice.source}",
                "needs": CHOICES["transfer"],
                "chosen_on": choice.source,
            }
            ours, theirs = (choice.score(side, half) for side, half in zip(sides, of_halves, strict=True))
            top = signed_best if choice.signed else best
            scored.append(comparison.Score(about, ours, theirs, halves=of_halves, best=top))
    return scored


def transfers(inside: np.ndarray, outside: dict[str, np.ndarray], fitted: np.ndarray, seed: int) -> list[Transfer]:
    """What the outliers of every set choose, from energies (., L); none of a single set, which has no other to test on.

    Chosen on one half of the images and tested on the other, both ways: on its own images a layer that is one of the best
    by chance stays one. The outliers are halved as well, since two sets may be of the same images, corrupted in two ways;
    sets of equal size are halved alike. What chooses for one half is what the other half's choice is tested on, so that the
    two results are a little correlated: where no layer tells anything, intervals lie above 0.5 in 0.03 instead of 0.025.
    """
    if len(outside) < 2:
        return []
    if single := next((name for name, part in {"-d": inside, **outside}.items() if len(part) < 2), ""):
        raise UserError(f"--choose transfer: {single} has one image; it takes two, one to choose on and one to test")
    made, half = [], _halves(inside, seed)
    inner = ood_detection.deviation(inside, fitted)
    for source, energies in outside.items():
        deviations, theirs = ood_detection.deviation(energies, fitted), _halves(energies, seed)
        for signed, one, other in ((False, inner, deviations), (True, inside, energies)):
            # AUROCs (2, L) on the images of either half; the first half is tested with what the second chose
            auroc = np.stack([ood_detection.auroc(one[half == number], other[theirs == number]) for number in (1, 0)])
            chosen = (_strength(auroc) if signed else auroc).argmax(1)
            signs = np.where(signed & (auroc[[0, 1], chosen] < 0.5), -1, 1)
            made.append(Transfer(source, signed, chosen, signs))
    return made


def _halves(images: np.ndarray, seed: int) -> np.ndarray:
    return halves.draw(len(images), seed, "transfer")


def _strength(auroc: np.ndarray) -> np.ndarray:
    """The AUROC of the better sign."""
    return np.maximum(auroc, 1 - auroc)


def by_mixture(fitted: np.ndarray, mixture: np.ndarray) -> int:
    """The layer whose energies of unlabelled images (n, L) differ most from in-distribution ones (f, L).

    By the Kolmogorov-Smirnov distance, which needs no direction. The mixture holds the test images of both kinds.
    """
    return int(np.argmax([_distance(a, b) for a, b in zip(fitted.T, mixture.T, strict=True)]))


def by_entropy(fitted: np.ndarray) -> int:
    """The layer whose energies (f, L) of in-distribution images are spread most evenly over their range.

    By the Shannon entropy of a histogram with sqrt(f) equal bins from the least to the greatest energy, which no unit
    changes. In-distribution energies with heavy tails leave few bins to most images, and an outlier little room beyond
    them. That entropy may choose layers without outliers is De la Jara et al.'s idea (2025), who join layers by it; this
    rule for a single one is ours.
    """
    bins = max(2, round(len(fitted) ** 0.5))
    entropies = []
    for energies in fitted.T.astype(np.float64):
        least, most = energies.min(), energies.max()
        counts = np.histogram(energies, bins, (least, most))[0] if most > least else np.array([len(energies)])
        shares = counts[counts > 0] / len(energies)
        entropies.append(-(shares * np.log(shares)).sum())
    return int(np.argmax(entropies))


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
