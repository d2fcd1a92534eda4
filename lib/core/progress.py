"""Progress on a terminal, silence in a log."""

import math
from collections.abc import Iterable, Iterator

from tqdm import tqdm


def bar(items: Iterable, *, total: int, label: str, unit: str = "batch", quiet: bool = False) -> Iterator:
    """The items, with a bar on stderr while they are consumed; nothing is shown where stderr is no terminal."""
    return tqdm(items, total=total, desc=label, unit=unit, leave=False, disable=True if quiet else None, dynamic_ncols=True)


def image_bar(batches: Iterable, n: int, batch_size: int, *, label: str, quiet: bool = False) -> Iterator:
    """The batches of n images, with a `bar` that counts images, and images per second."""
    return tqdm(
        batches,
        total=math.ceil(n / batch_size),
        desc=label,
        unit="image",
        unit_scale=batch_size,
        leave=False,
        disable=True if quiet else None,
        dynamic_ncols=True,
    )
