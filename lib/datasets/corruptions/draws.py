"""Random numbers that belong to an image and not to its place in a batch.

Philox is a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): its stream can
be entered at any counter. An image's id is one word of the counter and the number of the draw another, so every image
has a stream of its own, of 2^64 blocks for each draw, at the cost of setting four words.
"""

from collections.abc import Callable

import numpy as np


class Draws:
    """Draws for the images called `ids` (n,), of the streams keyed by `key`; every method returns (n, *shape).

    The k-th draw of an image depends on the key, its id and k; two corruptions or severities differ in their keys.
    """

    def __init__(self, key: int, ids: np.ndarray):
        self.ids = ids
        self._philox = np.random.Philox(key=key)
        self._generator = np.random.Generator(self._philox)
        self._state = self._philox.state
        self._count = 0

    def normal(self, shape: tuple[int, ...], mean: float = 0.0, deviation: float = 1.0) -> np.ndarray:
        """Normal, float32."""
        drawn = self._each(shape, np.float32, lambda i, row: self._generator.standard_normal(out=row, dtype=np.float32))
        return drawn * np.float32(deviation) + np.float32(mean)

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Uniform in [low, high), float64."""
        return self._each(shape, np.float64, lambda i, row: self._generator.random(out=row)) * (high - low) + low

    def poisson(self, rates: np.ndarray) -> np.ndarray:
        """Poisson with the given rates (n, ...), float32."""

        def draw(i, row):
            row[...] = self._generator.poisson(rates[i])

        return self._each(rates.shape[1:], np.float32, draw)

    def _each(self, shape: tuple[int, ...], dtype: type, draw: Callable[[int, np.ndarray], object]) -> np.ndarray:
        drawn = np.empty((len(self.ids), *shape), dtype)
        for i, name in enumerate(self.ids.astype(np.uint64)):
            self._state["state"]["counter"][1:3] = self._count, name
            self._philox.state = self._state
            draw(i, drawn[i])
        self._count += 1
        return drawn
