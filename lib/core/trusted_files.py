"""Which Python files may be run, to build a network or to corrupt images: those that the command line names, and no others.

A type such as `path/to/file.py:function` and a data set such as `pets-c/blur.py:my_blur-3` stand in sidecars and records,
too, and these come from elsewhere. The script
states what its command line names; what a file names beyond that is refused. From Python, `trust` states it.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from lib.core.errors import UntrustedFile

_trusted: set[Path] = set()
CORRUPTION = re.compile(r"-c(?::[a-z][a-z0-9_]*)?/([^:]+\.py):\w+-\d+$")  # behind the name of a data set


def trust(*paths: str | Path) -> None:
    """Lets these Python files be run from now on."""
    _trusted.update(Path(path).resolve() for path in paths)


def trust_only(paths: Iterable[str | Path]) -> None:
    """Lets these Python files be run, and none that was trusted before."""
    _trusted.clear()
    trust(*paths)


def require(path: str | Path, named: str, purpose: str = "to build the network") -> None:
    """Raises `UntrustedFile` unless the Python file is trusted; `named` is what names it, such as "type x.py:f"."""
    if Path(path).resolve() not in _trusted:
        raise UntrustedFile(
            f"{named}: {path} would be run {purpose}, and not the command line but a file says so", str(path)
        )


def named(words: Iterable[str]) -> list[str]:
    """The Python files in the words of a command line: `FILE.py:FUNCTION`, also behind `--flag=`, and own corruptions."""
    found = {}
    for word in words:
        flag, equals, value = word.partition("=")
        for text in (value,) if equals and flag.startswith("--") else (word,):
            if text.startswith("probe:"):
                text = text.removeprefix("probe:").rsplit("@", 2)[0]
            if corruption := CORRUPTION.search(text):
                found[corruption[1]] = None
            path, _, function = text.rpartition(":")
            if path.endswith(".py") and function.isidentifier():
                found[path] = None
    return list(found)
