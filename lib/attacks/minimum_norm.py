"""The smallest L2 change of an image that changes a network's answer: DDN, a FAB polish, bisection.

The nearest-category paper, section 6.4; DDN after Rony et al. 2019, the polish after Croce & Hein 2020. The nearest
adversarial point that any of them has seen is kept, so that another attack never increases the distance. Points are compared
by where the way from the image to them crosses the boundary, as they lie behind it by different shares of the distance.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attacks.pgd import TINY, attacked, lengths, normal, unit

ATTACKS = ("none", "ddn", "fab")  # none: the answer is wrong without an attack, or no attack changes it
MOST_CLASSES = 10  # the nearest boundary is looked for among so many classes with the largest logits
POLISHED_CLASSES = 3  # and polished among so many of them, those whose linearised boundaries are nearest
COMPARED = 10  # halvings of the way to a point before it is compared
GAIN = 1e-4  # a crossing counts as nearer if it is by this share
PATIENCE, PROGRESS = 6, 1e-3  # the polish of an image ends after so many steps that shorten it by a smaller share


@dataclass(frozen=True)
class Radii:
    """points (b, ...): the nearest ones found with another answer, a thousandth or less of the distance behind the boundary;
    distances (b,): those to the boundary, 0 for images that are wrong anyway; succeeded (b,): false where no attack did,
    and the distance is the largest that was tried; won (b,): the number of the attack in `ATTACKS`."""

    points: Tensor
    distances: Tensor
    succeeded: Tensor
    won: Tensor


def minimal_radii(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    box: bool = True,
    steps: int = 100,
    polish: int = 20,
    halvings: int = 20,
    generator: torch.Generator,
) -> Radii:
    """The distances of images (b, ...) with answers `labels` (b,) to the network's decision boundary.

    box: stay in [0, 1]. At most 13 steps + 26 polish + 2 halvings + 20 forward passes, most of which are of few images, and
    steps + 4 polish backward passes. Of steps and polish either may be 0.
    """
    with attacked(network):
        best = _Best(network, images, labels)
        tried = _ddn(network, images, labels, best, steps, box, generator)
        best.won[best.succeeded & ~best.wrong] = ATTACKS.index("ddn")
        _bisect(network, images, labels, best, halvings, best.succeeded & ~best.wrong)
        before = best.distances.clone()
        _fab(network, images, labels, best, polish, box, generator)
        improved = best.distances < before
        _bisect(network, images, labels, best, halvings, improved)
        best.won[improved] = ATTACKS.index("fab")
        _step_behind(network, images, labels, best, box)
    distances = torch.where(best.succeeded, best.distances, torch.maximum(tried, torch.zeros_like(tried)))
    return Radii(best.points, distances, best.succeeded, best.won)


class _Best:
    """The nearest adversarial points seen so far; an image that is wrong anyway is its own."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.wrong = network(images).argmax(1) != labels
        self.points, self.succeeded = images.clone(), self.wrong.clone()
        self.distances = torch.where(self.wrong, 0.0, math.inf).to(images.dtype)
        self.won = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.images = images

    def offer_crossing(self, network: nn.Module, labels: Tensor, points: Tensor, adversarial: Tensor, rows: Tensor) -> None:
        """Offers the places where the ways from the images at `rows` to their adversarial points cross the boundary.

        Only those are looked for that are nearer than what is kept: the way is adversarial shortly before that distance.
        """
        origin = self.images[rows]
        distances = lengths(points - origin).flatten()
        share = (self.distances[rows] * (1 - GAIN) / distances.clamp_min(TINY)).clamp(max=1)
        left = (adversarial & (distances > 0) & (share > 0)).nonzero().squeeze(1)
        shortened = left[share[left] < 1]
        if len(shortened):
            nearer = origin[shortened] + _wide(share[shortened], origin) * (points - origin)[shortened]
            left = torch.cat([left[share[left] == 1], shortened[network(nearer).argmax(1) != labels[rows[shortened]]]])
        if not len(left):
            return
        origin, way, labels = origin[left], (points - origin)[left], labels[rows[left]]
        low, high = torch.zeros_like(share[left]), share[left]
        for _ in range(COMPARED):
            middle = (low + high) / 2
            behind = network(origin + _wide(middle, origin) * way).argmax(1) != labels
            high, low = torch.where(behind, middle, high), torch.where(behind, low, middle)
        self.offer(origin + _wide(high, origin) * way, torch.ones_like(labels, dtype=torch.bool), rows[left])

    def offer(self, points: Tensor, adversarial: Tensor, rows: Tensor | slice = slice(None)) -> None:
        """Keeps those of the points, one for each of the images at `rows`, that are adversarial and nearer than before."""
        distances = lengths(points - self.images[rows]).flatten()
        better = adversarial & (distances < self.distances[rows])
        self.points[rows] = torch.where(_wide(better, points), points, self.points[rows])
        self.distances[rows] = torch.where(better, distances, self.distances[rows])
        self.succeeded[rows] |= adversarial


