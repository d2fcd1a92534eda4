"""From a layer's output to a vector per image: `flatten`, `gap`, `grid:4`, `random:512`, ... by name.

Outputs are (b, c, h, w), (b, t, d) with t tokens, or (b, d). `pca:K` is fitted first, to features of the training images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lib.core import randomness
from lib.core.errors import UsageError
from lib.models.reducer_names import parse


def reducer(name: str, seed: int = 0) -> "Reducer | RandomProjection":
    """The reducer of that name; `pca:K` does not exist before it is fitted."""
    kind, number = parse(name)
    return RandomProjection(number, seed) if kind == "random" else Reducer(kind, number)


@dataclass(frozen=True)
class Reducer:
    """(b, ...) -> (b, d), without parameters.

    flatten     all activations, channels first
    gap, gmp    mean and maximum over positions; of tokens, over tokens
    grid        means over number x number cells of the positions (no more than there are positions), flattened
    cls         the first token
    mean-token  the mean over all tokens, the first one included
    """

    kind: str
    number: int = 0

    def __call__(self, output: Tensor) -> Tensor:
        if self.kind in ("cls", "mean-token") and output.ndim != 3:
            raise UsageError(
                f"--reduce {self.kind} is for layers that put out tokens; this one puts out "
                f"{tuple(output.shape[1:])} per image"
            )
        if self.kind == "grid" and output.ndim != 4:
            raise UsageError(f"--reduce grid is for layers that put out maps; this one puts out {tuple(output.shape[1:])}")
        if self.kind == "flatten" or output.ndim == 2:
            return output.flatten(1)
        if self.kind == "cls":
            return output[:, 0]
        if self.kind == "grid":
            height, width = output.shape[2:]
            cells = min(self.number, height), min(self.number, width)
            return functional.adaptive_avg_pool2d(output, cells).flatten(1)
        positions = (2, 3) if output.ndim == 4 else (1,)
        return output.amax(positions) if self.kind == "gmp" else output.mean(positions)


class RandomProjection:
    """Flattened outputs times a fixed Gaussian matrix (d, number): lengths are kept in expectation.

    The matrix depends on d, the number and the seed alone.
    """

    def __init__(self, number: int, seed: int) -> None:
        self.number, self.seed = number, seed
        self._matrix: Tensor | None = None

    def __call__(self, output: Tensor) -> Tensor:
        flat = output.flatten(1)
        if self._matrix is None or len(self._matrix) != flat.shape[1]:
            draw = randomness.generator(self.seed, "random projection", flat.shape[1], self.number)
            matrix = torch.randn(flat.shape[1], self.number, generator=draw) / self.number**0.5
            self._matrix = matrix.to(flat.device)
        return flat.float() @ self._matrix


class Projection:
    """(flattened output - mean) times the columns (d, number) of a fitted basis."""

    def __init__(self, mean: Tensor, columns: Tensor) -> None:
        self.mean, self.columns = mean, columns

    def __call__(self, output: Tensor) -> Tensor:
        flat = output.flatten(1).float()
        return (flat - self.mean.to(flat.device)) @ self.columns.to(flat.device)
