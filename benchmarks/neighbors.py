"""The class-wise table of exact neighbours against faiss.IndexFlatL2 on the same cores, in one run.

    OMP_NUM_THREADS=1 python benchmarks/neighbors.py [QUERIES [TRAINING]]

Prints seconds, the ratio, and how many of the neighbours agree: images of CIFAR-10's and MNIST's shapes, drawn at random
around class means, so that no data set is needed. faiss answers in float32, and the nearest over all classes only. Where
MNIST is there ($SHARED_DATA, ../shared/data), also the tables that serve all ten held-out digits: test against training
images, and these among themselves.
"""

import os
import sys
import time
from pathlib import Path

import faiss
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib import datasets
from lib.nearest_category.neighbors import Points, table

SHAPES = {"CIFAR-10's": (3, 32, 32), "MNIST's": (1, 28, 28)}


def images(n: int, shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, c, h, w) uint8 around ten means, and labels (n,)."""
    means = torch.randint(40, 216, (10, *shape), generator=torch.Generator().manual_seed(0)).float()
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (n,), generator=generator)
    found = torch.empty(n, *shape, dtype=torch.uint8)
    for rows in torch.arange(n).split(2000):
        noise = torch.randn(len(rows), *shape, generator=generator) * 40
        found[rows] = (means[labels[rows]] + noise).clamp(0, 255).to(torch.uint8)
    return found, labels


def main(queries: int = 2000, training: int = 50_000) -> None:
    """Prints a line per shape."""
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    print(f"{queries} queries, {training} training images, {threads} threads")
    for name, shape in SHAPES.items():
        (known, labels), (asked, _) = images(training, shape, 1), images(queries, shape, 2)
        begin = time.perf_counter()
        found = table(Points("queries", asked), Points("training", known), labels, 10).nearest()
        ours = time.perf_counter() - begin
        begin = time.perf_counter()
        index = faiss.IndexFlatL2(known[0].numel())
        index.add(known.flatten(1).float().numpy())
        _, places = index.search(asked.flatten(1).float().numpy(), 1)
        theirs = time.perf_counter() - begin
        agree = (torch.from_numpy(places[:, 0]) == found.indices).double().mean().item()
        print(
            f"{name:>10} shape: table {ours:.2f} s, faiss {theirs:.2f} s, ratio {theirs / ours:.1f}, "
            f"{100 * agree:.2f} % of faiss's neighbours are the exact ones",
            flush=True,
        )
        compared(f"exact neighbours, {name} shape, against faiss", theirs, ours, agreement=f"{100 * agree:.2f} % equal")
    root = Path(os.environ.get("SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if (root / "MNIST").is_dir() and training >= 50_000:  # not for a look at small sizes
        mnist(root)


def mnist(root: Path) -> None:
    """Prints how long the two tables of all held-out digits take."""
    training, test = (datasets.load("mnist", root, part) for part in ("train", "test"))
    known = Points("train", training.images)
    begin = time.perf_counter()
    of_test = table(Points("test", test.images), known, training.labels, 10)
    seconds = time.perf_counter() - begin
    of_training = table(known, known, training.labels, 10, same=True)
    whole = time.perf_counter() - begin
    nines = [
        part.nearest(without=9).squared[split.labels == 9].sum().item()
        for part, split in ((of_training, training), (of_test, test))
    ]
    print(
        f"MNIST, all ten held-out digits: {whole:.1f} s ({seconds:.1f} s of them for the test images); "
        f"sum of squares of the nines {sum(nines):,}",
        flush=True,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
