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
from lib.ood import comparison
from lib.ood.flags import CHOICES

TILES = 4  # per side


def scores(
    names: tuple[str, ...],
    layers: list[str],
    inside: np.ndarray,
    outside: dict[str, np.ndarray],
    fitted: np.ndarray,
    proxies: np.ndarray | None,
    other: str,
) -> list[comparison.Score]:
    """The scores of the layers that `names`, of CHOICES, choose when the test outliers are those of the set `other`.

    Energies (., L) of test images, of the outliers of every set, of in-distribution images to fit on, and, for jigsaw, of
    their shuffled copies. Choices are scored by |E - median| / MAD; transfer also by the energy with the sign that the other
    set's outliers had. `best` is the AUROC of the best layer by the same kind of score.
    """

    def deviations(energies):
        return ood_detection.deviation(energies, fitted)

    inner, outer = deviations(inside), deviations(outside[other])
    best = float(ood_detection.auroc(inner, outer).max())
    chosen = {}
    if "mixture" in names:
        chosen["mixture"] = by_mixture(fitted, np.concatenate([inside, outside[other]]))
    if proxies is not None:
        chosen["jigsaw"] = by_proxies(fitted, proxies)
    scored = [
        comparison.Score(
            {"layer": layers[layer], "score": f"two-sided, chosen by {name}", "needs": CHOICES[name], "best": best},
            inner[:, layer],
            outer[:, layer],
        )
        for name, layer in chosen.items()
    ]
    for source in (source for source in outside if source != other and "transfer" in names):
        about = {"needs": CHOICES["transfer"], "chosen_on": source}
        layer = int(np.argmax(ood_detection.auroc(inner, deviations(outside[source]))))
        scored.append(
            comparison.Score(
                {"layer": layers[layer], "score": f"two-sided, chosen on {source}", **about, "best": best},
                inner[:, layer],
                outer[:, layer],
            )
        )
        theirs, ours = (ood_detection.auroc(inside, outside[name]) for name in (source, other))
        layer = int(np.argmax(np.abs(theirs - 0.5)))
        sign = 1 if theirs[layer] >= 0.5 else -1
        scored.append(
            comparison.Score(
                {
                    "layer": layers[layer],
                    "score": f"signed energy, chosen on {source}",
                    **about,
                    "best": float(np.maximum(ours, 1 - ours).max()),
                },
                sign * inside[:, layer],
                sign * outside[other][:, layer],
            )
        )
    return scored


def by_mixture(fitted: np.ndarray, mixture: np.ndarray) -> int:
    """The layer whose energies of unlabelled images (n, L) differ most from in-distribution ones (f, L).

    By the Kolmogorov-Smirnov distance, which needs no direction. The mixture holds the test images of both kinds.
    """
    return int(np.argmax([_distance(a, b) for a, b in zip(fitted.T, mixture.T, strict=True)]))


def by_proxies(fitted: np.ndarray, proxies: np.ndarray) -> int:
    """The layer that tells made-up outliers (m, L) best from in-distribution images (f, L), in either direction.

    Median and MAD come from one half of the images, the AUROC from the other.
    """
    first, second = fitted[0::2], fitted[1::2]
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
