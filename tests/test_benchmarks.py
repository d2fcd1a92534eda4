"""The benchmarks run, and compare what they say they compare."""

import sys

import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import augmentation, cifar5m, timing  # noqa: E402


def test_the_ways_take_turns_and_the_first_turn_is_left_out(capsys):
    calls = []

    def way(name, value):
        def run():
            calls.append(name)
            return value * len(calls)
        return run
    found = timing.alternate({"slow": way("slow", 1.0), "fast": way("fast", 10.0)}, repeats=2)
    assert calls == ["slow", "fast"] * 3 and found == {"slow": [3.0, 5.0], "fast": [40.0, 60.0]}
    assert timing.report("title", "unit", found, "slow") == pytest.approx({"slow": 1.0, "fast": 50 / 4})
    assert "x 12.50" in capsys.readouterr().out


def test_augmenting_whole_batches_is_faster(capsys):
    threads = torch.get_num_threads()
    augmentation.main(512, 3)
    torch.set_num_threads(threads)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "whole batches" in last and float(last.split()[-1]) > 1.5


def test_reading_cifar5m_measures_both_ways(capfd):
    cifar5m.main(count=200, epochs=1, images=500)
    lines = capfd.readouterr().out.strip().splitlines()
    assert [line.split("  ")[1].strip() for line in lines[1:]] == ["all in memory", "ours"]
    assert all("private memory + " in line for line in lines[1:])
