"""Standardises energies of several layers, by in-distribution images that are not tested on.

Raw energies of different layers are not comparable (they lie near -log D of their own D), so every rule that combines
layers begins here. OOD-layers paper, section 2.6 of its specification.
"""

from dataclasses import dataclass

import numpy as np

from lib.core.errors import UserError


@dataclass(frozen=True)
class ZScore:
    """Standard scores of energies, by the mean and deviation (L,) of each layer's over f in-distribution images."""

    mean: np.ndarray
    deviation: np.ndarray
    kept: np.ndarray  # (L,) which layers vary over those images: a constant one has no scale and is left out
    fitted: np.ndarray  # (f, kept) their z

    def z(self, energies: np.ndarray) -> np.ndarray:
        """(E - mean) / deviation of the layers that vary, float64: energies (n, L) to (n, kept)."""
        return _z(energies, self.mean, self.deviation)[:, self.kept]


def standardise(energies: np.ndarray) -> ZScore:
    """Fits the scale to the energies (f, L) of f >= 2 in-distribution images."""
    energies = np.asarray(energies, np.float64)
    mean, deviation = energies.mean(0), energies.std(0)
    # what rounding leaves of a constant is no scale
    kept = deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    if len(energies) < 2 or not kept.any():
        raise UserError(f"--fit-on: no layer's energy varies over its {len(energies)} images, so none has a scale")
    return ZScore(mean, deviation, kept, _z(energies, mean, deviation)[:, kept])


def _z(energies: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return (np.asarray(energies, np.float64) - mean) / np.where(deviation > 0, deviation, 1)


def shrunk_precision(centred: np.ndarray, flag: str) -> np.ndarray:
    """The inverse (d, d) of the covariance of f centred images (f, d), shrunk after Ledoit & Wolf 2004.

    Shrinking gives most covariances an inverse, but does nothing to one whose images all say the same of it, such as two
    images, or one of every class. Raises `UserError`, which begins with `flag`, for those.
    """
    from sklearn.covariance import ledoit_wolf

    covariance = ledoit_wolf(centred, assume_centered=True)[0]
    values = np.linalg.eigvalsh(covariance)
    if not values[0] > 1e-12 * values[-1]:
        raise UserError(
            f"{flag}: {len(centred)} fitting images give a covariance without an inverse; more --fit-examples do"
        )
    return np.linalg.inv(covariance)


def ranks(scores: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """How extreme each score is among the fitted ones of its column, in [0, 1); scores (n, L) >= 0, fitted (f, L).

    The share of fitted scores at or below it, and between two of those a step that grows with the score, so that scores
    beyond all fitted ones keep their order: the transform is strictly increasing.
    """
    below = [np.searchsorted(np.sort(column), values, "right") for column, values in zip(fitted.T, scores.T, strict=True)]
    return (np.stack(below, 1) + scores / (1 + scores)) / (len(fitted) + 1)
