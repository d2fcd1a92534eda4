"""Files that outlive a process: results keyed by the content they were computed from, and the state of interrupted runs.

Files are written beside their place and renamed, so that a reader meets a whole file or none; nothing in them is run when
they are read. A file that is absent or damaged, or that another run has left, reads as None: what it held is computed anew.
`read_state` alone tells a damaged file from an absent one, for what would rather be refused than lost.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.core import files
from lib.core.errors import UserError

CHUNK = 4096  # rows of a tensor that are hashed at once: it may lie in a file that is larger than the memory


def content_key(*parts: str | Tensor) -> str:
    """The SHA-256, in hexadecimal, of texts and of the numbers in tensors, one after another.

    Lengths, shapes and types are no part of a tensor's numbers: where they may differ, a text says them.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
            continue
        rows = part.detach() if part.ndim else part.detach()[None]
        for some in rows.split(CHUNK):
            digest.update(some.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays that `write_arrays` put there; None if they are not there, or with a warning if they are not whole."""
    try:
        with np.load(path) as arrays:  # an archive has checksums
            return dict(arrays)
    except FileNotFoundError:
        return None
    except files.NO_ARRAYS:
        warnings.warn(f"{path}: damaged since it was written; it is computed anew", stacklevel=2)
        return None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keeps arrays in an .npz file. Where it cannot be written, a warning says so: they can be computed again."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # ty: ignore[invalid-argument-type] numpy's stubs take every keyword for `allow_pickle`
    try:
        files.write_atomically(path, lambda file: file.write(buffer.getbuffer()))
    except UserError as error:
        warnings.warn(f"{error}; not kept", stacklevel=2)


def read_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """What `write_state` put there, tensors on the device; None if nothing is there. A damaged file raises an exception."""
    if not path.exists():
        return None
    return torch.load(path, map_location=device, weights_only=True)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors, numbers and texts, in dictionaries and lists of any depth."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files.write_atomically(path, lambda file: file.write(buffer.getbuffer()))


@dataclass(frozen=True)
class RunFile:
    """The file of a run that is under way; `key` says which run's it is."""

    path: Path
    key: str

    def read(self) -> dict[str, Any] | None:
        """What the run has left, tensors on the CPU; None if there is nothing of this very run."""
        try:
            state = read_state(self.path)
        except Exception:  # torch raises many kinds for what is no whole file of its own
            return None
        return state if isinstance(state, dict) and state.get("key") == self.key else None

    def write(self, **state: Any) -> None:
        """Replaces the file."""
        write_state(self.path, {"key": self.key, **state})

    def remove(self) -> None:
        """Removes the file, if there is one: the run is done."""
        self.path.unlink(missing_ok=True)
