"""Stitching grids of two tv_resnet18, against each pair alone: CPU seconds, and images per second, on one thread.

    python benchmarks/stitching.py [IMAGES] [PAIRS]

The straightforward way handles each of the 64 pairs alone: both whole networks for the statistics, least squares over all
rows in float64, both whole networks for the evaluation; it is timed on PAIRS of them, evenly spread, and leaves out the
start of a process per pair. The floor is one pass of each network for the statistics, one of the front network and the 64
tails for the evaluation. Images are noise of 32 x 32: only time depends on them.
"""

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.similarity import BLOCKS, network, noise
from benchmarks.timing import compared
from lib.datasets.batching import Batching
from lib.models import cutting
from lib.stitching import grid, least_squares
from lib.stitching import layer as stitching_layer
from lib.stitching.grid import Donors, GridStitch

BATCH = 256


def main(count: int = 500, pairs: int = 4) -> None:
    """Prints seconds and ratios, and how far the two ways differ."""
    torch.set_num_threads(1)
    split, networks = noise(count), [network(seed) for seed in (0, 1)]
    donors = Donors(*networks, BLOCKS, BLOCKS)
    batching = Batching(device=torch.device("cpu"), batch_size=BATCH, channels=3, size=32, quiet=True)
    begin = time.process_time()
    entries = matched(donors, split, batching)
    rows, _ = grid.evaluate(donors, entries, split, batching)
    ours = time.process_time() - begin
    floor = seconds_of_the_floor(donors, entries, split)
    chosen = range(0, len(entries), -(-len(entries) // pairs))
    worst, begin = 0.0, time.process_time()
    for number in chosen:
        difference = straightforward(networks, split, entries[number])
        worst = max(worst, abs(difference - rows[number]["normalized_difference"]))
    theirs = (time.process_time() - begin) / len(chosen) * len(entries)
    print(
        f"direct matching, 64 pairs, {count} images: {ours:.1f} s, {ours / floor:.2f} times the floor; pair by pair "
        f"{theirs:.0f} s ({len(chosen)} timed): {theirs / ours:.1f} times faster, largest difference {worst:.1e}"
    )
    compared("direct matching of 64 pairs, against pair by pair", theirs, ours, agreement=f"largest difference {worst:.1e}")
    images, labels, _ = next(split.batches(BATCH))
    sums, worst = [0.0, 0.0], 0.0
    for entry in entries[::9]:  # the diagonal stands for the grid: fronts and tails of all lengths
        loss = grid.task_loss(Donors(*networks, [entry.front], [entry.end]), [entry])
        ways = {
            "ours": lambda loss=loss: loss(None, images, labels, None)[0],
            "whole": lambda entry=entry: whole_loss(networks, entry, images, labels),
        }
        least, gradients = zip(*(steps(way, entry) for way in ways.values()), strict=True)
        sums = [one + other for one, other in zip(sums, least, strict=True)]
        worst = max(worst, ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item())
    print(
        f"task-loss matching: {8 * BATCH / sums[0]:.0f} images/s against {8 * BATCH / sums[1]:.0f} with both whole "
        f"networks: {sums[1] / sums[0]:.2f} times; largest relative difference of the gradients {worst:.1e}"
    )
    compared(
        "task-loss matching, against both whole networks",
        sums[1],
        sums[0],
        agreement=f"gradients differ by {worst:.1e} of their norm",
    )


def steps(loss, entry: GridStitch, turns: int = 3) -> tuple[float, torch.Tensor]:
    """The least CPU seconds of a training step, after one that warms up, and the gradient of the stitch's weights."""
    least = float("inf")
    for turn in range(turns + 1):
        entry.stitch.zero_grad()
        begin = time.process_time()
        loss().backward()
        least = min(least, time.process_time() - begin) if turn else least
    return least, entry.stitch.weight.grad.clone()


def matched(donors: Donors, split, batching: Batching) -> list[GridStitch]:
    """Direct matching of all pairs from one pass of each network."""
    images, _, _ = next(split.batches(1))
    shapes = {layer: tuple(value.shape[1:]) for layer, value in donors.sources(images).items()}
    pairs = {(one, two): stitching_layer.Stitch("auto", shapes[one], shapes[two]) for one in BLOCKS for two in BLOCKS}
    statistics = grid.collect(donors, split, least_squares.Statistics(pairs), batching)
    for (one, two), stitch in pairs.items():
        statistics.install(stitch, one, two, least_squares.exact(statistics.problem(one, two)))
    return [GridStitch(one, two, stitch) for (one, two), stitch in pairs.items()]


@torch.no_grad()
def seconds_of_the_floor(donors: Donors, entries: list[GridStitch], split) -> float:
    """Networks and tails alone."""
    total = 0.0
    for images, _, _ in split.batches(BATCH):
        targets = donors.targets(images)
        begin = time.process_time()
        donors.front(images)
        donors.end(images)
        donors.front(images)
        for entry in entries:
            donors.tails[entry.end](targets[entry.end])
        total += time.process_time() - begin
    return total


@torch.no_grad()
def straightforward(networks, split, entry: GridStitch) -> float:
    """One pair alone; its normalised difference over the images."""
    rows = [[], []]
    for images, _, _ in split.batches(BATCH):
        with cutting.record(networks[0], [entry.front]) as fronts, cutting.record(networks[1], [entry.end]) as ends:
            networks[0](images), networks[1](images)
        rows[0].append(entry.stitch.rows_of_source(fronts[entry.front]).flatten(0, 1).double())
        rows[1].append(entry.stitch.rows_of_target(ends[entry.end]).flatten(0, 1).double())
    x, y = map(torch.cat, rows)
    solution = torch.linalg.lstsq(torch.cat([x, x.new_ones(len(x), 1)], 1), y, driver="gelsd").solution
    made = stitching_layer.Stitch("auto", entry.stitch.source, entry.stitch.target)
    made.weight.copy_(solution[:-1].T)
    made.bias.copy_(solution[-1])
    seen, difference, whole = {}, 0.0, 0.0

    def replace(module, inputs, output):
        seen["own"], seen["stitched"] = output.clone(), made(fronts[entry.front])
        return seen["stitched"]

    for images, _, _ in split.batches(BATCH):
        with cutting.record(networks[0], [entry.front]) as fronts:
            networks[0](images)
        handle = networks[1].body.get_submodule(entry.end).register_forward_hook(replace)
        networks[1](images)
        handle.remove()
        difference += (seen["stitched"] - seen["own"]).square().sum(dtype=torch.float64).item()
        whole += seen["own"].square().sum(dtype=torch.float64).item()
    return difference / whole


def whole_loss(networks, entry: GridStitch, images, labels) -> torch.Tensor:
    """The loss of a training step that runs both whole networks, the stitched activation put in by a hook."""
    with torch.no_grad(), cutting.record(networks[0], [entry.front]) as fronts:
        networks[0](images)
    handle = networks[1].body.get_submodule(entry.end).register_forward_hook(lambda *_: entry.stitch(fronts[entry.front]))
    logits = networks[1](images)
    handle.remove()
    return F.cross_entropy(logits, labels)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
