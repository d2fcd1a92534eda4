"""Images per second of training, ours against the plain loop, both in one run.

    OMP_NUM_THREADS=1 python benchmarks/training.py [-d cifar10-jpeg] [--images 1024] [--repeats 3]
    python benchmarks/training.py -d patches --ways plain float32 compiled --networks resnet20
    python benchmarks/training.py -d patches --profile                     what the time of a step goes into
    python benchmarks/training.py --accuracy resnet20 --epochs 10          both ways to the end: equal accuracy?

The plain loop: a torchvision data set of PIL images, crop, flip, ToTensor and Normalize image by image, a DataLoader with 2
workers that live as long as the training, float32. Ours: the images as one uint8 tensor on the device, augmentation of whole
batches, freed memory kept. Network, SGD with momentum, and batches of 128 are the same. Each way has a process of its own,
and they take turns. On the CPU, speed is that of processors: images per second of CPU time of the training process, and of
it with its workers, so that other work on the machine counts little. On a GPU it is that of the clock.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import alternate, compared, report
from lib.core import devices
from lib.datasets import load
from lib.datasets.batching import Batching
from lib.datasets.split import Split, fit
from lib.models import build
from lib.models.normalized import Normalized
from lib.training import loop, setup
from lib.training.losses import cross_entropy
from lib.training.optimizers import onecycle

BATCH = 128
# name -> precision, channels last (None: as exec_train.py has it for the network), compiled
OURS = {
    "float32": ("fp32", None, False),
    "first": ("fp32", False, False),
    "last": ("fp32", True, False),
    "bf16": ("bf16", True, False),
    "bf16-first": ("bf16", False, False),
    "compiled": ("fp32", True, True),
    "bf16-compiled": ("bf16", True, True),
}
KINDS = {  # of operations, by what their names in torch.profiler hold
    "convolution": ("convolution",),
    "batch normalisation": ("batch_norm",),
    "ReLU, pooling": ("threshold_backward", "clamp_min", "pool"),
}


class Pictures(torch.utils.data.Dataset):
    """What torchvision's CIFAR10 is: arrays, from each of which a PIL image is made and transformed when it is asked for."""

    def __init__(self, split: Split, transform) -> None:
        self.arrays = fit(split.images[:], 3).permute(0, 2, 3, 1).contiguous().numpy()
        self.labels, self.transform = split.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


