"""Registries are dictionaries from a name to "module:function", so that names are known before torch is imported."""

import difflib
import importlib
from collections.abc import Callable, Iterable


def resolve(target: str) -> Callable:
    """The function that "module:function" names; imports the module."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def near(name: str, known: Iterable[str], count: int = 5) -> str:
    """The end of an error message about an unknown name: its near matches, or every name if nothing is near."""
    known = list(known)
    matches = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    matches += [other for other in known if name and name.lower() in other.lower() and other not in matches]
    if matches:
        return "did you mean " + ", ".join(matches[:count]) + "?"
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"known are {shown}" if shown else "there are none"
