"""Reading CIFAR-5M: images per second and peak memory of epochs of fresh images, from made-up parts of the real form.

    OMP_NUM_THREADS=1 python benchmarks/cifar5m.py [IMAGES PER PART] [EPOCHS] [IMAGES PER EPOCH]

Six `part<i>.npz` are written to a temporary folder. Beside our way, a process that loads all parts into memory. Private
memory is what the process itself holds; mapped pages of the files are the kernel's cache, which it takes back at need.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib.datasets import load
from lib.training.epoch_plan import epoch_order

BATCH = 128


def main(count: int = 200_000, epochs: int = 3, images: int = 50_000) -> None:
    """Writes the parts, and measures each way in a process of its own."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "cifar5m"
        folder.mkdir()
        draw = np.random.default_rng(0)
        for part in range(6):
            np.savez(
                folder / f"part{part}.npz",
                X=draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
                Y=draw.integers(0, 10, count),
            )
        print(f"6 parts of {count} images, {6 * count * 3072 / 2**20:.0f} MiB; {epochs} epochs of {images}", flush=True)
        speeds = []
        for way in ("all in memory", "ours"):
            done = subprocess.run(
                [sys.executable, __file__, way, root, str(epochs), str(images)],
                check=True,
                text=True,
                stdout=subprocess.PIPE,
            )
            print(done.stdout, end="", flush=True)
            speeds.append(float(done.stdout.partition(" images/s")[0].split()[-1]))
    compared("reading CIFAR-5M, against all of it in memory", *speeds, "images/s", "the same order of images")


def measure(way: str, root: str, epochs: int, images: int) -> None:
    """Prints speed and the growth of private memory while reading."""
    torch.set_num_threads(1)
    before, most, begin, read = _private(), 0, time.perf_counter(), 0
    if way == "ours":
        split = load("cifar5m", root, "train", cache_dir=Path(root) / "cache")
        for epoch in range(1, epochs + 1):
            for batch, _, _ in split.batches(BATCH, order=epoch_order(len(split), epoch, 0, images)):
                read, most = read + len(batch), max(most, _private())
    else:
        parts = [np.load(file)["X"] for file in sorted(Path(root).glob("cifar5m/*.npz"))]
        everything = torch.from_numpy(np.concatenate(parts))
        for epoch in range(1, epochs + 1):
            for rows in epoch_order(len(everything), epoch, 0, images).split(BATCH):
                batch = everything[rows].permute(0, 3, 1, 2).float() / 255
                read, most = read + len(batch), max(most, _private())
    speed = read / (time.perf_counter() - begin)
    print(
        f"  {way:16} {speed:10.0f} images/s, loading included; private memory + {(most - before) / 1024:.0f} MiB", flush=True
    )


def _private() -> int:
    """The anonymous memory of this process in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise RuntimeError("this kernel does not tell anonymous memory")


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in ("ours", "all in memory"):
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(*map(int, sys.argv[1:]))
