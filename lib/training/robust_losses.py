"""Losses of robust training: adversarial training, TRADES and mixup (the nearest-category paper, section 3.1).

The attacks run in eval mode, so that no statistic of a batch normalisation sees them; what is minimised is computed in train
mode. TRADES has three such forward passes, as the paper's code: of the images, of the attacked ones, and of the images
again, so that normalisations move three times a step and the two sides of the divergence have dropout masks of their own.
The third is computed only where it differs from the first (`repeated_pass`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.attacks import pgd
from lib.attacks.pgd import Ball
from lib.training.flags import TrainingConfig
from lib.training.losses import Draws, Loss
from lib.training.repeated_pass import repeatable


def adversarial(config: TrainingConfig) -> Loss:
    """Cross-entropy of images attacked by PGD from a uniform start (Madry et al. 2018); the logits are theirs, too."""
    ball = Ball(config.norm, config.radius, config.box)

    def loss(network, images, labels, draws: Draws):
        generator = draws("attack")
        attacked = pgd.pgd(
            network,
            images,
            pgd.cross_entropy(labels),
            ball,
            steps=config.attack_steps,
            start=ball.uniform_start(images, generator),
            step_size=config.step_size,
            generator=generator,
        )
        logits = network(attacked)
        return F.cross_entropy(logits.float(), labels), logits

    return loss


def trades(config: TrainingConfig) -> Loss:
    """CE(f(x), y) + beta KL(p(x) || p(x')), x' that which maximises the divergence (Zhang et al. 2019); logits of x."""
    ball = Ball(config.norm, config.radius, config.box)

    def loss(network, images, labels, draws: Draws):
        generator = draws("attack")
        attacked = trades_images(network, images, ball, config.attack_steps, config.step_size, generator)
        logits, again = repeatable(network, images)
        natural = F.cross_entropy(logits.float(), labels)
        return natural + config.beta * kl(network(attacked), again()), logits

    return loss


def trades_images(network, images: Tensor, ball: Ball, steps: int, step_size: float, generator: torch.Generator) -> Tensor:
    """The images that maximise KL(p(x) || p(x')), from a start at a distance of 0.001 times a normal draw."""
    with pgd.attacked(network), torch.no_grad():
        clean = network(images)
    start = images + START * pgd.normal(images, generator)
    return pgd.pgd(
        network, images, pgd.divergence(clean), ball, start=start, steps=steps, step_size=step_size, generator=generator
    )


START = 0.001


def kl(perturbed: Tensor, clean: Tensor) -> Tensor:
    """KL(p || p') of the distributions of clean and perturbed logits (b, k), the mean over images; gradients for both."""
    return F.kl_div(perturbed.float().log_softmax(1), clean.float().softmax(1), reduction="batchmean")


def mixup(config: TrainingConfig) -> Loss:
    """KL to the mixed labels of the first half of a batch mixed with its second half, by one uniform share.

    Beta(1, 1) is uniform (Zhang et al. 2018). Of an odd batch the image in the middle is mixed with itself. The logits of a
    mixed image stand for both of its images.
    """

    def loss(network, images, labels, draws: Draws):
        share = torch.rand((), generator=draws("mixup"), device=images.device)
        half = (len(images) + 1) // 2
        logits = network(mix(images, share))
        targets = mix(F.one_hot(labels, logits.shape[1]).float(), share)
        return (
            F.kl_div(logits.float().log_softmax(1), targets, reduction="batchmean"),
            torch.cat([logits, logits[2 * half - len(images) :]]),
        )

    return loss


def mix(values: Tensor, share: Tensor | float) -> Tensor:
    """share times the first half of (b, ...) plus the rest of the second half: (ceil(b / 2), ...)."""
    half = (len(values) + 1) // 2
    return share * values[:half] + (1 - share) * values[len(values) - half :]
