"""The rank command of the stitching paper, 2 layers x 14 ranks x 10 epochs, against the straightforward way.

    OMP_NUM_THREADS=1 python benchmarks/probe.py [IMAGES] [SLICE]

Straightforward: every layer, rank and epoch runs the frozen network over the images again, projects and pools each batch
and steps one probe. It is measured for one layer and rank on SLICE of the images and scaled; the suite's way is measured
whole: one pass, then all ranks of both layers side by side. Both see the same fixed basis, start and order; the probes of
the slice are compared.
"""

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared  # noqa: E402
from lib import graph, low_rank, models  # noqa: E402
from lib.datasets.split import Split  # noqa: E402
from lib.features import Tap, collect  # noqa: E402
from lib.models.normalized import Normalized  # noqa: E402
from lib.probes.fit import Directions, Group, Recipe, fit, predictions  # noqa: E402
from lib.probes.stack import Setting, initial  # noqa: E402
from lib.randomness import generator  # noqa: E402

LAYERS, RANKS, EPOCHS, BATCH = ("layer2", "layer4"), (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 80, 96, 112, 128), 10, 64


def main(count: int = 10_000, part: int = 256) -> None:
    """Prints the seconds of both ways, their ratio, and how far their probes agree."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Normalized(models.build("tv_resnet18", 10), (0.5,) * 3, (0.25,) * 3).eval()
    split = made_up(count)
    begin = time.perf_counter()
    kept = collect(network, split, [Tap(layer, "gap") for layer in LAYERS], moments=True, dtype="fp32", batch_size=256,
                   quiet=True)
    passed = time.perf_counter() - begin
    directions = {layer: Directions(moments.mean, low_rank.basis(moments.covariance))
                  for layer, moments in kept.moments.items()}
    for tap, features in kept.features.items():
        rows = torch.arange(count)
        fit(tap, [features], [Group(rows, split.labels, rank=rank) for rank in RANKS], [Setting(1e-3)], 10,
            Recipe(epochs=EPOCHS, batch_size=BATCH), directions[tap.layer])
    ours = time.perf_counter() - begin
    tap, rank = Tap(LAYERS[-1], "gap"), RANKS[3]
    rows = torch.arange(part)
    fast = fit(tap, [kept.features[tap]], [Group(rows, split.labels[:part], rank=rank)], [Setting(1e-3)], 10,
               Recipe(epochs=1, batch_size=BATCH), directions[tap.layer]).of_group(0)
    begin = time.perf_counter()
    slow = straightforward(network, split.subset(rows), tap, directions[tap.layer], rank)
    theirs = (time.perf_counter() - begin) * count / part * len(LAYERS) * len(RANKS) * EPOCHS
    answers = slow(low_rank.project(kept.features[tap].rows(), directions[tap.layer].mean, directions[tap.layer].basis,
                                    rank)).argmax(1)
    same = (predictions(fast, kept.features[tap])[0] == answers).double().mean().item()
    print(f"{len(LAYERS)} layers x {len(RANKS)} ranks x {EPOCHS} epochs, {count} images, one thread")
    print(f"one pass and stacked probes      {ours:10.1f} s   (the pass: {passed:.1f} s)")
    print(f"a pass per layer, rank and epoch {theirs:10.1f} s   (scaled from {part} images, one layer, rank and epoch)")
    print(f"ratio {theirs / ours:.0f}; same answers on {same:.4f} of the images")
    compared("probes of 14 ranks of 2 layers, against a pass for each", theirs, ours,
             agreement=f"{same:.4f} of answers equal")


def made_up(count: int) -> Split:
    """Random images with random labels: what they show does not change the time."""
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draw)
    return Split("made up", "all", images, torch.randint(0, 10, (count,), generator=draw))


def straightforward(network, split: Split, tap: Tap, directions: Directions, rank: int) -> torch.nn.Linear:
    """One epoch of one probe, the network run for every batch and its activation projected before it is pooled."""
    front = graph.cut(network, tap.layer)[0]
    start = initial(len(directions.mean), 10, [0], 1, f"{tap.layer}/{tap.reduce}")
    probe = torch.nn.Linear(len(directions.mean), 10)
    probe.weight.data, probe.bias.data = start.weights[0, 0].clone(), start.biases[0, 0].clone()
    optimizer = torch.optim.Adam(probe.parameters(), lr=1e-3)
    order = torch.randperm(len(split), generator=generator(0, "probe order", 1))
    for images, labels, _ in split.batches(BATCH, order=order):
        with torch.no_grad():
            activation = front(images)
            b, c, h, w = activation.shape
            limited = low_rank.project(low_rank.channel_rows(activation), directions.mean, directions.basis, rank)
            features = limited.view(b, h, w, c).mean((1, 2))
        optimizer.zero_grad()
        F.cross_entropy(probe(features), labels).backward()
        optimizer.step()
    return probe


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
