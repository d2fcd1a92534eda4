"""Seconds of the energies of all 41 layers of ResNet-18, against the plain forward pass over the same images.

    OMP_NUM_THREADS=1 python benchmarks/ood_layers.py [IMAGES] [BATCH]

The floor is the network without hooks, in the same process, at the same batch size; beside it a plain logsumexp in every
hook. Batches of the three are taken in turn, so that they share whatever else the machine does. Then everything that
follows the pass, for 10,000 + 10,000 images and 41 layers. 32 x 32 images, torchvision's stem, random weights. Without
IMAGES the passes are over 20,000, too.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib import models
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.ood import aggregate, comparison
from lib.ood.flags import AGGREGATORS
from lib.ood.layer_energies import default_layers, energy

TEMPERATURES = ((1.0,), (1.0, 10.0, 100.0))
FULL, LAYERS = 10_000, 41


def main(count: int = 2 * FULL, batch: int = 128) -> None:
    """Prints seconds for `count` images and ratios to the floor, then the seconds of the statistics."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    network = Normalized(models.build("tv_resnet18", 10, 3), (0.5,) * 3, (0.25,) * 3).eval().to(device)
    images = torch.rand(batch, 3, 32, 32, device=device)
    layers = default_layers(network)

    def naive(temperatures):
        return lambda output: torch.stack([-t * torch.logsumexp(output.flatten(1) / t, 1) for t in temperatures], 1)

    def ours(temperatures):
        return lambda output: energy(output, temperatures)

    print(f"{device}, {torch.get_num_threads()} threads, {count} images, batch {batch}")
    print(f"{'temperatures':>14}{'plain s':>10}{'naive':>8}{'ours':>8}   (times the plain pass)")
    for temperatures in TEMPERATURES:
        ways = {"plain": None, "naive": naive(temperatures), "ours": ours(temperatures)}
        seconds = dict.fromkeys(ways, 0.0)
        for step in range(-2, -(-count // batch)):  # two rounds to warm up
            for way, reduce in ways.items():
                begin = now(device)
                forward(network, images, layers, reduce)
                seconds[way] += (now(device) - begin) * (step >= 0)
        print(
            f"{len(temperatures):>14}{seconds['plain']:>10.2f}{seconds['naive'] / seconds['plain']:>8.2f}"
            f"{seconds['ours'] / seconds['plain']:>8.2f}",
            flush=True,
        )
        compared(
            f"energies of {len(layers)} layers, {len(temperatures)} temperatures, against logsumexp in hooks",
            seconds["naive"],
            seconds["ours"],
            agreement=agreement(network, images, layers, naive(temperatures), ours(temperatures)),
        )
    statistics()


@torch.no_grad()
def agreement(network, images, layers, *reducers) -> str:
    """How far the energies of one batch differ between two ways."""
    found = []
    for reduce in reducers:
        with cutting.record(network, layers, reduce=reduce) as outputs:
            network(images)
            found.append(torch.stack([outputs[name] for name in layers], 1))
    return f"largest difference {(found[0] - found[1]).abs().max():.1e}"


@torch.no_grad()
def forward(network, images, layers, reduce) -> None:
    """One batch, its energies brought together as in the suite's pass."""
    if reduce is None:
        network(images)
        return
    with cutting.record(network, layers, reduce=reduce) as outputs:
        network(images)
        torch.stack([outputs[name] for name in layers], 1)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def statistics() -> None:
    """Prints the seconds of every measure, test and aggregator for the energies of 10,000 + 10,000 images."""
    draw = np.random.default_rng(0)
    inside, outside, fitted = (
        draw.normal(shift, 1, (n, LAYERS)).astype(np.float32) for shift, n in ((0, FULL), (0.3, FULL), (0, 5000))
    )
    begin = time.perf_counter()
    comparison.layer_rows(inside, outside, fitted, LAYERS - 1)
    layers, scores = time.perf_counter() - begin, []
    for name in AGGREGATORS:
        if name == "oracle":
            scores.append(aggregate.oracle([str(layer) for layer in range(LAYERS)], inside, outside))
            continue
        score = aggregate.fit(name, fitted, outside[:1000] if name == "logreg" else None)
        scores.append(comparison.Score({"score": name}, score(inside), score(outside)))
    comparison.score_rows(scores, inside[:, -1], outside[:, -1])
    total = time.perf_counter() - begin
    print(f"after the pass: {total:.2f} s, {layers:.2f} s of it for the layers, the rest for {len(scores)} aggregates")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
