"""File names that are not UTF-8: kept byte for byte to open files, shown with replacement characters.

Python reads such a byte as a lone surrogate, which no encoder takes.
"""


def as_bytes(text: str) -> bytes:
    """The text as UTF-8, and in it bytes that were read from names as they were: for hashes and comparisons."""
    return text.encode("utf-8", "surrogateescape")


def readable(text: str) -> str:
    r"""The text with `\xe9` for a byte that was no UTF-8, as it can be printed, drawn and written anywhere."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
