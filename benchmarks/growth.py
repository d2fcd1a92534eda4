"""How the cost of every experiment grows: CPU seconds and peak memory over images, classes and layers.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [IMAGES [EXPERIMENT ...]]

One thing grows at a time, from IMAGES (default 1,000) random images of 32 px, 10 classes and a chain of 10 narrow
convolutions: 2, 4 and 8 times the images, 100 times the classes, 4 and 16 times the layers (2 and 4 times where every layer
of one network meets every layer of another: the exponent is then one of pairs too). Every run is a process of its
own that has loaded torch already; seconds are those of its processor, so that a busy machine does not count. The exponent p
of seconds = a + b size^p is fitted: 1 is a cost in proportion, whatever a start costs. Where the largest run takes less than
a second more, there is none. Memory is what the largest run takes at its peak above the smallest.
"""

import itertools
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib import models
from lib.experiments import EXPERIMENTS
from lib.models import checkpoints
from lib.models.checkpoints import Description
from lib.models.normalized import Normalized
from lib.models.parts import chain
from lib.runs import cli, script

GROWN = {
    "images": (1, 2, 4, 8),
    "classes": (1, 100),
    "layers": (1, 4, 16),
}  # times the images, classes and layers of the base
OF_PAIRS = ("similarity", "stitch, direct")
FEWER_LAYERS = (1, 2, 4)
CLASSES, LAYERS, WIDTH = 10, 10, 8
NOTICED = 1.0  # seconds, of which less is noise
GOAL = 1.05
PREDICTABLE = ("--fit-examples", 500)  # images that scores are fitted on, of which there are as many in every run

# experiment -> its words; {a}, {b}: networks, {x}, {y}: images
COMMANDS: dict[str, tuple[str, ...]] = {
    "eval": ("eval", "{a}", "-d", "{x}"),
    "ood_layers": ("ood_layers", "{a}", "-d", "{x}", "-ood", "{y}", "--baselines", "all", "--aggregate", "fisher", "maha"),
    "probe, pooled": ("probe", "{a}", "-d", "{x}", "-ood", "{y}", "-l", "relu*", "--reduce", "gap", "-e", "2"),
    "probe, flattened": ("probe", "{a}", "-d", "{x}", "-ood", "{y}", "-l", "relu*", "--reduce", "flatten", "-e", "2"),
    "similarity": ("similarity", "{a}", "{b}", "auto", "auto", "relu*", "-d", "{x}", "-n", "{images}"),
    "stitch, direct": ("stitch", "{a}", "{b}", "auto", "auto", "relu*", "relu*", "-d", "{x}", "-i", "pinv", "-e", "0"),
    "reinit": ("reinit", "{a}", "-d", "{x}", "--rand", "2"),
    "ncg": ("ncg", "{a}", "-ood", "{y}", "-d", "{x}"),
    "projections": ("projections", "{a}"),
    "train": ("train", "growth{layers}", "-d", "{x}", "-e", "1", "-dir", "t"),
}


def growth_network(classes: int, channels: int, image_size: int, layers: int) -> nn.Module:
    """A chain of so many narrow convolutions, the first of stride 4, each with a rectifier, and a linear layer."""
    modules: dict[str, nn.Module] = {}
    for number in range(layers):
        stride = {} if number else {"stride": 4}
        modules[f"conv{number}"] = nn.Conv2d(WIDTH if number else channels, WIDTH, 3, padding=1, **stride)
        modules[f"relu{number}"] = nn.ReLU()
    return chain(**modules, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(WIDTH, classes))


def network_10(classes: int, channels: int, image_size: int) -> nn.Module:
    return growth_network(classes, channels, image_size, LAYERS)


def network_40(classes: int, channels: int, image_size: int) -> nn.Module:
    return growth_network(classes, channels, image_size, 4 * LAYERS)


def network_20(classes: int, channels: int, image_size: int) -> nn.Module:
    return growth_network(classes, channels, image_size, 2 * LAYERS)


def network_160(classes: int, channels: int, image_size: int) -> nn.Module:
    return growth_network(classes, channels, image_size, 16 * LAYERS)


REGISTERED = {
    f"growth{number}": f"benchmarks.growth:network_{number}" for number in (LAYERS, 2 * LAYERS, 4 * LAYERS, 16 * LAYERS)
}


