"""A step of TRADES and the minimal L2 radius against the straightforward ways, in one run.

    OMP_NUM_THREADS=1 python benchmarks/attacks.py [BATCHES [IMAGES [CHECKPOINT]]]

TRADES: CNN002 on batches of 128 images of 28 x 28, against clean logits anew in every inner step and gradients of the
parameters, too. Radius: against Carlini & Wagner's attack with 9 searches of 1000 steps, at test images of the checkpoint's
data set (under the data root `data`) that it classifies correctly; without a checkpoint at random images and weights.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib import datasets, models
from lib.attacks import pgd
from lib.attacks.minimum_norm import minimal_radii
from lib.attacks.pgd import Ball
from lib.models import checkpoints
from lib.training.robust_losses import START, kl, trades

EPS, STEPS, BETA, BATCH = 2.0, 10, 6.0, 128


def network(classes: int = 9) -> torch.nn.Module:
    """A CNN002 whose last layer is not zero, without dropout, so that two ways give equal losses."""
    torch.manual_seed(0)
    found = models.build("CNN002", classes, 1, 28)
    torch.nn.init.normal_(found.classifier[-1].weight, std=0.3)
    found.classifier[2].p = 0.0
    return found


def straightforward_trades(net, images, labels, generator) -> torch.Tensor:
    """The loss as its formula says it, with everything computed where it is used."""
    net.eval()
    ball = Ball("2", EPS)
    perturbed = images + START * pgd.normal(images, generator)
    for _ in range(STEPS):
        perturbed = perturbed.detach().requires_grad_()
        pgd.divergence(net(images))(net(perturbed)).sum().backward()
        direction = ball.direction(perturbed.grad, generator)
        perturbed = ball.project(images, perturbed.detach() + 2 * EPS / STEPS * direction)
    net.train()
    net.zero_grad()
    return F.cross_entropy(net(images), labels) + BETA * kl(net(perturbed), net(images))


def compare_trades(batches: int) -> None:
    """Prints seconds per step of both ways, their ratio and the largest difference of their losses."""
    net = network().train()
    loss = trades(SimpleNamespace(norm="2", eps=EPS, box=True, attack_steps=STEPS, step_size=2 * EPS / STEPS, beta=BETA))
    seconds, losses = {"ours": 0.0, "straightforward": 0.0}, {"ours": [], "straightforward": []}
    for batch in range(batches + 1):
        images = torch.rand(BATCH, 1, 28, 28, generator=torch.Generator().manual_seed(batch))
        labels = torch.arange(BATCH) % 9
        for name in seconds:
            generator = torch.Generator().manual_seed(batch)
            net.zero_grad()
            begin = time.perf_counter()
            if name == "ours":
                value, _ = loss(net, images, labels, lambda _, generator=generator: generator)
            else:
                value = straightforward_trades(net, images, labels, generator)
            value.backward()
            if batch:  # the first is a warm-up
                seconds[name] += time.perf_counter() - begin
                losses[name].append(value.item())
    difference = max(abs(a - b) / b for a, b in zip(*losses.values(), strict=True))
    ours, theirs = (total / batches for total in seconds.values())
    print(
        f"TRADES step: ours {ours:.3f} s, straightforward {theirs:.3f} s, ratio {theirs / ours:.2f}; "
        f"losses differ by {difference:.1e} at most",
        flush=True,
    )
    compared("a step of TRADES", theirs, ours, agreement=f"losses differ by {difference:.1e} at most")


def carlini_wagner(net, images, labels, steps: int, searches: int) -> tuple[torch.Tensor, float]:
    """(smallest distances, seconds) of CW-L2: Adam on tanh-space points, a binary search for the constant."""
    begin = time.perf_counter()
    low, high = torch.zeros(len(images)), torch.full((len(images),), 1e10)
    constant, best = torch.full((len(images),), 1e-3), torch.full((len(images),), torch.inf)
    start = torch.atanh((images * 2 - 1) * 0.999999)
    with torch.no_grad():
        own = F.one_hot(labels, net(images[:1]).shape[1]).bool()
    for _ in range(searches):
        changed = torch.zeros_like(start, requires_grad=True)
        optimizer, succeeded = torch.optim.Adam([changed], lr=0.01), torch.zeros(len(images), dtype=torch.bool)
        for _ in range(steps):
            points = (torch.tanh(start + changed) + 1) / 2
            logits = net(points)
            squared = (points - images).flatten(1).square().sum(1)
            margin = (logits[own] - logits.masked_fill(own, -torch.inf).amax(1)).clamp_min(0)
            optimizer.zero_grad()
            (squared + constant * margin).sum().backward()
            optimizer.step()
            adversarial = logits.argmax(1) != labels
            succeeded |= adversarial
            best = torch.where(adversarial, torch.minimum(best, squared.detach().sqrt()), best)
        high, low = torch.where(succeeded, constant, high), torch.where(succeeded, low, constant)
        constant = torch.where(high < 1e9, (low + high) / 2, constant * 10)
    return best, time.perf_counter() - begin


def points(count: int, checkpoint: str) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A network, images (count, c, h, w) that it classifies correctly, and their labels."""
    if not checkpoint:
        net, images = network().eval(), torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            net.classifier[-1].bias -= net(images).mean(0)
            return net, images, net(images).argmax(1)
    loaded = checkpoints.load(checkpoint)
    test = datasets.load(loaded.description.dataset, "data", "test").spread(2 * count)
    images, labels, _ = next(test.batches(len(test)))
    with torch.no_grad():
        right = (loaded.network(images).argmax(1) == labels).nonzero().squeeze(1)[:count]
    return loaded.network, images[right], labels[right]


def compare_radii(count: int, checkpoint: str) -> None:
    """Prints seconds and mean radii."""
    net, images, labels = points(count, checkpoint)
    begin = time.perf_counter()
    found = minimal_radii(net, images, labels, generator=torch.Generator().manual_seed(0))
    ours = time.perf_counter() - begin
    with pgd.attacked(net):
        radii, theirs = carlini_wagner(net, images, labels, 1000, 9)
    both = found.succeeded & radii.isfinite()
    print(
        f"radius of {len(images)} images: ours {ours:.1f} s, mean {found.distances[both].mean():.4f}, success "
        f"{found.succeeded.double().mean():.2f}; CW 9 x 1000 {theirs:.1f} s, mean {radii[both].mean():.4f}, success "
        f"{radii.isfinite().double().mean():.2f}; ratio {theirs / ours:.0f}"
    )
    compared(
        "minimal L2 radius, against Carlini & Wagner",
        theirs,
        ours,
        agreement=f"mean radii {found.distances[both].mean():.4f} and {radii[both].mean():.4f}",
    )


def main(batches: int = 5, count: int = 20, checkpoint: str = "") -> None:
    """Prints both comparisons."""
    if batches:
        compare_trades(batches)
    if count:
        compare_radii(count, checkpoint)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
