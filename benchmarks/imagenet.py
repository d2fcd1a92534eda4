"""ImageNet's sizes on one machine: reading a tree of JPEGs, and three experiments on a ResNet-50 at 224 px.

    OMP_NUM_THREADS=1 python benchmarks/imagenet.py [IMAGES [EXAMPLES [WORKERS [REPEATS]]]]

IMAGES (default 20,000) generated JPEGs of 500 x 375 in 1,000 classes are written to a temporary folder. Their decoding,
resizing, cropping and feeding is timed against torchvision's ImageFolder and DataLoader with the same transform and as many
workers (default 1), in turns, and so is --decoder torchvision; seconds are those of the processor, of workers too. Then the
seconds to the first batch, from the name of the set on, and `exec_ood_layers.py`, `exec_probe.py --reduce gap` and
`exec_reinit.py` on EXAMPLES (default 256) images each, with the peak of their memory (goal: below 6 GiB); EXAMPLES 0 leaves
them out.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import timing
from benchmarks.timing import compared
from lib import datasets, models
from lib.datasets.split import Split
from lib.models import checkpoints
from lib.models.checkpoints import Description
from lib.models.normalized import Normalized

ROOT = Path(__file__).resolve().parents[1]
CLASSES, SIZE, BATCH = 1000, (500, 375), 64
SPEED_GOAL, FIRST_GOAL, MEMORY_GOAL = 1.3, 5.0, 6.0  # times, seconds, GiB
FED = 512  # images of a turn

COMMANDS = {
    "exec_ood_layers.py": ("-ood", "uniform", "--fit-examples", "{examples}"),
    "exec_probe.py": ("--protocol", "id", "-l", "layer?", "--reduce", "gap", "-e", "2"),
    "exec_reinit.py": ("--rand", "1", "-l", "layer4.2.conv*"),
}


def main(images: int = 20_000, examples: int = 256, workers: int = 1, repeats: int = 3) -> None:
    """Prints images per second, the seconds to the first batch, and what the experiments take."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "data" / "jpegs" / "train"
        begin = time.perf_counter()
        make(tree, images)
        print(f"{images} JPEGs of {SIZE[0]} x {SIZE[1]} in {CLASSES} classes, made in {time.perf_counter() - begin:.0f} s")
        reading(tree, min(images, FED), workers, repeats)
        first_batch(tree, Path(folder))
        if examples:
            make(tree.with_name("test"), max(examples, CLASSES), seed=1)
            experiments(Path(folder), examples)


def make(tree: Path, images: int, seed: int = 0) -> None:
    """The tree: smooth colours with grain, compressed as photographs are, to some 50 KB each."""
    draw = np.random.default_rng(seed)
    for number in range(images):
        name = f"{number % CLASSES:04d}"
        if number < CLASSES:
            (tree / name).mkdir(parents=True)
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        grain = draw.integers(-24, 25, (SIZE[1], SIZE[0], 1), dtype=np.int16)
        picture = np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(tree / name / f"{number:06d}.jpg", quality=80)


def reading(tree: Path, count: int, workers: int, repeats: int) -> None:
    """Images per second of both ways, and whether they give the same pixels."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    transform = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()])
    whole = ImageFolder(str(tree), transform)
    positions = (torch.arange(count) * len(whole) // count).tolist()
    theirs = torch.utils.data.DataLoader(torch.utils.data.Subset(whole, positions), BATCH, num_workers=workers)

    def load(decoder: str) -> Split:
        return datasets.load(f"folder={tree}", tree.parent, "all", image_size=224, most=count, decoder=decoder)

    ours, faster = load("pil"), load("torchvision")

    def speed(feed: Callable[[], Iterable]) -> float:
        """Images per second of all processors."""
        begin = _processor_seconds()
        for _ in feed():
            pass
        return count / (_processor_seconds() - begin)

    plain, others = "ImageFolder and DataLoader", "--decoder torchvision"
    ways = {
        plain: lambda: speed(lambda: (images.float().div_(255) for images, _ in theirs)),
        "ours": lambda: speed(lambda: ours.batches(BATCH, workers=workers)),
        others: lambda: speed(lambda: faster.batches(BATCH, workers=workers)),
    }
    expected = torch.cat([images for images, _ in theirs])
    same = torch.equal(torch.cat(list(ours.stored(batch_size=BATCH))), expected)
    off = (torch.cat(list(faster.stored(batch_size=BATCH))).short() - expected.short()).abs()
    found = timing.alternate(ways, repeats)
    timing.report(f"reading {count} JPEGs with {workers} workers", "images per second of processors", found, plain)
    agreements = {
        "ours": "the same pixels" if same else "OTHER PIXELS",
        others: f"{(off > 0).double().mean():.2%} of the pixels off, by {int(off.max())} at most",
    }
    for way, agreement in agreements.items():
        print(f"  {way}: {agreement} (goal: {SPEED_GOAL} times)", flush=True)
        speeds = [statistics.median(found[name]) for name in (plain, way)]
        compared(f"reading JPEGs, {way}, against ImageFolder", *speeds, "images/s", agreement)


def _processor_seconds() -> float:
    """Of this process, and of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def first_batch(tree: Path, folder: Path) -> None:
    """Seconds from the name of the set to the first batch, in a process that has loaded torch."""
    begin, used = time.perf_counter(), _processor_seconds()
    split = datasets.load(f"folder={tree}", tree.parent, "all", image_size=224, cache_dir=folder / "cache")
    batches = iter(split.batches(BATCH, workers=1))
    next(batches)
    seconds = time.perf_counter() - begin
    del batches
    used = _processor_seconds() - used
    print(
        f"first batch of {len(split)} images after {seconds:.1f} s (goal {FIRST_GOAL:g} s), {used:.1f} s of the processor "
        "with what the worker had decoded ahead",
        flush=True,
    )
    compared("first batch of a tree of JPEGs, against the goal", FIRST_GOAL, seconds)


def experiments(folder: Path, examples: int) -> None:
    """Seconds of the processor and the peak of memory of three experiments, each a command of its own."""
    torch.manual_seed(0)
    kind, grey = "tv:resnet50", ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    network = Normalized(models.build(kind, CLASSES, 3, 224), *grey)
    described = Description(
        architecture=kind,
        classes=tuple(f"{number:04d}" for number in range(CLASSES)),
        channels=3,
        image_size=224,
        mean=grey[0],
        std=grey[1],
        dataset="jpegs",
    )
    checkpoints.save(folder / "models" / "a" / "model_1.pt", network, described)
    for name, words in COMMANDS.items():
        command = [sys.executable, ROOT / name, "models/a/model_1.pt", "-d", "jpegs", *words]
        command += ["--max-examples", "{examples}", "-gpu", "-1", "--quiet"]
        done = subprocess.Popen(
            [str(word).format(examples=examples) for word in command], cwd=folder, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(done.pid, 0)
        done.returncode = os.waitstatus_to_exitcode(status)
        if done.returncode:
            raise RuntimeError(f"{name} failed")
        seconds, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
        print(f"{name:20} {examples} images: {seconds:8.1f} s of the processor, peak {peak:.2f} GiB", flush=True)
        compared(f"{name}: peak memory at 224 px, against the goal", MEMORY_GOAL, peak, "s", f"{seconds:.0f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