class Plain:
    """The straightforward loop."""

    def __init__(self, name: str, split: Split, device: torch.device, epochs: int) -> None:
        mean, std = (values if len(values) == 3 else values * 3 for values in split.statistics())
        transform = transforms.Compose(
            [
                transforms.RandomCrop(split.height, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )
        self.loader = torch.utils.data.DataLoader(
            Pictures(split, transform),
            BATCH,
            shuffle=True,
            num_workers=2,
            persistent_workers=True,
            pin_memory=device.type == "cuda",
        )
        torch.manual_seed(0)
        self.network, self.device = build(name, len(split.classes)).to(device), device
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1, 0.9, weight_decay=5e-4)
        steps = epochs * len(self.loader)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: onecycle(step / steps * epochs, epochs=epochs)
        )

    def epoch(self) -> None:
        """One pass over the images."""
        self.network.train()
        for images, labels in self.loader:
            images, labels = images.to(self.device), labels.to(self.device)
            loss = F.cross_entropy(self.network(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()


class Ours:
    """`lib.training.loop` as exec_train.py uses it."""

    def __init__(
        self,
        name: str,
        split: Split,
        device: torch.device,
        epochs: int,
        precision: str,
        channels_last: bool | None = True,
        compiled: bool = False,
    ) -> None:
        self.split = split.to(device)
        torch.manual_seed(0)
        self.network = Normalized(build(name, len(split.classes)), *split.statistics()).to(device)
        if channels_last is None:
            channels_last = not setup.normalises_batches(self.network)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.trained = torch.compile(self.network) if compiled else self.network
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1, 0.9, weight_decay=5e-4)
        self.recipe = loop.Recipe(
            loss=cross_entropy(argparse.Namespace(label_smoothing=0.0)),
            seed=0,
            batching=Batching(device=device, batch_size=BATCH, channels=3, precision=precision, quiet=True),
            learning_rate=lambda time: 0.1 * onecycle(time, epochs=epochs),
            augmentation="crop-flip",
            channels_last=channels_last,
        )
        self.done = 0

    def epoch(self) -> None:
        """One pass over the images."""
        self.done += 1
        loop.train_epoch(
            self.trained, self.split, self.optimizer, self.recipe, loop.Position(epoch=self.done), loop.Stopping()
        )


def where_it_runs(ours: bool = True) -> torch.device:
    """The GPU, or the CPU; for ours with the memory kept that is freed there, as the scripts have it."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return devices.device(-1) if ours else torch.device("cpu")


def part(dataset: str, data_root: str, images: int) -> Split:
    """So many training images, spread over all of them; some come again where there are not so many."""
    split = load(dataset, data_root, "train")
    return split.subset((torch.arange(images, dtype=torch.float64) * (len(split) / images)).long())


def made(way: str, name: str, split: Split) -> "Plain | Ours":
    """A training by the way of this name; the learning rate is no matter here, only that the schedule has not ended."""
    device = where_it_runs(way != "plain")
    torch.backends.cudnn.benchmark = True
    return Plain(name, split, device, 100) if way == "plain" else Ours(name, split, device, 100, *OURS[way])


@dataclass(frozen=True)
class Spent:
    """Seconds of an epoch: of the clock, of the training process's CPU, and of the CPU with that of its workers."""

    clock: float
    own: float
    all: float


def train_on_demand(pipe: Connection, way: str, name: str, dataset: str, data_root: str, images: int) -> None:
    """A process that trains an epoch whenever it is asked to, and says what was spent, until it is told to end."""
    training = made(way, name, part(dataset, data_root, images))
    while pipe.recv():
        own, others, begin = time.process_time(), workers_seconds(), time.perf_counter()
        training.epoch()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        clock, own = time.perf_counter() - begin, time.process_time() - own
        pipe.send(Spent(clock, own, own + workers_seconds() - others))


def workers_seconds() -> float:
    """CPU seconds so far of the processes that this one has started and that live (Linux; elsewhere 0)."""
    total = 0.0
    for child in multiprocessing.active_children():
        stat = Path(f"/proc/{child.pid}/stat")
        if stat.exists():
            fields = stat.read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def asked(pipe: Connection) -> Spent:
    """What an epoch costs the process at the other end."""
    pipe.send(True)
    return pipe.recv()


def shares(training: "Plain | Ours") -> dict[str, float]:
    """Of the time of an epoch's operations, the share of each of `KINDS`, of the optimiser, and of all else."""
    training.epoch()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        training.epoch()
    events = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    found: Counter[str] = Counter()
    for event in events:
        if event.key.startswith("Optimizer.step"):
            found["optimiser"] += event.cpu_time_total
        for kind, words in KINDS.items():
            if event.key.startswith("aten::") and any(word in event.key for word in words):
                found[kind] += event.self_cpu_time_total
                break
    found["all else"] = total - sum(found.values())
    return {kind: time / total for kind, time in found.items()}


def main() -> None:
    """Prints tables per network; with --profile, shares; with --accuracy, final accuracies and seconds of both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", default="cifar10-jpeg", help="colour images of 32 x 32, or patches")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--images", type=int, default=1024, help="per epoch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "tv_resnet18"])
    parser.add_argument("--ways", nargs="+", default=["plain", "float32", "last", "bf16"], choices=["plain", *OURS])
    parser.add_argument("--profile", action="store_true", help="what the time of a step goes into instead")
    parser.add_argument("--accuracy", help="train this network to the end both ways instead")
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    device = where_it_runs()
    where = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name()
    if given.accuracy:
        _to_the_end(given, load(given.dataset, given.data_root, "train"), device, where)
    for name in () if given.accuracy else given.networks:
        if given.profile:
            for way in [way for way in given.ways if way != "plain"]:
                found = shares(made(way, name, part(given.dataset, given.data_root, given.images)))
                print(f"{name}, {way}: " + ", ".join(f"{kind} {share:.1%}" for kind, share in found.items()), flush=True)
        else:
            _speeds(given, name, device, where)


def _speeds(given, name: str, device: torch.device, where: str) -> None:
    """Prints the tables of a network."""
    from benchmarks import training as this  # under a name that other processes know, too

    load(given.dataset, given.data_root, "train")  # what is missing is said here, once
    processes, spent = multiprocessing.get_context("spawn"), {way: [] for way in given.ways}
    with ExitStack() as stack:
        pipes = {}
        for way in given.ways:
            pipes[way], other = processes.Pipe()
            words = (other, way, name, given.dataset, given.data_root, given.images)
            process = processes.Process(target=this.train_on_demand, args=words)
            process.start()
            other.close()  # so that the end of a process is noticed here
            stack.callback(process.join)
            stack.callback(pipes[way].send, False)

        def epoch(way: str) -> float:
            spent[way].append(asked(pipes[way]))
            return given.images / (spent[way][-1].clock if device.type == "cuda" else spent[way][-1].all)

        found = alternate({way: lambda way=way: epoch(way) for way in given.ways}, given.repeats)
    reference = given.ways[0]
    title = f"training {name} on {given.images} images of {given.dataset} ({where})"
    report(title, "images/s" + (" of CPUs, workers included" if device.type == "cpu" else ""), found, reference)
    if device.type == "cpu":
        alone = {way: [given.images / one.own for one in turns[1:]] for way, turns in spent.items()}
        report("the same, the training process alone", "images/s of its CPU", alone, reference)
    if {"plain", "float32"} <= set(found):
        compared(
            f"training {name} in float32, against the plain loop",
            *(statistics.median(found[way]) for way in ("plain", "float32")),
            "images/s",
            "accuracies by training.py --accuracy",
        )


def _to_the_end(given, split: Split, device: torch.device, where: str) -> None:
    test = load(given.dataset, given.data_root, "test")
    precision = "bf16" if device.type == "cuda" else "fp32"
    for title, way in (
        ("plain loop, float32", Plain(given.accuracy, split, device, given.epochs)),
        (f"ours, {precision}", Ours(given.accuracy, split, device, given.epochs, precision)),
    ):
        begin = time.perf_counter()
        for _ in range(given.epochs):
            way.epoch()
        spent = time.perf_counter() - begin
        network = way.network if isinstance(way, Ours) else Normalized(way.network, *split.statistics())
        logits = loop.predict(
            network.to(device), test.to(device), Batching(device=device, batch_size=500, channels=3, quiet=True)
        )
        accuracy = (logits.argmax(1) == test.labels).double().mean().item()
        print(
            f"{given.accuracy}, {given.epochs} epochs of {given.dataset} ({where}): {title:20} accuracy {accuracy:.4f} in "
            f"{spent:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
