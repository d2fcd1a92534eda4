"""Checks that a network's outputs are finite: argmax, distances and correlations of NaN would look like results."""

from torch import Tensor

from lib.core.errors import UserError
from lib.datasets.split import Split


def check(values: Tensor, what: str, split: Split) -> Tensor:
    """The values (n, ...) of a split's images; raises `UserError`, naming the first image, if any is NaN or infinite."""
    broken = ~values.flatten(1).isfinite().all(1)
    if broken.any():
        images = f"{split.name}:{split.split}" + (f"/{split.variant}" if split.variant else "")
        first = int(split.indices[int(broken.cpu().nonzero()[0])])
        raise UserError(
            f"{what} are NaN or infinite for {int(broken.sum())} of {len(values)} images of {images} (first: image {first})"
        )
    return values
