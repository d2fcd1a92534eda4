"""The noises among the CIFAR-10-C corruptions: independent errors of every value, colour channels included.

Source and conventions: `lib.datasets.corruptions`; images float32 (n, c, h, w) in [0, 1].
"""

import numpy as np

from lib.datasets.corruptions.draws import Draws


def gaussian_noise(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Normal errors, as of a sensor in low light."""
    sigma = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return images + draws.normal(images.shape[1:], 0, sigma)


def shot_noise(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Photon counts: Poisson, with `photons` expected at full intensity."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    return draws.poisson(images * np.float32(photons)) / np.float32(photons)


def impulse_noise(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Salt and pepper: the fraction `amount` of the values becomes 0 or 1, half of them each."""
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    u = draws.uniform(images.shape[1:])
    return np.where(u < amount, (u < amount / 2).astype(np.float32), images)


def speckle_noise(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Normal errors in proportion to the value."""
    sigma = (0.06, 0.10, 0.12, 0.16, 0.20)[severity - 1]
    return images + images * draws.normal(images.shape[1:], 0, sigma)
