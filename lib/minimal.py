"""The smallest L2 change of an image that changes a network's answer: DDN, a FAB polish, bisection.

The nearest-category page, section 6.4; DDN after Rony et al. 2019, the polish after Croce & Hein 2020. The nearest
adversarial point that any of them has seen is kept, so that another attack never increases the distance.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attacks import TINY, attacked, input_gradient, lengths, normal, unit

ATTACKS = ("none", "ddn", "fab")  # none: the answer is wrong without an attack, or no attack changes it
MOST_CLASSES = 10  # the nearest boundary is searched among so many classes with the largest logits


@dataclass(frozen=True)
class Radii:
    """points (b, ...): the nearest ones found with another answer; distances (b,): theirs, 0 for images that are wrong
    anyway; found (b,): false where no attack succeeded, and the distance is the largest that was tried; won (b,): the
    number of the attack in `ATTACKS`."""

    points: Tensor
    distances: Tensor
    found: Tensor
    won: Tensor


def minimal_radii(network: nn.Module, images: Tensor, labels: Tensor, *, box: bool = True, steps: int = 100,
                  polish: int = 20, halvings: int = 20, generator: torch.Generator) -> Radii:
    """The distances of images (b, ...) with answers `labels` (b,) to the network's decision boundary.

    box: stay in [0, 1]. 2 steps + 4 polish k + halvings forward and backward passes, k classes at most 10. Of steps and
    polish either may be 0.
    """
    with attacked(network):
        best = _Best(network, images, labels)
        tried = _ddn(network, images, labels, best, steps, box, generator)
        best.won[best.found & ~best.wrong] = ATTACKS.index("ddn")
        _bisect(network, images, labels, best, halvings, best.found & ~best.wrong)
        before = best.distances.clone()
        _fab(network, images, labels, best, polish, box, generator)
        improved = best.distances < before
        _bisect(network, images, labels, best, halvings, improved)
        best.won[improved] = ATTACKS.index("fab")
    distances = torch.where(best.found, best.distances, torch.maximum(tried, torch.zeros_like(tried)))
    return Radii(best.points, distances, best.found, best.won)


class _Best:
    """The nearest adversarial points seen so far; an image that is wrong anyway is its own."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.wrong = network(images).argmax(1) != labels
        self.points, self.found = images.clone(), self.wrong.clone()
        self.distances = torch.where(self.wrong, 0.0, math.inf).to(images.dtype)
        self.won = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.images = images

    def offer(self, points: Tensor, adversarial: Tensor) -> None:
        distances = lengths(points - self.images).flatten()
        better = adversarial & (distances < self.distances)
        self.points = torch.where(_wide(better, points), points, self.points)
        self.distances = torch.where(better, distances, self.distances)
        self.found = self.found | adversarial


def _ddn(network, images: Tensor, labels: Tensor, best: _Best, steps: int, box: bool, generator) -> Tensor:
    """Decoupled direction and norm, from the distance of the nearest linearised boundary; the largest norm tried (b,)."""
    norm = _linearised_distance(network, images, labels).clamp(1e-6, 10 * math.sqrt(images[0].numel()))
    first, largest = norm.clone(), norm.clone()
    perturbed = images
    for step in range(steps):
        gradient = input_gradient(network, perturbed, lambda logits: _difference(logits, labels))
        direction = torch.where(lengths(gradient) > TINY, unit(gradient), unit(normal(gradient, generator)))
        length = first * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        moved = perturbed + _wide(length, images) * direction
        perturbed = images + unit(moved - images) * _wide(norm, images)
        perturbed = perturbed.clamp(0, 1) if box else perturbed
        adversarial = network(perturbed).argmax(1) != labels
        best.offer(perturbed, adversarial)
        largest = torch.maximum(largest, lengths(perturbed - images).flatten())
        norm = norm * torch.where(adversarial, 0.95, 1.05)
    return largest


def _fab(network, images: Tensor, labels: Tensor, best: _Best, steps: int, box: bool, generator) -> None:
    """Steps to the nearest linearised boundary, seen from the point and from the image, and back towards the image."""
    point = torch.where(_wide(best.found, images), best.points, images)
    for _ in range(steps):
        differences, gradients = _linearise(network, point, labels)
        to_point = _step(differences, gradients, generator, point)
        at_image = differences + (gradients.flatten(2) * (images - point).flatten(1)[:, None]).sum(2)
        to_image = _step(at_image, gradients, generator, point)
        near, far = lengths(to_point), lengths(to_image)
        share = (near / (near + far).clamp_min(TINY)).clamp(max=0.1)
        point = (1 - share) * (point + OVERSHOOT * to_point) + share * (images + OVERSHOOT * to_image)
        point = point.clamp(0, 1) if box else point
        adversarial = network(point).argmax(1) != labels
        best.offer(point, adversarial)
        direct = images + OVERSHOOT * to_image
        direct = direct.clamp(0, 1) if box else direct
        best.offer(direct, network(direct).argmax(1) != labels)
        point = torch.where(_wide(adversarial, images), images + 0.9 * (point - images), point)


OVERSHOOT = 1.05


def _bisect(network, images: Tensor, labels: Tensor, best: _Best, halvings: int, chosen: Tensor) -> None:
    """Moves the chosen best points towards their images, to just behind the boundary."""
    low, high = torch.zeros_like(best.distances), torch.ones_like(best.distances)
    start = best.points
    for _ in range(halvings):
        middle = (low + high) / 2
        point = images + _wide(middle, images) * (start - images)
        adversarial = network(point).argmax(1) != labels
        best.offer(point, adversarial & chosen)
        high, low = torch.where(adversarial, middle, high), torch.where(adversarial, low, middle)


def _linearise(network, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logit differences (b, j) of other classes to the own one, those with the largest logits, and gradients (b, j, ...)."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(points)
        count = min(logits.shape[1], MOST_CLASSES + 1) - 1
        others = logits.detach().scatter(1, labels[:, None], -math.inf).topk(count, 1).indices
        differences = logits.gather(1, others) - logits.gather(1, labels[:, None])
        gradients = [torch.autograd.grad(differences[:, place].sum(), points, retain_graph=place + 1 < count)[0]
                     for place in range(count)]
    return differences.detach(), torch.stack(gradients, 1)


def _step(differences: Tensor, gradients: Tensor, generator, like: Tensor) -> Tensor:
    """The shortest step (b, ...) to a linearised boundary; a random unit one where no gradient has a direction."""
    norms = gradients.flatten(2).norm(dim=2)
    nearest = torch.where(norms > TINY, differences.abs() / norms.clamp_min(TINY), math.inf).min(1)
    rows = torch.arange(len(like), device=like.device)
    scale = -differences[rows, nearest.indices] / norms[rows, nearest.indices].clamp_min(TINY) ** 2
    step = _wide(scale, like) * gradients[rows, nearest.indices]
    return torch.where(_wide(torch.isfinite(nearest.values), like), step, unit(normal(like, generator)))


def _linearised_distance(network, images: Tensor, labels: Tensor) -> Tensor:
    """DeepFool's first estimate (b,) of the distance to the boundary; 1 where no gradient has a direction."""
    differences, gradients = _linearise(network, images, labels)
    norms = gradients.flatten(2).norm(dim=2)
    return torch.where(norms > TINY, differences.abs() / norms.clamp_min(TINY), 1.0).min(1).values


def _difference(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit less the own one: its gradient does not vanish where the network is certain."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(own, -math.inf).amax(1) - logits.gather(1, labels[:, None]).squeeze(1)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """(b,) as (b, 1, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))
