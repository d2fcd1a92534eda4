"""Re-initialising every convolution from several sources: streaming against a full forward pass per cell.

    OMP_NUM_THREADS=1 python benchmarks/reinit.py [IMAGES] [TYPE] [SOURCES] [BATCH] [DEVICE]

Both ways in the same process, on the same images, in turns of one batch; counts must agree. On the CPU seconds are those
of its cores, so that other processes do not count. For 1,000 images of VGG19 the naive way takes about 10 minutes.
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib import models
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import filters
from lib.models.normalized import Normalized
from lib.reinit import fold_pool, sweep, targets


@torch.no_grad()
def naive(network, split, units, cells, batch_size, device) -> torch.Tensor:
    """(layers, sources) correct answers: load, run everything, restore."""
    correct = torch.zeros(len(units), len(cells[0]), dtype=torch.int64)
    own = {key: network.body.state_dict()[key].clone() for unit in units for key in unit.keys}
    for place, row in enumerate(cells):
        for source, cell in enumerate(row):
            network.body.load_state_dict(cell, strict=False)
            for images, labels, _ in split.batches(batch_size, device=device):
                correct[place, source] += (network(images).argmax(1) == labels).sum().cpu()
            network.body.load_state_dict({key: own[key] for key in cell}, strict=False)
    return correct


def main(count: int = 1000, name: str = "vgg19", sources: int = 3, batch_size: int = 64, device: str = "cpu") -> None:
    """Prints seconds and ratios, and whether the counts agree."""

    def network(seed: int) -> Normalized:
        torch.manual_seed(seed)
        return Normalized(models.build(name, 10, 3, 32), (0.5,) * 3, (0.25,) * 3).to(device).eval()

    trained = network(0)
    others = [
        {key: value.clone() for key, value in network(seed).body.state_dict().items() if key.startswith("features")}
        for seed in range(1, sources + 1)
    ]
    generator = torch.Generator().manual_seed(0)
    split = Split(
        "noise",
        "test",
        torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator),
        torch.randint(0, 10, (count,), generator=generator),
    )
    example = torch.zeros(2, 3, 32, 32, device=device)
    batching = Batching(device=torch.device(device), batch_size=batch_size, quiet=True)
    layers = [layer.name for layer in filters.layers(trained)]
    units = targets.find(trained, example, layers, False)
    cells = [[{key: other[key] for key in unit.keys} for other in others] for unit in units]
    ways = {"streaming": (trained, 1), "streaming, stacked": (trained, sources)}
    try:
        ways["streaming, pool folded"] = (fold_pool.fold(trained, example)[0], 1)
    except UserError:
        print(f"{name} has no pool to fold")
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds = dict.fromkeys(["naive", *ways], 0.0)
    counts = dict.fromkeys(seconds, 0)
    for part in torch.arange(count).split(batch_size):
        batch = split.subset(part)
        for way in seconds:
            begin = clock()
            if way == "naive":
                counts[way] += naive(trained, batch, units, cells, batch_size, device)
            else:
                network_, stacked = ways[way]
                counts[way] += sweep.run(network_, batch, units, cells, batching, stacked=stacked).cells[..., 0]
            seconds[way] += clock() - begin
    for way, value in seconds.items():
        print(
            f"{way:24} {value:8.1f} s   {seconds['naive'] / value:5.2f} times   counts "
            f"{'agree' if torch.equal(counts[way], counts['naive']) else 'DIFFER'}"
        )
        if way != "naive":
            compared(
                f"re-initialised layers of {name}, {way}",
                seconds["naive"],
                value,
                agreement="counts " + ("agree" if torch.equal(counts[way], counts["naive"]) else "DIFFER"),
            )
    print(
        f"{name}, {count} images of 32 x 32, {len(units)} layers x {sources} sources, batch {batch_size}, {device}, "
        f"{torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main(*(int(word) if word.isdigit() else word for word in sys.argv[1:]))