def _ddn(
    network: nn.Module, images: Tensor, labels: Tensor, best: _Best, steps: int, box: bool, generator: torch.Generator
) -> Tensor:
    """Decoupled direction and norm, from the distance of the nearest linearised boundary; the largest norm tried (b,)."""
    norm = _linearised_distance(network, images, labels).clamp(1e-6, 10 * math.sqrt(images[0].numel()))
    first, largest, everything = norm.clone(), norm.clone(), torch.arange(len(images), device=images.device)

    def judge(points: Tensor, logits: Tensor) -> Tensor:
        """Offers the points, and returns the norms to try next: smaller behind the boundary, larger in front of it."""
        nonlocal largest
        adversarial = logits.argmax(1) != labels
        best.offer_crossing(network, labels, points, adversarial & ~best.wrong, everything)
        largest = torch.maximum(largest, lengths(points - images).flatten())
        return norm * torch.where(adversarial, 0.95, 1.05)

    perturbed = images
    for step in range(steps):
        gradient, logits = _differentiate(network, perturbed, labels)
        if step:
            norm = judge(perturbed, logits)
        direction = torch.where(lengths(gradient) > TINY, unit(gradient), unit(normal(gradient, generator)))
        length = first * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        moved = perturbed + _wide(length, images) * direction
        perturbed = images + unit(moved - images) * _wide(norm, images)
        perturbed = perturbed.clamp(0, 1) if box else perturbed
    if steps:
        judge(perturbed, network(perturbed))
    return largest


def _fab(
    network: nn.Module, images: Tensor, labels: Tensor, best: _Best, steps: int, box: bool, generator: torch.Generator
) -> None:
    """Steps to the nearest linearised boundary, seen from the point and from the image, and back towards the image.

    An image whose distance has stopped falling takes no further steps.
    """
    point = torch.where(_wide(best.succeeded, images), best.points, images)
    others, idle = None, torch.where(best.wrong, PATIENCE, 0)
    for _ in range(steps):
        rows = (idle < PATIENCE).nonzero().squeeze(1)
        if not len(rows):
            break
        here, origin, own = point[rows], images[rows], labels[rows]
        differences, gradients, classes = _linearise(network, here, own, None if others is None else others[rows])
        if others is None:
            count = min(POLISHED_CLASSES, classes.shape[1])
            others = labels[:, None].repeat(1, count)
            others[rows] = classes.gather(1, _boundaries(differences, gradients).topk(count, 1, largest=False).indices)
        to_point = _step(differences, gradients, generator, here)
        at_image = differences + (gradients.flatten(2) * (origin - here).flatten(1)[:, None]).sum(2)
        to_image = _step(at_image, gradients, generator, here)
        near, far = lengths(to_point), lengths(to_image)
        share = (near / (near + far).clamp_min(TINY)).clamp(max=0.1)
        moved = (1 - share) * (here + OVERSHOOT * to_point) + share * (origin + OVERSHOOT * to_image)
        direct = origin + OVERSHOOT * to_image
        moved, direct = (moved.clamp(0, 1), direct.clamp(0, 1)) if box else (moved, direct)
        before = best.distances[rows]
        adversarial = network(torch.cat([moved, direct])).argmax(1) != own.repeat(2)
        best.offer_crossing(network, labels, moved, adversarial[: len(rows)], rows)
        best.offer_crossing(network, labels, direct, adversarial[len(rows) :], rows)
        point[rows] = torch.where(_wide(adversarial[: len(rows)], origin), origin + 0.9 * (moved - origin), moved)
        shortened = best.distances[rows] < before * (1 - PROGRESS)
        idle[rows] = torch.where(shortened | ~best.succeeded[rows], 0, idle[rows] + 1)


