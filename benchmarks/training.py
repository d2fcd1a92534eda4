"""Images per second of training, ours against the plain loop, both in one run.

    OMP_NUM_THREADS=2 python benchmarks/training.py [-d cifar10-jpeg] [--images 1024] [--repeats 3]
    python benchmarks/training.py --accuracy resnet20 --epochs 10          both ways to the end: equal accuracy?

The plain loop: a torchvision data set of PIL images, crop, flip, ToTensor and Normalize image by image, a DataLoader with 2
workers that live as long as the training, float32. Ours: the images as one uint8 tensor on the device, augmentation of whole
batches; in float32, and in bf16 with channels last. Network, SGD with momentum, and batches of 128 are the same.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import alternate, compared, report, seconds
from lib.datasets import load
from lib.datasets.batching import Batching
from lib.datasets.split import Split, fit
from lib.models import build
from lib.models.normalized import Normalized
from lib.training import loop
from lib.training.losses import cross_entropy
from lib.training.optimizers import onecycle

BATCH = 128


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

    def __init__(self, name: str, split: Split, device: torch.device, epochs: int, precision: str) -> None:
        self.split = split.to(device)
        torch.manual_seed(0)
        self.network = Normalized(build(name, len(split.classes)), *split.statistics()).to(device)
        if precision == "bf16":
            self.network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1, 0.9, weight_decay=5e-4)
        self.recipe = loop.Recipe(
            loss=cross_entropy(argparse.Namespace(label_smoothing=0.0)),
            seed=0,
            batching=Batching(device=device, batch_size=BATCH, channels=3, precision=precision, quiet=True),
            learning_rate=lambda time: 0.1 * onecycle(time, epochs=epochs),
            augmentation="crop-flip",
            channels_last=precision == "bf16",
        )
        self.done = 0

    def epoch(self) -> None:
        """One pass over the images."""
        self.done += 1
        loop.train_epoch(
            self.network, self.split, self.optimizer, self.recipe, loop.Position(epoch=self.done), loop.Stopping()
        )


def main() -> None:
    """Prints a table per network; with --accuracy, final accuracies and seconds of both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", default="cifar10-jpeg", help="colour images of 32 x 32, or patches")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--images", type=int, default=1024, help="per epoch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "tv_resnet18"])
    parser.add_argument("--accuracy", help="train this network to the end both ways instead")
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    split = load(given.dataset, given.data_root, "train")
    where = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name()
    if given.accuracy:
        _to_the_end(given, split, device, where)
        return
    spread = (torch.arange(min(given.images, len(split)), dtype=torch.float64) * (len(split) / given.images)).long()
    part = split.subset(spread) if given.images < len(split) else split
    for name in given.networks:
        # the learning rate is no matter here, only that the schedule has not ended
        ways = {
            "plain loop, float32": Plain(name, part, device, 100),
            "ours, float32": Ours(name, part, device, 100, "fp32"),
            "ours, bf16": Ours(name, part, device, 100, "bf16"),
        }
        found = alternate(
            {key: lambda way=way: len(part) / seconds(way.epoch, device) for key, way in ways.items()}, given.repeats
        )
        report(
            f"training {name} on {len(part)} images of {given.dataset} ({where})", "images/s", found, "plain loop, float32"
        )
        compared(
            f"training {name} in float32, against the plain loop",
            *(statistics.median(found[way]) for way in ("plain loop, float32", "ours, float32")),
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
