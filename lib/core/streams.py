"""The standard streams of a command: a closed or full stream loses no run.

A stream that is closed (`2>&-`) leads nowhere, a message that cannot be written is left out, and a name that the terminal's
encoding lacks is shown with replacements. What is asked for on standard output and cannot be written remains an error.
"""

import io
import os
import sys


class _Messages(io.FileIO):
    """Standard error, that is also there where nothing can be written: on a full disk, into a closed pipe."""

    def write(self, b, /) -> int:
        try:
            return super().write(b) or 0
        except OSError:
            return memoryview(b).nbytes


def prepare() -> None:
    """Makes the process's own streams so; others, which stand in their place, stay as they are."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: no file of the run gets it
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is sys.__stderr__:
        encoding = sys.stderr.encoding if sys.stderr else "utf-8"
        messages = io.BufferedWriter(_Messages(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(messages, encoding=encoding, errors="backslashreplace", line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path with bytes that are no UTF-8 is printed as it is
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
