"""Text for readers: times, and file names as the file system has them.

Bytes of names that are no UTF-8 are kept where files are opened, and shown with replacements: Python reads such a byte as a
lone surrogate, which no encoder takes.
"""

from collections.abc import Sequence

# larger unit, smaller unit, their seconds, and the seconds that are too many for the larger one
UNITS = (("min", "s", 60, 1, 3600), ("h", "min", 3600, 60, 86400), ("d", "h", 86400, 3600, float("inf")))


def duration(seconds: float) -> str:
    """A time as people say it: 0.4 s, 12 s, 1 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    for unit in UNITS:
        large, small, size, part, too_many = unit
        rounded = round(seconds / part) * part
        if rounded < too_many:
            break
    many, few = divmod(rounded, size)
    return f"{many} {large} {few // part} {small}" if few else f"{many} {large}"


def some(items: Sequence[str], most: int = 3) -> str:
    """The first few, and dots if there are more."""
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def as_bytes(text: str) -> bytes:
    """The text as UTF-8, and in it bytes that were read from names as they were: for hashes and comparisons."""
    return text.encode("utf-8", "surrogateescape")


def readable(text: str) -> str:
    r"""The text with `\xe9` for a byte that was no UTF-8, as it can be printed, drawn and written anywhere."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
