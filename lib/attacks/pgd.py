"""Attacks inside a ball around each image: projected gradient ascent on the network's loss (Madry et al. 2018).

The nearest-category paper, sections 3.1 and 6.4. Images are in [0, 1]; with a box, so are their perturbed versions. The
network answers in eval mode, without gradients of its parameters, and is left as it was; the losses of the images are
added up, so that no image's attack depends on those beside it.
"""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.models import cutting

TINY = 1e-12  # gradients shorter than this have no direction

Objective = Callable[[Tensor], Tensor]  # logits (b, k) -> what grows, (b,)


@dataclass(frozen=True)
class Ball:
    """All points within `radius` of an image in the norm "2" or "inf", and in [0, 1] if there is a box."""

    norm: str
    radius: float
    box: bool = True

    def project(self, images: Tensor, perturbed: Tensor) -> Tensor:
        """The perturbed images moved into the ball; scaling towards an image in the box does not leave the box."""
        delta = perturbed.clamp(0, 1).sub_(images) if self.box else perturbed - images
        return self._moved(images, delta)  # where a box is left by rounding only

    def direction(self, gradient: Tensor, generator: torch.Generator) -> Tensor:
        """The steepest unit step; a random one where the gradient is zero, which alone draws on the CPU.

        On a GPU a draw in every step costs less than waiting to know whether it is needed.
        """
        if self.norm == "inf":
            return gradient.sign()
        length = lengths(gradient)
        known = length > TINY
        steepest = gradient / length.clamp_min(TINY)
        if not known.is_cuda and bool(known.all()):
            return steepest
        return torch.where(known, steepest, unit(normal(gradient, generator)))

    def uniform_start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images moved by uniform noise from the cube around the ball; in many dimensions they land on the sphere.

        As the nearest-category paper's code: the noise is shortened to the ball before the box cuts it off.
        """
        noise = torch.rand(images.shape, generator=generator, device=images.device) * 2 - 1
        return self._moved(images, noise.mul_(self.radius))

    def _moved(self, images: Tensor, delta: Tensor) -> Tensor:
        """The images moved by what of delta is in the ball, and then into the box; in the memory of delta."""
        if self.norm == "inf":
            delta.clamp_(-self.radius, self.radius)
        else:
            delta.mul_((self.radius / lengths(delta).clamp_min_(TINY)).clamp_(max=1))
        moved = delta.add_(images)
        return moved.clamp_(0, 1) if self.box else moved


def pgd(
    network: nn.Module,
    images: Tensor,
    objective: Objective,
    ball: Ball,
    *,
    start: Tensor,
    steps: int,
    step_size: float,
    generator: torch.Generator,
) -> Tensor:
    """Images (b, ...) in the ball around `images`, `steps` steps of ascent on the objective away from `start`."""
    perturbed = start.detach()
    with attacked(network):
        for _ in range(steps):
            gradient = input_gradient(network, perturbed, objective)
            step = ball.direction(gradient, generator).mul_(step_size)
            perturbed = ball.project(images, step.add_(perturbed))
    return perturbed if steps else ball.project(images, perturbed)


def cross_entropy(labels: Tensor) -> Objective:
    """The loss of each image's label."""
    return lambda logits: F.cross_entropy(logits.float(), labels, reduction="none")


def divergence(clean: Tensor) -> Objective:
    """KL(p || p') from the distribution of clean logits (b, k) to that of the perturbed images' logits."""
    target = clean.detach().float().softmax(1)
    return lambda logits: F.kl_div(logits.float().log_softmax(1), target, reduction="none").sum(1)


@contextlib.contextmanager
def attacked(network: nn.Module) -> Generator[None]:
    """The network in eval mode and with frozen parameters; both as before when the block is left, however that is."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with cutting.evaluating(network):
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


def input_gradient(network: nn.Module, images: Tensor, objective: Objective) -> Tensor:
    """The gradient of each image's objective with respect to the image."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(objective(network(images)).sum(), images)[0]


def lengths(values: Tensor) -> Tensor:
    """Euclidean norms of (b, ...), as (b, 1, ...)."""
    return values.flatten(1).norm(dim=1).view(-1, *[1] * (values.ndim - 1))


def unit(values: Tensor) -> Tensor:
    """Every image's values divided by their Euclidean norm."""
    return values / lengths(values).clamp_min(TINY)


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the same shape."""
    return torch.randn(like.shape, generator=generator, device=like.device)
