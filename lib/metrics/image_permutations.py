"""Permutations of images, and what cross-moments are under many of them at once.

Moments of n images with p positions each take n p c d multiplications for one permutation, as many as for the images as they
are. Permutations that are shifts around one random circle of all images take little more for all of them together: a Fourier
transform along the circle makes a product of each shift. Shifts are a group, and the images as they are its shift by none,
so a p-value from some of them is as valid as one from independent permutations. No image keeps its partner in any shift.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

NUMBERS = 1 << 24  # that are transformed back at a time


@dataclass(frozen=True)
class Permutations:
    """Orders (draws, n) of n images.

    Where they are shifts around a circle: `circle` (n,), the images in its order, and `steps` (draws,), all different: the
    image at place i has the partner of the image at place i + step. Else None. With `start` (n,) the partners are in this
    order before.
    """

    orders: Tensor
    circle: Tensor | None = None
    steps: Tensor | None = None
    start: Tensor | None = None


def draw(n: int, count: int, generator: torch.Generator) -> Permutations:
    """So many permutations of n images: shifts around a random circle if there are as many, else independent ones."""
    if count >= n:
        return Permutations(torch.stack([torch.randperm(n, generator=generator) for _ in range(count)]))
    circle = torch.randperm(n, generator=generator)
    steps = torch.randperm(n - 1, generator=generator)[:count] + 1
    orders = torch.empty(count, n, dtype=torch.long)
    orders[:, circle] = circle[(torch.arange(n) + steps[:, None]) % n]
    return Permutations(orders, circle, steps)


def around_circles(n: int, count: int, generator: torch.Generator) -> list[Permutations]:
    """The images as they are, and so many permutations or a few more: shifts in parts of equally many, the first by none.

    For more permutations than a circle has shifts, at the price of few circles. Every part but the first is of the images in
    a random order. Orders that are independent and uniform, each seen with as many random shifts of it: which of all of them
    is that of the images as they are cannot be told under the null, so that a p-value from them is exact.
    """
    parts = -(-(count + 1) // n)
    circle, each = torch.randperm(n, generator=generator), -(-(count + 1) // parts)
    found = []
    for part in range(parts):
        start = torch.randperm(n, generator=generator) if part else torch.arange(n)
        if part:
            steps = torch.randperm(n, generator=generator)[:each]
        else:
            steps = torch.cat([torch.zeros(1, dtype=torch.long), torch.randperm(n - 1, generator=generator)[: each - 1] + 1])
        orders = torch.empty(len(steps), n, dtype=torch.long)
        orders[:, circle] = start[circle[(torch.arange(n) + steps[:, None]) % n]]
        found.append(Permutations(orders, circle, steps, start))
    return found


def cross_moments(x: Tensor, y: Tensor, permutations: Permutations) -> Iterator[Tensor]:
    """For each order the sum over images i and positions of x[i]' y[order[i]], (c, d); x (n, p, c), y (n, p, d) centred.

    Of shifts in single precision: within 1e-5 of the largest, which tells no draw from another.
    """
    if permutations.circle is None or permutations.steps is None:
        for order in permutations.orders:
            yield torch.einsum("npc,npd->cd", x, y[order])
        return
    y = y if permutations.start is None else y[permutations.start.to(y.device)]
    circle, steps = permutations.circle.to(x.device), permutations.steps.to(x.device)
    ahead = [torch.fft.rfft(side[circle].float(), dim=0) for side in (x, y)]
    waves = ahead[0].conj().transpose(1, 2) @ ahead[1]  # (frequencies, c, d)
    n, (_, c, d) = len(x), waves.shape
    moments = torch.empty(len(steps), c, d, device=x.device)
    for part in torch.arange(c, device=x.device).split(max(1, NUMBERS // (n * d))):
        moments[:, part] = torch.fft.irfft(waves[:, part], n=n, dim=0)[steps]
    yield from moments.double()
