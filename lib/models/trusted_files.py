"""Which Python files may be run to build a network: those that the command line names, and no others.

A type such as `path/to/file.py:function` stands in sidecars and records, too, and these come from elsewhere. The script
states what its command line names; what a file names beyond that is refused. From Python, `trust` states it.
"""

from collections.abc import Iterable
from pathlib import Path

from lib.core.errors import UntrustedFile

_trusted: set[Path] = set()


def trust(*paths: str | Path) -> None:
    """Lets these Python files be run from now on."""
    _trusted.update(Path(path).resolve() for path in paths)


def trust_only(paths: Iterable[str | Path]) -> None:
    """Lets these Python files be run, and none that was trusted before."""
    _trusted.clear()
    trust(*paths)


def require(path: str | Path, named: str) -> None:
    """Raises `UntrustedFile` unless the Python file is trusted; `named` is the type that names it."""
    if Path(path).resolve() not in _trusted:
        raise UntrustedFile(
            f"type {named}: {path} would be run to build the network, and not the command line but a file says so", str(path)
        )


def named(words: Iterable[str]) -> list[str]:
    """The Python files in the words of a command line that are types: `FILE.py:FUNCTION`, also behind `--flag=`."""
    found = {}
    for word in words:
        flag, equals, value = word.partition("=")
        for text in (value,) if equals and flag.startswith("--") else (word,):
            if text.startswith("probe:"):
                text = text.removeprefix("probe:").rsplit("@", 2)[0]
            path, _, function = text.rpartition(":")
            if path.endswith(".py") and function.isidentifier():
                found[path] = None
    return list(found)
