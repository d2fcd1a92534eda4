"""Progress on a terminal, silence in a log."""

from collections.abc import Iterable, Iterator

from tqdm import tqdm


def bar(items: Iterable, *, total: int, label: str, unit: str = "batch", quiet: bool = False) -> Iterator:
    """The items, with a bar on stderr while they are consumed; nothing is shown where stderr is no terminal."""
    return tqdm(items, total=total, desc=label, unit=unit, leave=False, disable=True if quiet else None,
                dynamic_ncols=True)
