"""Files that outlive a process: results keyed by the content they were computed from, and the state of interrupted runs.

Files are written beside their place and renamed, so that a reader meets a whole file or none; nothing in them is run when
they are read. A file that is absent or damaged, or that another run has left, reads as None: what it held is computed anew.
`read_state` alone tells a damaged file from an absent one, for what would rather be refused than lost.
"""

import contextlib
import hashlib
import io
import os
import struct
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from lib.core import files, trusted_files
from lib.core.errors import UserError

SAVE_EVERY = 10.0  # seconds between what a run that is under way leaves for the one that continues it
CHUNK = 4096  # rows of a tensor that are hashed at once: it may lie in a file that is larger than the memory


def content_key(*parts: str | Tensor) -> str:
    """The SHA-256, in hexadecimal, of texts and of the numbers in tensors, one after another.

    Lengths, shapes and types are no part of a tensor's numbers: where they may differ, a text says them.
    """
    digest = hashlib.sha256()
    add_content(digest, *parts)
    return digest.hexdigest()


def add_content(digest: "hashlib._Hash", *parts: str | Tensor) -> None:
    """Adds such parts to a hash."""
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
            continue
        rows = part.detach() if part.ndim else part.detach()[None]
        for some in rows.split(CHUNK):
            digest.update(some.cpu().contiguous().numpy().data)


def network_parts(network: nn.Module) -> list[str | Tensor]:
    """What a network's answers depend on, for a key: its form, the Python files that built it, its weights by name."""
    named = [*network.state_dict().items(), *network.named_buffers()]
    return [f"{network}{trusted_files.contents()}", *(part for pair in named for part in pair)]


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


class Journal:
    """Parts of a run that is under way, behind one another in one file; `key` says which run's they are.

    Every part has its length and checksum before it, so that one that a kill or a crash has cut off is not taken: nothing
    waits for the disk. Where the file cannot be written, a warning says so once: what is lost can be computed again.
    """

    LEAD = struct.Struct("<QI")  # bytes of a part and their CRC-32

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = Path(path), key
        self.broken = False

    def read(self) -> list[dict[str, Any]]:
        """The whole parts that this very run has left, tensors on the CPU; the file is made ready for the next ones."""
        with contextlib.suppress(OSError), open(self.path, "r+b") as file:
            whole = list(self._whole(file))
            if whole and whole[0][0] == {"key": self.key}:
                file.truncate(whole[-1][1])
                return [part for part, _ in whole[1:]]
        self.remove()
        return []

    def append(self, **part: Any) -> None:
        """Adds a part: tensors, numbers and texts, in dictionaries and lists of any depth."""
        if self.broken:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                for one in [part] if file.tell() else [{"key": self.key}, part]:
                    buffer = io.BytesIO()
                    torch.save(one, buffer)
                    content = buffer.getbuffer()
                    file.write(self.LEAD.pack(len(content), zlib.crc32(content)))
                    file.write(content)
        except OSError as error:
            self.broken = True
            warnings.warn(
                f"{self.path}: cannot be written ({error.strerror or error}); a run that is stopped will begin anew",
                stacklevel=2,
            )

    def remove(self) -> None:
        """Removes the file, if there is one: the run is done."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _whole(self, file: BinaryIO) -> Iterator[tuple[dict[str, Any], int]]:
        """Every part up to the first that is not whole, and where it ends."""
        while len(lead := file.read(self.LEAD.size)) == self.LEAD.size:
            size, checksum = self.LEAD.unpack(lead)
            if size > os.fstat(file.fileno()).st_size or zlib.crc32(content := file.read(size)) != checksum:
                return
            try:
                part = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            except Exception:  # torch raises many kinds for what is no whole file of its own
                return
            if not isinstance(part, dict):
                return
            yield part, file.tell()


class Rows:
    """What a pass makes of a split: tensors by name, their rows batch by batch in the order of the images.

    With a journal, what is new is kept there every `SAVE_EVERY` seconds, and what a stopped run has kept is there at once:
    `count` rows. `about` is kept beside them.
    """

    def __init__(self, journal: Journal | None = None, found: Sequence[dict[str, Any]] = (), stage: str = "") -> None:
        mine = [part for part in found if part["stage"] == stage]
        self.journal, self.stage = journal, stage
        self.about: dict[str, Any] = mine[0]["about"] if mine else {}
        self._parts: list[dict[str, Tensor]] = [part["rows"] for part in mine]
        self.count = sum(len(next(iter(rows.values()))) for rows in self._parts)
        self._found = self._kept = len(self._parts)
        self._saved = time.monotonic()

    def add(self, **rows: Tensor) -> None:
        """Takes in the next rows (b, ...) of every tensor."""
        self._parts.append(rows)
        if time.monotonic() - self._saved > SAVE_EVERY:
            self.keep()

    def keep(self) -> None:
        """Writes down what is new since the last time."""
        if self.journal is not None and len(self._parts) > self._kept:
            new = {name: rows.cpu() for name, rows in _joined(self._parts[self._kept :]).items()}
            self.journal.append(stage=self.stage, about=self.about, rows=new)
        self._kept, self._saved = len(self._parts), time.monotonic()

    def whole(self) -> dict[str, Tensor]:
        """All rows, on the CPU."""
        found, new = self._parts[: self._found], self._parts[self._found :]  # joined before they leave a GPU: one wait
        return _joined([*found, *([{name: rows.cpu() for name, rows in _joined(new).items()}] if new else [])])


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
