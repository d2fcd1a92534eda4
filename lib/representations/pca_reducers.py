"""The reducers `pca:K`: a layer's flattened features in their first K principal directions, fitted on training images."""

import torch
from torch import Tensor, nn

from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models.reducer_names import parse
from lib.models.reducers import Projection
from lib.representations.features import Storage, Tap, collect, dimensions, reducers_of

MOST_IMAGES = 2048
MOST_NUMBERS = 2**27  # flattened features that are held at once
COLUMNS = 4096  # that are brought to float64 at once


@torch.no_grad()
def fit(network: nn.Module, split: Split, wanted: list[Tap], batching: Batching) -> dict[Tap, Projection]:
    """The reducers of all `pca:K` taps, fitted on at most 2,048 images that are evenly spread over the split.

    From the Gram matrix of the flattened features, since these mostly outnumber the images. A layer that has fewer than K
    features keeps them all, rotated; raises `UserError` if there are not images enough for the directions.
    """
    flat = {tap: Tap(tap.layer, "flatten") for tap in wanted if parse(tap.reduce)[0] == "pca"}
    if not flat:
        return {}
    split = split.spread(MOST_IMAGES)
    sizes = dimensions(network, reducers_of(flat.values()), split, batching)
    fitted, waiting = {}, list(flat)
    while waiting:
        together = [waiting.pop(0)]  # a pass for as many as memory allows
        while waiting and len(split) * sum(sizes[flat[tap]] for tap in [*together, waiting[0]]) <= MOST_NUMBERS:
            together.append(waiting.pop(0))
        reducers = reducers_of(flat[tap] for tap in together)
        features = collect(network, split, reducers, batching, Storage(dtype="fp32"), label="fitting pca").features
        fitted |= {tap: _principal(tap, features[flat[tap]].stored) for tap in together}
    return fitted


def _principal(tap: Tap, rows: Tensor) -> Projection:
    """The first directions of rows (n, d), as many as the tap's name says."""
    n, d = rows.shape
    number = min(parse(tap.reduce)[1], d)
    if number > n - 1:
        raise UserError(
            f"--reduce {tap.reduce}: {n} images at layer {tap.layer}, which has {d} features, have at most "
            f"{n - 1} principal directions"
        )
    mean = rows.double().mean(0).float()
    blocks = [(rows[:, begin : begin + COLUMNS] - mean[begin : begin + COLUMNS]).double() for begin in range(0, d, COLUMNS)]
    gram = torch.zeros(n, n, dtype=torch.float64)
    for block in blocks:
        gram += block @ block.T
    values, left = torch.linalg.eigh(gram)
    left = left.flip(1)[:, :number] / values.flip(0)[:number].clamp_min(1e-24).sqrt()
    return Projection(mean, torch.cat([block.T @ left for block in blocks]).float())
