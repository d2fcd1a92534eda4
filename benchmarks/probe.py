"""Probing against the straightforward way, and against what its passes and matrix products cost at least.

    OMP_NUM_THREADS=1 python benchmarks/probe.py                               ranks and both sweeps
    OMP_NUM_THREADS=1 python benchmarks/probe.py ranks [IMAGES] [SLICE]        10000 256
    OMP_NUM_THREADS=1 python benchmarks/probe.py sweep gap|flatten [IMAGES]    2000
    OMP_NUM_THREADS=1 python benchmarks/probe.py memory [IMAGES]               3000

ranks: the command of the stitching paper, 2 layers x 14 ranks x 10 epochs. Straightforward: every layer, rank and epoch runs
the frozen network over the images again, projects and pools each batch and steps one probe. It is measured for one layer and
rank on SLICE of the images and scaled; the suite's way is measured whole: one pass, then all ranks of both layers side by
side. Both see the same fixed basis, start and order; the probes of the slice are compared.

sweep: 7 layers x 9 settings x 19 OOD sets, zero-shot, 20 epochs of batches of 256, rows and bootstraps included, on IMAGES
training images and a tenth as many per OOD set. The floor is the passes it needs, and the probes' matrix products at the
rate of such products, both measured here.

memory: flattened features of 7 layers that take several times --cache-gib 0.25, kept and streamed; the peak of the process.
"""

import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compared
from lib import models
from lib.core.randomness import generator
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.experiments.config.probe import ProbeConfig
from lib.experiments.probe import LEAST_BATCH, options
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.probing import feature_provider, rows, scores, study_choices, study_fit
from lib.probing.clock import Clock
from lib.probing.feature_provider import FeatureProvider
from lib.probing.feature_transform import Directions
from lib.probing.fit import Group, ProbeRecipe, fit, predictions
from lib.probing.shifts import Shift
from lib.probing.stacked_probes import Setting, initial
from lib.probing.study import ProbeData, prepare
from lib.representations import principal_components
from lib.representations.features import Storage, Tap, collect, reducers_of
from lib.runs import cli