OVERSHOOT = 1.05


def _bisect(network: nn.Module, images: Tensor, labels: Tensor, best: _Best, halvings: int, chosen: Tensor) -> None:
    """Moves the chosen best points towards their images, to just behind the boundary."""
    rows = chosen.nonzero().squeeze(1)
    if not len(rows):
        return
    origin, start = images[rows], best.points[rows]
    low, high = torch.zeros_like(best.distances[rows]), torch.ones_like(best.distances[rows])
    for _ in range(halvings):
        middle = (low + high) / 2
        point = origin + _wide(middle, origin) * (start - origin)
        adversarial = network(point).argmax(1) != labels[rows]
        best.offer(point, adversarial, rows)
        high, low = torch.where(adversarial, middle, high), torch.where(adversarial, low, middle)


def _step_behind(network: nn.Module, images: Tensor, labels: Tensor, best: _Best, box: bool) -> None:
    """Moves the points a little further: at the boundary an answer depends on rounding, and so on the batch."""
    start, left = best.points, best.succeeded & ~best.wrong
    for share in BEHIND:
        points = images + (1 + share) * (start - images)
        points = points.clamp(0, 1) if box else points
        best.points = torch.where(_wide(left, points), points, best.points)
        left = left & (network(points).argmax(1) == labels)


BEHIND = (1e-5, 1e-4, 1e-3)  # shares of the distance: the first for all, the others where it is not enough


def _differentiate(network: nn.Module, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of `_difference` with respect to each point, and the logits (b, k) there."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(points)
        (gradient,) = torch.autograd.grad(_difference(logits, labels).sum(), points)
    return gradient, logits.detach()


def _linearise(
    network: nn.Module, points: Tensor, labels: Tensor, others: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Logit differences (b, j) of other classes to the own one, gradients (b, j, ...), and the classes (b, j).

    The classes are `others`, by default those with the largest logits.
    """
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(points)
        if others is None:
            count = min(logits.shape[1], MOST_CLASSES + 1) - 1
            others = logits.detach().scatter(1, labels[:, None], -math.inf).topk(count, 1).indices
        differences = logits.gather(1, others) - logits.gather(1, labels[:, None])
        count = others.shape[1]
        gradients = [
            torch.autograd.grad(differences[:, column].sum(), points, retain_graph=column + 1 < count)[0]
            for column in range(count)
        ]
    return differences.detach(), torch.stack(gradients, 1), others


def _boundaries(differences: Tensor, gradients: Tensor) -> Tensor:
    """The distances (b, j) to the linearised boundaries, infinite where the gradient has no direction."""
    norms = gradients.flatten(2).norm(dim=2)
    return torch.where(norms > TINY, differences.abs() / norms.clamp_min(TINY), math.inf)


def _step(differences: Tensor, gradients: Tensor, generator: torch.Generator, like: Tensor) -> Tensor:
    """The shortest step (b, ...) to a linearised boundary; a random unit one where no gradient has a direction."""
    norms = gradients.flatten(2).norm(dim=2)
    nearest = _boundaries(differences, gradients).min(1)
    rows = torch.arange(len(like), device=like.device)
    scale = -differences[rows, nearest.indices] / norms[rows, nearest.indices].clamp_min(TINY) ** 2
    step = _wide(scale, like) * gradients[rows, nearest.indices]
    return torch.where(_wide(torch.isfinite(nearest.values), like), step, unit(normal(like, generator)))


def _linearised_distance(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """DeepFool's first estimate (b,) of the distance to the boundary; 1 where no gradient has a direction."""
    differences, gradients, _ = _linearise(network, images, labels)
    nearest = _boundaries(differences, gradients).min(1).values
    return torch.where(torch.isfinite(nearest), nearest, 1.0)


def _difference(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit less the own one: its gradient does not vanish where the network is certain."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(own, -math.inf).amax(1) - logits.gather(1, labels[:, None]).squeeze(1)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """(b,) as (b, 1, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))
