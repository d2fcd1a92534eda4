"""Timing several ways of doing one thing, in turn and repeatedly, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Comparison:
    """A job done the plain way and ours: seconds ("s") or a speed, and in what way and how far the answers agree."""

    job: str
    plain: float
    ours: float
    unit: str
    agreement: str

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.plain / self.ours if self.unit == "s" else self.ours / self.plain


COMPARISONS: list[Comparison] = []  # of this process: benchmarks/run.py gives every benchmark one of its own


def compared(job: str, plain: float, ours: float, unit: str = "s", agreement: str = "") -> None:
    """Notes a comparison for the table of benchmarks/run.py."""
    COMPARISONS.append(Comparison(job, plain, ours, unit, agreement))


def alternate(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each way returns (such as images per second), `repeats` times, the ways taking turns; the first turn is not kept.

    The first calls compile kernels, fill caches and start workers.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            value = way()
            if turn:
                found[name].append(value)
    return found


def seconds(work: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """How long `work` takes, a GPU's queue included."""
    _finish(device)
    begin = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - begin


def report(title: str, unit: str, found: Mapping[str, list[float]], reference: str) -> dict[str, float]:
    """Prints the median and the range of every way, and its ratio to the reference; returns the ratios."""
    print(f"{title}, {unit}; median (least to most) of {len(found[reference])} turns", flush=True)
    base, ratios = statistics.median(found[reference]), {}
    for name, values in found.items():
        middle = statistics.median(values)
        ratios[name] = middle / base
        print(f"  {name:34} {middle:10.1f}  ({min(values):.1f} to {max(values):.1f})  x {ratios[name]:.2f}", flush=True)
    return ratios


def _finish(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
