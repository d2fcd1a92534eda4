"""Arrays of numbers in MATLAB files of version 5, as SVHN comes: real, dense, packed or not.

SciPy reads more, but a file with a few wrong bytes can end the process. "MAT-File Format", The MathWorks, chapter 1: after
128 bytes come elements, each a tag (type and size, int32) and data, padded to eight bytes.
"""

import struct
import zlib
from pathlib import Path

import numpy as np

MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # how they are stored
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}  # what they are


def arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays in the file by name. Raises a ValueError for a file that is not whole, or holds anything else."""
    content = Path(file).read_bytes()
    if content[126:128] != b"IM":
        raise ValueError("not a MATLAB file of version 5, written on a little-endian machine")
    return dict(_array(data) for kind, data in _elements(content, 128) if kind == MATRIX)


def _elements(content: bytes, at: int):
    """(type, data) of one element after the other."""
    while at < len(content):
        if len(content) - at < 8:
            raise ValueError("it is cut off")
        kind, size = struct.unpack_from("<ii", content, at)
        at += 8
        if kind >> 16:  # up to four bytes share the tag's eight
            kind, size, at = kind & 0xFFFF, kind >> 16, at - 4
            room = 4
        else:
            room = size if kind == COMPRESSED else -(-size // 8) * 8
        if not 0 <= size <= min(room, len(content) - at):
            raise ValueError("it is cut off")
        data = content[at : at + size]
        if kind == COMPRESSED:
            yield from _elements(_unpacked(data), 0)
        else:
            yield kind, data
        at += room


def _array(data: bytes) -> tuple[str, np.ndarray]:
    parts = list(_elements(data, 0))
    if len(parts) != 4 or len(parts[0][1]) != 8 or parts[3][0] not in NUMBERS:
        raise ValueError("an array that is neither real nor dense")
    kind = CLASSES.get(parts[0][1][0])
    shape = tuple(np.frombuffer(parts[1][1], "<i4").tolist())
    values = np.frombuffer(parts[3][1], f"<{NUMBERS[parts[3][0]]}")
    if kind is None or min(shape, default=-1) < 0 or np.prod(shape, dtype=float) != len(values):
        raise ValueError(f"an array of shape {shape} with {len(values)} numbers")
    return parts[2][1].decode("ascii"), values.astype(kind, copy=False).reshape(shape, order="F")


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(str(error)) from None
