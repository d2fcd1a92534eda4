"""The terminal that a command prints to, if it prints to one: its width, and lines that keep to it."""

import os
import re
import shutil
import sys
import textwrap

PIPED = "in a pipe"  # where all rows and columns are of a table that is no part of a record


def width() -> int | None:
    """The columns of the terminal that standard output is; None for a pipe or a file, which get lines of any length."""
    try:
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    except ValueError:  # a closed stream
        return None


def shared() -> bool:
    """Whether standard output and messages go to one place, so that what was a message need not be printed again."""
    try:
        out, messages = os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return (out.st_dev, out.st_ino) == (messages.st_dev, messages.st_ino)


def wrapped(text: str, columns: int | None, indent: str = "    ") -> str:
    """The lines of a text, those that are longer than `columns` continued behind an indent; words are never cut."""
    if columns is None:
        return text
    return "\n".join(
        line
        if len(line) <= columns
        else textwrap.fill(line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def command(line: str, columns: int, indent: str = "    ") -> str:
    """A command within the columns, continued as a shell takes it; a flag and its value stay together."""
    if len(line) <= columns:
        return line
    together = re.sub(r" (-[\w-]+) (?!-)", r" \1\0", line)
    words = textwrap.wrap(together, columns - 2, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(words).replace("\0", " ")
