"""Which Python files may be run to build a network or to corrupt images: only those that the command line names.

A type such as `path/to/file.py:function` and a data set such as `pets-c/blur.py:my_blur-3` stand in sidecars and records,
too, and these come from elsewhere. The script states what its command line names; what a file names beyond that is refused.
From Python, `trust` states it.
"""

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from lib.core.errors import UntrustedFile, UsageError, UserError
from lib.core.registry import near

_trusted: set[Path] = set()
_contents: dict[Path, str] = {}  # the hashes of the files that were run
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


def function(path: str | Path, name: str, named: str, purpose: str = "to build the network") -> Callable:
    """The function of a trusted Python file; the file is run for it, as the module `user_<stem>`.

    `named` is what names it, such as "type x.py:f". Raises `UntrustedFile`; `UserError` with the line where the file fails;
    `UsageError` where it has no such function.
    """
    require(path, named, purpose)
    spec = importlib.util.spec_from_file_location(f"user_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{named}: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    _contents[Path(path).resolve()] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    # Dataclasses and pickling look a class's module up by its name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{named}: {failure(error, path)}{_clash(error, path)}") from error
    if not callable(getattr(module, name, None)):
        functions = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
        raise UsageError(f"{named}: {path} has no function {name}; {near(name, functions)}")
    return getattr(module, name)


def contents() -> str:
    """What the files that were run in this process hold, as a text; "" if none was. What they build depends on it."""
    return " ".join(sorted(_contents.values()))


def failure(error: Exception, path: str | Path) -> str:
    """The error in one line, with the last line of the user's file that it passed through."""
    frames, file = traceback.extract_tb(error.__traceback__), Path(path).resolve()
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    line = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}{line}"


def _clash(error: Exception, path: str | Path) -> str:
    """What to do about a `lib` of the user's own beside their file, which the suite's package of that name hides."""
    mine = Path(path).resolve().parent
    own = next((place for place in (mine / "lib", mine / "lib.py") if place.exists()), None)
    if own is None or not isinstance(error, ImportError) or not (error.name or "").startswith("lib"):
        return ""
    return f"; {own} is hidden by the suite's own package lib: give it another name"


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