def main(images: int = 1000, *chosen: str) -> None:
    """Prints a row per experiment and thing that grows, and notes the exponents."""
    models.MODELS.update(REGISTERED)
    print(f"{images} images, {CLASSES} classes, {LAYERS} layers, and more of one of them; seconds of the processor, MiB")
    print(f"{'experiment':18}{'of':>9}  {'seconds':30}{'exponent':>9}{'MiB more':>10}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder), images)
        for name in chosen or COMMANDS:
            base = _measure(Path(folder), name, images, CLASSES, LAYERS)
            for what, times in (GROWN | ({"layers": FEWER_LAYERS} if name in OF_PAIRS else {})).items():
                if what == "images" and name == "projections":
                    continue  # it takes none
                found = [base]
                for factor in times[1:]:
                    sizes = {"images": images, "classes": CLASSES, "layers": LAYERS}
                    found.append(_measure(Path(folder), name, **sizes | {what: sizes[what] * factor}))
                seconds, peaks = zip(*found, strict=True)
                fitted = exponent(times, seconds)
                words = " ".join(f"{value:.2f}" for value in seconds)
                shown = "" if fitted is None else f"{fitted:.2f}"
                print(f"{name:18}{what:>9}  {words:30}{shown:>9}{peaks[-1] - peaks[0]:>10.0f}", flush=True)
                compared(f"{name}: seconds over {what}", seconds[0] * times[-1], seconds[-1], agreement=_verdict(fitted))


def exponent(sizes: tuple[float, ...], seconds: tuple[float, ...]) -> float | None:
    """p of seconds = a + b size^p, by least squares on what is above the first run.

    Of two runs alone the power that leads from one to the other. None where the last is less than a second above the first,
    or a run is not above it.
    """
    above = np.array(seconds[1:]) - seconds[0]
    if above[-1] < NOTICED or above.min() <= 0:
        return None
    if len(above) == 1:
        return math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])
    powers = np.linspace(0.05, 3, 296)
    errors = []
    for power in powers:
        shape = (np.array(sizes[1:]) / sizes[0]) ** power - 1
        errors.append(np.square(above - (above @ shape) / (shape @ shape) * shape).sum())
    return float(powers[int(np.argmin(errors))])


def _verdict(fitted: float | None) -> str:
    if fitted is None:
        return "less than a second more"
    return f"exponent {fitted:.2f}" + ("" if fitted <= GOAL else f", above {GOAL}")


def _make(folder: Path, images: int) -> None:
    """Random images with the labels of each number of classes, and two untrained networks of every size."""
    draw = np.random.default_rng(0)
    most = max(images * GROWN["images"][-1], 2 * CLASSES * GROWN.get("classes", (1,))[-1])  # two of every class
    for classes in (CLASSES * factor for factor in GROWN.get("classes", (1,))):
        for name in ("x", "y"):
            np.save(folder / f"{name}{classes}.npy", draw.integers(0, 256, (most, 32, 32, 3), dtype=np.uint8))
            np.save(folder / f"{name}{classes}_labels.npy", np.arange(most) % classes)
        for layers in (LAYERS * factor for factor in sorted({*GROWN["layers"], *FEWER_LAYERS})):
            for seed, name in enumerate(("a", "b")):
                torch.manual_seed(seed)
                kind, path = f"growth{layers}", folder / f"{name}-{classes}-{layers}.pt"
                network = Normalized(models.build(kind, classes, 3, 32), (0.5,) * 3, (0.25,) * 3)
                described = Description(
                    architecture=kind,
                    classes=tuple(map(str, range(classes))),
                    channels=3,
                    image_size=32,
                    mean=(0.5,) * 3,
                    std=(0.25,) * 3,
                )
                checkpoints.save(path, network, described)


def _measure(folder: Path, name: str, images: int, classes: int, layers: int) -> tuple[float, float]:
    """Seconds of the processor and peak memory in MiB of one run, in a process of its own."""
    given = {
        "a": folder / f"a-{classes}-{layers}.pt",
        "b": folder / f"b-{classes}-{layers}.pt",
        "x": f"npy={folder}/x{classes}.npy",
        "y": f"npy={folder}/y{classes}.npy",
        "images": images,
        "layers": layers,
    }
    experiment, *words = (word.format(**given) for word in COMMANDS[name])
    configuration = EXPERIMENTS[experiment].configuration
    fields = configuration.__dataclass_fields__
    words += ["--quiet", *(["-gpu", "-1", "--max-examples", str(images)] if "max_examples" in fields else [])]
    words += [str(word) for word in PREDICTABLE] if "fit_examples" in fields else []
    context = multiprocessing.get_context("fork")  # one thread runs here, and torch is loaded
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(experiment, words, str(folder), theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        raise RuntimeError(f"{experiment} {' '.join(words)} failed") from None
    process.join()
    return found


def _run(experiment: str, words: list[str], folder: str, found: Connection) -> None:
    """The experiment in a folder of its own, and what it took."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    models.MODELS.update(REGISTERED)
    with tempfile.TemporaryDirectory(dir=folder) as here, open(os.devnull, "w") as nothing:
        os.chdir(here)
        sys.stdout = nothing
        config = cli.parse(EXPERIMENTS[experiment].configuration, words)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        script.run(EXPERIMENTS, experiment, config, ["growth.py"])
        used = resource.getrusage(resource.RUSAGE_SELF)
    found.send((used.ru_utime - before, used.ru_maxrss / 1024))
    found.close()


if __name__ == "__main__":
    main(*(int(word) if word.isdigit() else word for word in itertools.islice(sys.argv, 1, None)))
