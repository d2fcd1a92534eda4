"""How few draws the flag `--null N` takes: as many as can bring a p-value to 0.05. Free of torch and NumPy."""

from lib.core.errors import UsageError

FEWEST_DRAWS = 19


def refuse_too_few(count: int, what: str, spelling: str = "--null") -> None:
    """Raises `UsageError` for a number of draws, called `what`, of which p is never 0.05 or less; 0 are none."""
    if 0 < count < FEWEST_DRAWS:
        raise UsageError(f"{spelling} {count}: p of so few {what} is never 0.05 or less; {FEWEST_DRAWS} are the least")
