"""Halves of a set of images: one to choose or calibrate on, the other to test.

A choice that is tested on the images it was made on looks better than it is; so does a threshold.
"""

import numpy as np

from lib.core import randomness


def draw(n: int, seed: int, use: str) -> np.ndarray:
    """Which half (n,), 0 or 1, each of n images is in; a draw of its own for every `use`. The first has the odd one.

    Halves are drawn because the order of a data set may mean something: classes may alternate in it.
    """
    order = randomness.numpy_generator(seed, "halves", use).permutation(n)
    half = np.zeros(n, dtype=np.int64)
    half[order[(n + 1) // 2 :]] = 1
    return half