SEVEN = ("relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
LAYERS, RANKS, EPOCHS, BATCH = ("layer2", "layer4"), (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 80, 96, 112, 128), 10, 64


def ranks(count: int = 10_000, part: int = 256) -> None:
    """Prints the seconds of both ways, their ratio, and how far their probes agree."""
    torch.manual_seed(0)
    network = Normalized(models.build("tv_resnet18", 10), (0.5,) * 3, (0.25,) * 3).eval()
    split = made_up(count)
    begin = time.perf_counter()
    collected = collect(
        network,
        split,
        reducers_of(Tap(layer, "gap") for layer in LAYERS),
        Batching(quiet=True),
        Storage(dtype="fp32"),
        moments=True,
    )
    passed = time.perf_counter() - begin
    directions = {
        layer: Directions(moments.mean, principal_components.basis(moments.covariance))
        for layer, moments in collected.moments.items()
    }
    for tap, features in collected.features.items():
        rows = torch.arange(count)
        fit(
            tap,
            [features],
            [Group(rows, split.labels, rank=rank) for rank in RANKS],
            [Setting(1e-3)],
            10,
            ProbeRecipe(epochs=EPOCHS, batch_size=BATCH),
            directions[tap.layer],
        )
    ours = time.perf_counter() - begin
    tap, rank = Tap(LAYERS[-1], "gap"), RANKS[3]
    rows = torch.arange(part)
    fast = fit(
        tap,
        [collected.features[tap]],
        [Group(rows, split.labels[:part], rank=rank)],
        [Setting(1e-3)],
        10,
        ProbeRecipe(epochs=1, batch_size=BATCH),
        directions[tap.layer],
    ).of_group(0)
    begin = time.perf_counter()
    slow = straightforward(network, split.subset(rows), tap, directions[tap.layer], rank)
    theirs = (time.perf_counter() - begin) * count / part * len(LAYERS) * len(RANKS) * EPOCHS
    answers = slow(
        principal_components.project(
            collected.features[tap].rows(), directions[tap.layer].mean, directions[tap.layer].basis, rank
        )
    ).argmax(1)
    same = (predictions(fast, collected.features[tap])[0] == answers).double().mean().item()
    print(f"{len(LAYERS)} layers x {len(RANKS)} ranks x {EPOCHS} epochs, {count} images, one thread")
    print(f"one pass and stacked probes      {ours:10.1f} s   (the pass: {passed:.1f} s)")
    print(f"a pass per layer, rank and epoch {theirs:10.1f} s   (scaled from {part} images, one layer, rank and epoch)")
    print(f"ratio {theirs / ours:.0f}; same answers on {same:.4f} of the images")
    compared(
        "probes of 14 ranks of 2 layers, against a pass for each", theirs, ours, agreement=f"{same:.4f} of answers equal"
    )


def sweep(reduce: str, count: int = 2000) -> None:
    """Prints the seconds of a whole run beside its floor, and of passes in the straightforward way."""
    shifts, settings, epochs, batch = 19, 9, 20, 256
    with tempfile.TemporaryDirectory() as cache:
        config = swept(reduce, cache, ("-e", epochs, "-b", batch))
        begin = time.perf_counter()
        provider, made, seconds = probed(config, count, shifts)
        ours = time.perf_counter() - begin
    images = count + shifts * (count // 10)
    split = made_up(512)
    begin = time.perf_counter()
    with torch.no_grad():
        for part, _, _ in split.batches(batch):
            provider.network(part)
    passes = (time.perf_counter() - begin) / len(split) * images
    dims = [provider.dims[tap] for tap in provider.layout.taps]
    products = sum(4 * 0.9 * count * epochs * dim * settings * 10 / rate(batch, dim, settings * 10) for dim in dims)
    products += sum(2 * (images - 0.9 * count) * dim * settings * 10 / rate(batch, dim, settings * 10) for dim in dims)
    print(
        f"{len(dims)} layers ({sum(dims)} features by {reduce}) x {settings} settings x {shifts} OOD sets, {epochs} "
        f"epochs, {count} + {shifts} x {count // 10} images; {len(made)} rows"
    )
    print(f"the whole run                   {ours:10.1f} s   ({', '.join(f'{k} {v:.1f}' for k, v in seconds.items())})")
    print(f"the forward passes it needs     {passes:10.1f} s   ratio {ours / passes:.2f}")
    print(f"and the probes' matrix products {products:10.1f} s   ratio {ours / (passes + products):.2f}")
    plain = passes / images * (count * epochs * settings + shifts * (count // 10) * settings)
    print(
        f"straightforward, passes alone   {plain:10.1f} s   ratio {plain / ours:.0f}   (every setting and epoch runs the "
        "network again; scaled)"
    )
    compared(
        f"probes of 9 settings on 19 shifts, {reduce}, against a pass for each epoch",
        plain,
        ours,
        agreement=f"{ours / (passes if reduce == 'gap' else passes + products):.2f} times the floor",
    )


def everything(count: int = 10_000, part: int = 256, swept: int = 2000) -> None:
    """Ranks and both sweeps."""
    ranks(count, part)
    for reduce in ("gap", "flatten"):
        sweep(reduce, swept)


def memory(count: int = 3000) -> None:
    """Prints the peak memory of the process while features are mapped, and while they are streamed."""
    for name, words in (("kept and mapped", ()), ("streamed", ("--cache-limit", 0))):
        with tempfile.TemporaryDirectory() as cache:
            config = swept("flatten", cache, ("-e", 1, "-b", 256, "--cache-gib", 0.25, *words))
            peak, done = [0.0], threading.Event()
            watcher = threading.Thread(target=watch, args=(peak, done))
            watcher.start()
            provider, _, _ = probed(config, count, 3)
            done.set()
            watcher.join()
        features = (count + 3 * (count // 10)) * sum(provider.dims.values()) * 2 / 2**30
        print(f"{name:16} {features:.2f} GiB of features, --cache-gib 0.25: peak {peak[0]:.2f} GiB of memory of its own")


def swept(reduce: str, cache: str, words: tuple) -> ProbeConfig:
    return cli.parse(
        ProbeConfig,
        [
            str(word)
            for word in (
                "model",
                "-ood",
                "made-up",
                "-l",
                *SEVEN,
                "--reduce",
                reduce,
                "-lr",
                1e-4,
                1e-3,
                1e-2,
                "--l1",
                0,
                1e-3,
                1e-2,
                "--quiet",
                "--cache-dir",
                cache,
                *words,
            )
        ],
    )


def probed(config: ProbeConfig, count: int, shifts: int) -> tuple[FeatureProvider, list[dict], dict[str, float]]:
    """A study of made-up data: where its features came from, its rows, and the seconds of its stages."""
    torch.manual_seed(0)
    network = Normalized(models.build("cifar_resnet18_maxpool", 10, 3, 32), (0.5,) * 3, (0.25,) * 3).eval()
    sets = [Shift(f"shift {number}", made_up(count // 10, number + 1), "made-up:test") for number in range(shifts)]
    data = ProbeData("made-up", made_up(count), "made-up:train", sets, tuple("0123456789"), 3, 32)
    warnings.simplefilter("ignore")
    clock, batching = Clock(), Batching(batch_size=max(config.batch_size, LEAST_BATCH), channels=3, size=32, quiet=True)
    study = prepare(options(config, batching), "trained", network, data)
    provider = feature_provider.plan(study, clock)
    fitted = study_fit.fit(study, provider, clock)
    scored = scores.score(study, provider, fitted, clock)
    with clock.stage("choosing"):
        made = rows.rows(study, provider, fitted.bank, scored, study_choices.choose(study, fitted, scored))
    return provider, made, clock.seconds


def rate(batch: int, dim: int, width: int, repeats: int = 3) -> float:
    """Operations per second of the products of a step: (batch, dim) x (dim, width), and its gradient's."""
    features, weights = torch.randn(batch, dim), torch.randn(width, dim)
    error, best = torch.randn(batch, width), 0.0
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        features @ weights.T
        error.T @ features
        best = max(best, 4 * batch * dim * width / (time.perf_counter() - begin))
    return best


def watch(peak: list[float], done: threading.Event) -> None:
    """Keeps the largest memory, in GiB, that belongs to the process alone: mapped files are not counted."""
    while not done.wait(0.01):
        with open("/proc/self/status") as status:
            own = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
        peak[0] = max(peak[0], own / 2**20)


def made_up(count: int, seed: int = 0) -> Split:
    """Random images with random labels: what they show does not change the time."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draw)
    return Split("made up", "all", images, torch.randint(0, 10, (count,), generator=draw), classes=tuple("0123456789"))


def straightforward(network, split: Split, tap: Tap, directions: Directions, rank: int) -> torch.nn.Linear:
    """One epoch of one probe, the network run for every batch and its activation projected before it is pooled."""
    front = cutting.cut(network, tap.layer)[0]
    start = initial(len(directions.mean), 10, [0], 1, f"{tap.layer}/{tap.reduce}")
    probe = torch.nn.Linear(len(directions.mean), 10)
    probe.weight.data, probe.bias.data = start.weights[0, 0].clone(), start.biases[0, 0].clone()
    optimizer = torch.optim.Adam(probe.parameters(), lr=1e-3)
    order = torch.randperm(len(split), generator=generator(0, "probe order", 1))
    for images, labels, _ in split.batches(BATCH, order=order):
        with torch.no_grad():
            activation = front(images)
            b, c, h, w = activation.shape
            limited = principal_components.project(
                principal_components.channel_rows(activation), directions.mean, directions.basis, rank
            )
            features = limited.view(b, h, w, c).mean((1, 2))
        optimizer.zero_grad()
        F.cross_entropy(probe(features), labels).backward()
        optimizer.step()
    return probe


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *rest = sys.argv[1:] or ["all"]
    ways = {"all": everything, "ranks": ranks, "sweep": sweep, "memory": memory}
    ways[what](*[int(word) if word.isdigit() else word for word in rest])
