"""The names of reducers: `flatten`, `gap`, `grid:4`, `random:512`, ... (`lib.models.reducers`)."""

import re

from lib.core.errors import UsageError
from lib.core.registry import near

# name -> whether a number follows it, as in grid:4
NAMES = {
    "flatten": False,
    "gap": False,
    "gmp": False,
    "grid": True,
    "cls": False,
    "mean-token": False,
    "random": True,
    "pca": True,
}
FORM = "flatten, gap, gmp, grid:K, cls, mean-token, random:K or pca:K"


def check(name: str) -> None:
    """Raises `UsageError` unless `name` is a reducer."""
    parse(name)


def parse(name: str) -> tuple[str, int]:
    """("grid", 4) of "grid:4", ("gap", 0) of "gap"."""
    kind, colon, number = name.partition(":")
    if kind not in NAMES:
        raise UsageError(f"{name}: no such reducer; {near(kind, NAMES)}")
    if NAMES[kind] != bool(colon) or (colon and not re.fullmatch(r"[1-9]\d*", number)):
        raise UsageError(f"{name}: reducers are {FORM}")
    return kind, int(number or 0)
