"""Registries are dictionaries from a name to "module:function", so that names are known before torch is imported."""

import difflib
import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

from lib.core.text import some


def resolve(target: str) -> Callable:
    """The function that "module:function" names; imports the module."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def near(name: str, known: Iterable[str], count: int = 5) -> str:
    """The end of an error message about an unknown name: its near matches, or every name if nothing is near."""
    known = list(dict.fromkeys(known))
    matches = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    matches += [other for other in known if name and name.lower() in other.lower() and other not in matches]
    if matches:
        return "did you mean " + ", ".join(matches[:count]) + "?"
    shown = some(known, 20)
    return f"known are {shown}" if shown else "there are none"


def misspelt(path: str | Path) -> str:
    """The end of an error message about a path that is not there: "; did you mean ...?" if names like its own are."""
    path, wrong = Path(path), Path(path)
    while not wrong.parent.is_dir() and wrong.parent != wrong:
        wrong = wrong.parent
    try:
        beside = [entry.name for entry in wrong.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return ""
    behind = path.relative_to(wrong)
    there = [wrong.with_name(name) / behind for name in difflib.get_close_matches(wrong.name, beside, n=5, cutoff=0.7)]
    there = [other for other in there if other != path and other.exists()]
    return f"; did you mean {', '.join(map(str, there))}?" if there else ""
