"""A corruption of the user's own: `path/to/file.py:function`, called once for every image.

The function takes the image, uint8 (h, w, 3), or (h, w) where it is grey, the severity, 1 to 5, and a NumPy generator, and
returns an image of the same form. The generator is the image's own: it follows from the seed, the names of file and
function, the severity and the image's id, so that images beside it and their order change nothing.
"""

import functools
import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lib.core import files, trusted_files
from lib.core.errors import UsageError, UserError
from lib.core.randomness import numpy_generator
from lib.core.registry import near


def corrupt(images: np.ndarray, corruption: str, severity: int, ids: np.ndarray, seed: int) -> np.ndarray:
    """The corrupted copies, uint8 (n, c, h, w), of images of that form with ids (n,).

    Raises `UserError` where the file is not trusted (`lib.core.trusted_files`), or the function fails, naming the line, or
    returns something else than an image of that form.
    """
    path, _, function_name = corruption.rpartition(":")
    file = Path(path)
    trusted_files.require(file, f"corruption {corruption}", "to corrupt images")
    function, name = _function(corruption, files.sha256(file)), f"{file.name}:{function_name}"
    corrupted = np.empty_like(images)
    for position, (image, number) in enumerate(zip(images, ids.tolist(), strict=True)):
        given = np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        draws = numpy_generator(seed, "own corruption", name, severity, number)
        try:
            answer = np.asarray(function(given.copy(), severity, draws))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if Path(frame.filename).name == file.name]
            where = f" (line {lines[-1]})" if lines else ""
            raise UserError(f"{corruption}: {type(error).__name__}: {error}{where}") from error
        if answer.dtype != np.uint8 or answer.shape != given.shape:
            raise UserError(
                f"{corruption}: returned {answer.dtype} of shape {answer.shape} for an image uint8 of shape {given.shape}; "
                "it must return an image of the form it was given"
            )
        corrupted[position] = answer if answer.ndim == 2 else answer.transpose(2, 0, 1)
    return corrupted


@functools.lru_cache(maxsize=8)
def _function(corruption: str, digest: str) -> Callable[[np.ndarray, int, np.random.Generator], np.ndarray]:
    """The function, from the file of this content."""
    path, _, name = corruption.rpartition(":")
    spec = importlib.util.spec_from_file_location(f"user_corruption_{digest[:8]}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{corruption}: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{corruption}: {path} cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(getattr(module, name, None)):
        functions = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
        raise UsageError(f"{corruption}: {path} has no function {name}; {near(name, functions)}")
    return getattr(module, name)
