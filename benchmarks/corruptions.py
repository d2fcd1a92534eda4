"""Seconds that each corruption takes for all five severities of 10,000 images of 32 x 32, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/corruptions.py [IMAGES]

The last column is how many times longer severity 3 takes image by image instead of batch by batch.
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib.datasets.corruptions import CORRUPTIONS, SEVERITIES, corrupt

FULL = 10_000


def seconds(images: torch.Tensor, corruption: str, severity: int, batch: int | None = None) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    corrupt(images, corruption, severity, batch=batch)
    return time.perf_counter() - started


def main(count: int = FULL) -> None:
    """Prints a line per corruption: seconds per severity for `count` images, their sum scaled to 10,000, the ratio."""
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    few = images[:100]
    total = plain = ours = 0.0
    print(
        f"{f'seconds for {count} images':28}"
        + "".join(f"{severity:>7}" for severity in SEVERITIES)
        + f"{f'all, {FULL}':>14}{'one by one':>14}"
    )
    for corruption in CORRUPTIONS:
        corrupt(few, corruption, 3)  # imports, textures and matrices are made once
        each = [seconds(images, corruption, severity) for severity in SEVERITIES]
        ratio = seconds(few, corruption, 3, batch=1) / len(few) * count / each[2]
        plain, ours = plain + ratio * each[2], ours + each[2]
        scaled = sum(each) * FULL / count
        total += scaled
        print(f"{corruption:28}" + "".join(f"{s:7.2f}" for s in each) + f"{scaled:14.1f}{ratio:13.1f}x", flush=True)
    print(f"{'total':28}{'':35}{total:14.1f}")
    compared(
        f"{len(CORRUPTIONS)} corruptions at severity 3, against image by image",
        plain,
        ours,
        agreement="the same images: draws belong to the image",
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
