"""Memory-mapped arrays in cache files with checksums: a damaged array is detected.

A file is an .npy file with checksums behind it: the CRC-32 of every MiB, what is to be known of the array as JSON, and at
the end the CRC-32 of both, their lengths and a mark. NumPy reads the array as if nothing followed.
"""

import contextlib
import fcntl
import json
import math
import os
import secrets
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Container
from pathlib import Path

import numpy as np

from lib.core import files
from lib.core.errors import UserError

BLOCK = 1 << 20
END = struct.Struct("<IIQ8s")  # CRC-32, bytes of JSON, number of blocks, mark
MARK = b"checked1"


class NewArray:
    """An array (n, ...) in a mapped file that has a temporary name until it is finished; `numbers` is to be filled.

    A lock says that a process is at it (`clear`). With the name of a file that a process has left unfinished as `temporary`,
    that one is taken up, with the numbers that are in it.

    Raises `UserError` where the folder cannot be written or the disk is full, or there is no such file to take up.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype | type, temporary: str = "") -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(temporary or f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        self._held = contextlib.ExitStack()
        try:
            if temporary:
                self._hold()
                self.numbers = np.lib.format.open_memmap(self.temporary, mode="r+")
                if self.numbers.shape != shape or self.numbers.dtype != dtype:
                    raise ValueError(f"{self.numbers.shape} {self.numbers.dtype}")
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._hold()
            self.numbers = np.lib.format.open_memmap(self.temporary, mode="w+", dtype=dtype, shape=shape)
            with open(self.temporary, "r+b") as file:  # a full disk is an error here, and would be a crash later
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            self.discard()
            raise _unwritable(self.path, error) from None
        except ValueError as error:
            self.discard()
            raise UserError(f"{self.temporary}: not the unfinished file that it was ({error})") from None

    def finish(self, **about: str | float) -> None:
        """Adds the checksums, and gives the file its name."""
        try:
            self.numbers.flush()
            seal(self.temporary, **about)
            os.replace(self.temporary, self.path)
        except OSError as error:
            self.discard()
            raise _unwritable(self.path, error) from None
        self._held.close()

    def discard(self) -> None:
        """Leaves nothing of an unfinished file."""
        self.temporary.unlink(missing_ok=True)
        self._held.close()

    def _hold(self) -> None:
        """Makes the file where it is not there, and says that this process writes it."""
        file = self._held.enter_context(open(self.temporary, "ab"))
        with contextlib.suppress(OSError):  # where there are no locks, nothing is taken for abandoned either
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def clear(folder: Path, but: Container[str] = ()) -> None:
    """Removes arrays that killed processes have left unfinished in a folder, but files of these names."""
    for path in Path(folder).glob(".*.npy.*.tmp"):
        with contextlib.suppress(OSError):
            if path.name not in but:
                with open(path, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def kept(path: Path, shape: tuple[int, ...], dtype: np.dtype | type, fill: Callable[[np.ndarray], object]) -> np.ndarray:
    """A new array that `fill` writes into, mapped from the file `path`, where it appears at once or never.

    Where the file cannot be written, since its folder cannot or the disk is full, the array is in memory, with a warning.
    """
    clear(path.parent)
    try:
        array = NewArray(path, shape, dtype)
    except UserError as error:
        warnings.warn(f"{error}; in memory for now", stacklevel=2)
        numbers = np.empty(shape, dtype)
        fill(numbers)
        return numbers
    try:
        fill(array.numbers)
    except BaseException:
        array.discard()
        raise
    try:
        array.finish()
    except UserError as error:  # what is mapped stays, without a name
        warnings.warn(f"{error}; not kept", stacklevel=2)
        return array.numbers
    return np.load(path, mmap_mode="c", allow_pickle=False)  # what is written into it does not reach the file


def seal(path: Path, **about: str | float) -> None:
    """Adds the checksums, and what is to be known of the array, to an .npy file."""
    with open(path, "r+b") as file:
        sums = _checksums(file, os.fstat(file.fileno()).st_size)
        told = json.dumps(about).encode()
        body = np.array(sums, "<u4").tobytes() + told
        file.seek(0, os.SEEK_END)
        file.write(body + END.pack(zlib.crc32(body), len(told), len(sums), MARK))


def read(path: Path) -> tuple[np.ndarray, dict] | None:
    """The array, mapped (what is written into it does not reach the file), and what `finish` was told of it.

    None if it is not there, or with a warning if it is damaged or has no checksums: then it is to be computed anew.
    """
    try:
        wrong = problem(path)
        if wrong is None:
            return np.load(path, mmap_mode="c", allow_pickle=False), _about(path)
    except FileNotFoundError:
        return None
    except files.NO_ARRAYS as error:
        wrong = f"{path}: cannot be read ({error})"
    warnings.warn(f"{wrong}; it is computed anew", stacklevel=2)
    return None


def problem(path: Path) -> str | None:
    """What is wrong with a cache file, .npy or .npz, as a sentence; None if nothing is."""
    if path.suffix == ".npz":
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
            damaged = str(error)
        return f"{path}: damaged since it was written" if damaged else None
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = _end(file, size)
        if end is None:
            return f"{path.parent}: what an earlier version kept there has no checksums"
        crc, told, blocks = end
        content = size - END.size - told - 4 * blocks
        if content >= 0 and blocks == math.ceil(content / BLOCK):
            file.seek(content)
            body = file.read(4 * blocks + told)
            file.seek(0)
            if zlib.crc32(body) == crc and _checksums(file, content) == np.frombuffer(body[: 4 * blocks], "<u4").tolist():
                return None
    return f"{path}: damaged since it was written"


def _end(file, size: int) -> tuple[int, int, int] | None:
    if size < END.size:
        return None
    file.seek(size - END.size)
    crc, told, blocks, mark = END.unpack(file.read(END.size))
    return (crc, told, blocks) if mark == MARK else None


def _about(path: Path) -> dict:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = _end(file, size)
        if end is None:
            return {}
        file.seek(size - END.size - end[1])
        return json.loads(file.read(end[1]))


def _checksums(file, size: int) -> list[int]:
    """The CRC-32 of every block of the first `size` bytes."""
    file.seek(0)
    return [zlib.crc32(file.read(min(BLOCK, size - begin))) for begin in range(0, size, BLOCK)]


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path.parent}: cannot be written ({error.strerror or error}); choose another --cache-dir")
