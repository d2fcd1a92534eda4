"""Seconds that each corruption takes for all five severities of 10,000 images of 32 x 32, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/corruptions.py [IMAGES]
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.datasets.corruptions import CORRUPTIONS, SEVERITIES, corrupt  # noqa: E402

FULL = 10_000


def main(count: int = FULL) -> None:
    """Prints a line per corruption: seconds per severity for `count` images, and the sum scaled to 10,000."""
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    total = 0.0
    print(f"{'seconds for ' + str(count) + ' images':28}" + "".join(f"{severity:>7}" for severity in SEVERITIES)
          + f"{'all, x ' + str(FULL):>14}")
    for corruption in CORRUPTIONS:
        corrupt(images[:1], corruption, 1)      # imports, textures and matrices are made once
        seconds = []
        for severity in SEVERITIES:
            started = time.perf_counter()
            corrupt(images, corruption, severity)
            seconds.append(time.perf_counter() - started)
        scaled = sum(seconds) * FULL / count
        total += scaled
        print(f"{corruption:28}" + "".join(f"{s:7.2f}" for s in seconds) + f"{scaled:14.1f}", flush=True)
    print(f"{'total':28}{'':35}{total:14.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
