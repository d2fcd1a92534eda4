"""CPU seconds, on one thread, for the similarity of 8 x 8 blocks of two tv_resnet18, against pair by pair.

    python benchmarks/similarity.py [IMAGES] [PAIRS]

Pair by pair runs both networks for every pair and is timed on PAIRS of the 64, evenly spread; both ways compute CKA, PWCCA
and Procrustes in float64, and their largest difference is printed. Images are noise of 32 x 32: only time depends on them.
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib import models
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.metrics import image_permutations
from lib.metrics import similarity as metrics
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.representations import passes as representations_passes
from lib.representations import similarity

BLOCKS = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
MEASURES = ("cka", "pwcca", "procrustes")
DRAWS = 100  # permutations
RANKS = [256, 224, 192, 160, 128, 96, 80, 64, 32, 16, 8, 4, 2, 1]


def main(count: int = 1000, pairs: int = 4) -> None:
    """Prints seconds, the ratio, the agreement, and what fourteen ranks of one pair cost."""
    torch.set_num_threads(1)
    split, networks = noise(count), [network(seed) for seed in (0, 1)]
    begin = time.process_time()
    layers = [represented(one, split, BLOCKS) for one in networks]
    passes = time.process_time() - begin
    ranks = {layer: [one.width] for layer, one in layers[0].items()}
    rows = {(row["layer1"], row["layer2"]): row for row in similarity.grid(*layers, MEASURES, ranks, ranks)}
    ours = time.process_time() - begin
    grid = [(one, two) for one in BLOCKS for two in BLOCKS]
    chosen = grid[:: -(-len(grid) // pairs)]
    worst, begin = 0.0, time.process_time()
    for one, two in chosen:
        slow = straightforward(networks, split, one, two)
        worst = max(worst, *(abs(slow[name] - rows[one, two][name]) for name in MEASURES))
    theirs = (time.process_time() - begin) / len(chosen) * len(grid)
    print(
        f"64 pairs, {count} images: {ours:.1f} s, of which {passes:.1f} s passes; pair by pair {theirs:.0f} s "
        f"({len(chosen)} pairs timed): {theirs / ours:.1f} times faster, largest difference {worst:.1e}"
    )
    compared(
        "similarity of 64 pairs of layers, against pair by pair", theirs, ours, agreement=f"largest difference {worst:.1e}"
    )
    null(layers, passes, count)
    seconds = []
    for ranks in ([256], RANKS):
        begin = time.process_time()
        pair = [represented(one, split, ["layer3.0"]) for one in networks]
        similarity.grid(*pair, MEASURES, {"layer3.0": ranks}, {"layer3.0": ranks})
        seconds.append(time.process_time() - begin)
    print(
        f"layer3.0: one rank {seconds[0]:.2f} s, all {len(RANKS) ** 2} pairs of {len(RANKS)} ranks {seconds[1]:.2f} s: "
        f"{seconds[1] / seconds[0]:.1f} times one rank"
    )


def null(layers: list[dict], passes: float, count: int) -> None:
    """Prints what `--null 100` adds to a run of one index, and its draws' seconds beside comparing permuted images anew."""
    permutations = image_permutations.draw(count, min(DRAWS, count - 1), torch.Generator().manual_seed(0))
    ranks = {layer: [one.width] for layer, one in layers[0].items()}
    for measure in ("cka", "procrustes"):
        spent, found = [], []
        for drawn in (None, permutations):
            begin = time.process_time()
            found.append(similarity.grid(*layers, (measure,), ranks, ranks, drawn))
            spent.append(time.process_time() - begin)
        order, begin = permutations.orders[0], time.process_time()
        anew = [layers[0], {layer: one.resampled(order) for layer, one in layers[1].items()}]
        similarity.grid(*anew, (measure,), ranks, ranks)
        plain, ours = (time.process_time() - begin) * len(permutations.orders), spent[1] - spent[0]
        print(
            f"{measure}, {len(permutations.orders)} permutations: {(passes + spent[1]) / (passes + spent[0]):.2f} times the "
            f"run without; draw by draw {plain:.0f} s, ours {ours:.1f} s: {plain / ours:.0f} times faster"
        )
        same = max(abs(one[measure] - other[measure]) for one, other in zip(*found, strict=True))
        compared(
            f"permutations of {measure}, against comparing anew", plain, ours, agreement=f"largest difference {same:.1e}"
        )


def noise(count: int) -> Split:
    """Labelled images of noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Split("noise", "test", images, torch.arange(count) % 10, classes=tuple("0123456789"))


def network(seed: int) -> Normalized:
    """An untrained tv_resnet18 for ten classes, in eval mode."""
    torch.manual_seed(seed)
    return Normalized(models.build("tv_resnet18", 10, 3, 32), (0.5,) * 3, (0.25,) * 3).eval()


def represented(one: Normalized, split: Split, layers: list[str]) -> dict:
    """The layers' representations from one pass."""
    parts = {layer: [] for layer in layers}
    for batch in representations_passes.represent(one, split, layers, Batching(quiet=True), lambda output: output):
        for layer, values in batch.items():
            parts[layer].append(values)
    return {layer: similarity.representation(torch.cat(values)) for layer, values in parts.items()}


@torch.no_grad()
def straightforward(networks: list[Normalized], split: Split, one: str, two: str) -> dict:
    """One pair: both whole networks over all images, then the indices from their definitions."""
    sides = []
    for network_, layer in zip(networks, (one, two), strict=True):
        parts = []
        with cutting.record(network_, [layer]) as outputs:
            for images, _, _ in split.batches(256):
                network_(images)
                parts.append(outputs[layer])
        sides.append(torch.cat(parts))
    flat = [side.flatten(1) for side in sides]
    same = sides[0].shape == sides[1].shape and sides[0].shape[2:] != (1, 1)
    rows = [side.movedim(1, -1).flatten(0, 2) if same else side.double().mean((2, 3)) for side in sides]
    return {"cka": metrics.linear_cka(*flat), "pwcca": metrics.pwcca(*rows), "procrustes": metrics.procrustes(*rows)}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
