"""Checks that a network's outputs are finite: argmax, distances and correlations of NaN would look like results."""

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.datasets.split import Split

IMAGES = 256  # that are looked at at a time: what is made of them on the way takes as much memory as they


def check(values: Tensor, what: str, split: Split) -> Tensor:
    """The values (n, ...) of a split's images; raises `UserError`, naming the first image, if any is NaN or infinite."""
    broken = torch.cat([~part.flatten(1).isfinite().all(1) for part in values.split(IMAGES)])
    if broken.any():
        images = f"{split.name}:{split.split}" + (f"/{split.variant}" if split.variant else "")
        first = int(split.indices[int(broken.cpu().nonzero()[0])])
        raise UserError(
            f"{what} are NaN or infinite for {int(broken.sum())} of {len(values)} images of {images} (first: image {first})"
        )
    return values
