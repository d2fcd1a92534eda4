"""What the gains of several classifiers over one are by chance: on each image the two answers change places, or not.

If classifier and reference are equally good, the image on which one is right and the other wrong says nothing of which is
which. A draw exchanges them on half of the images, the same ones for all classifiers, so that the gain of an image keeps its
size and takes a random sign: a paired sign-flip test (Fisher 1935), for many classifiers at once (Westfall & Young 1993).
Labels in another order, the other null that comes to mind, bring both accuracies down to chance, where the two classifiers
differ on fewer images: simulated, they find the best of twelve equal layers better than the last in 35 % of cases.

It is exact for one classifier whose gain of an image is -1, 0 or 1: that is symmetric if its mean is 0. For the best of
several it is exact where all are exchangeable with the reference together, else for many images: their sums are then normal
with the covariance that the signs give them.
"""

import numpy as np

from lib.metrics.permutation_null import Null, calibrate

NUMBERS = 1 << 23  # signs that are drawn at a time


def exchanged(gains: np.ndarray, draws: int, generator: np.random.Generator) -> Null:
    """The null of the sums (k,) of what each image adds to the gains of k classifiers over the reference, (n, k).

    Versions of one image, and answers of several trainings, are exchanged together: what they add is one row.
    """
    step, drawn, left = max(1, NUMBERS // max(len(gains), 1)), [], draws
    while left:
        count = min(step, left)
        drawn.append((generator.integers(0, 2, (count, len(gains)), np.int8) * 2 - 1).astype(float) @ gains)
        left -= count
    return calibrate(gains.sum(0), np.concatenate(drawn))
