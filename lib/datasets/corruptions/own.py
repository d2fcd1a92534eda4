"""A corruption of the user's own: `path/to/file.py:function`, called once for every image.

The function takes the image, uint8 (h, w, 3), or (h, w) where it is grey, the severity, 1 to 5, and a NumPy generator, and
returns an image of the same form. The generator is the image's own: it follows from the seed, the names of file and
function, the severity and the image's id, so that images beside it and their order change nothing.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lib.core import files, trusted_files
from lib.core.errors import UserError
from lib.core.randomness import numpy_generator


def corrupt(images: np.ndarray, corruption: str, severity: int, ids: np.ndarray, seed: int) -> np.ndarray:
    """The corrupted copies, uint8 (n, c, h, w), of images of that form with ids (n,).

    Raises `UserError` where the file is not trusted (`lib.core.trusted_files`), or the function fails, naming the line, or
    returns something else than an image of that form.
    """
    path, _, function_name = corruption.rpartition(":")
    file = Path(path)
    trusted_files.require(file, f"corruption {corruption}", "to corrupt images")
    function, name = _function(path, function_name, files.sha256(file)), f"{file.name}:{function_name}"
    corrupted = np.empty_like(images)
    for position, (image, number) in enumerate(zip(images, ids.tolist(), strict=True)):
        given = np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        draws = numpy_generator(seed, "own corruption", name, severity, number)
        try:
            answer = np.asarray(function(given.copy(), severity, draws))
        except Exception as error:
            raise UserError(f"{corruption}: {trusted_files.failure(error, file)}") from error
        if answer.dtype != np.uint8 or answer.shape != given.shape:
            raise UserError(
                f"{corruption}: returned {answer.dtype} of shape {answer.shape} for an image uint8 of shape {given.shape}; "
                "it must return an image of the form it was given"
            )
        corrupted[position] = answer if answer.ndim == 2 else answer.transpose(2, 0, 1)
    return corrupted


@functools.lru_cache(maxsize=8)
def _function(path: str, name: str, digest: str) -> Callable[[np.ndarray, int, np.random.Generator], np.ndarray]:
    """The function, from the file of this content."""
    return trusted_files.function(path, name, f"corruption {path}:{name}", "to corrupt images")
