"""Progress bars on a terminal; nothing in a log."""

import math
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def bar(items: Iterable[Item], *, total: int, label: str, unit: str = "batch", quiet: bool = False) -> Iterable[Item]:
    """The items, with a bar on stderr while they are consumed; nothing is shown where stderr is no terminal."""
    return tqdm(items, total=total, desc=label, unit=unit, leave=False, disable=True if quiet else None, dynamic_ncols=True)


def image_bar(batches: Iterable[Item], n: int, batch_size: int, *, label: str, quiet: bool = False) -> Iterable[Item]:
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
