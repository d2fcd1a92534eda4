"""Random crop and flip of whole batches against torchvision's transforms image by image, on one thread.

OMP_NUM_THREADS=1 python benchmarks/augmentation.py [IMAGES] [REPEATS]
"""

import statistics
import sys
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import alternate, compared, report, seconds
from lib.core.randomness import generator
from lib.datasets.augment import crop_flip

BATCH = 128


def main(count: int = 5000, repeats: int = 5) -> None:
    """Prints images per second of both ways and their ratio: uint8 images in, augmented floats in [0, 1] out."""
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator(0, "images"))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    transform = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )

    def whole_batches():
        draw = generator(0, "augmentation")
        for batch in images.split(BATCH):
            crop_flip(batch.float().div_(255), draw)

    def one_by_one():
        for start in range(0, count, BATCH):
            torch.stack([transform(picture) for picture in pictures[start : start + BATCH]])

    found = alternate(
        {
            "image by image (torchvision)": lambda: count / seconds(one_by_one),
            "whole batches": lambda: count / seconds(whole_batches),
        },
        repeats,
    )
    report("crop and flip", "images/s", found, "image by image (torchvision)")
    compared(
        "crop and flip of batches, against image by image",
        *map(statistics.median, found.values()),
        "images/s",
        "other draws of the same kind",
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
