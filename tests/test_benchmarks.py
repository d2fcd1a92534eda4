"""The benchmarks run, and compare what they say they compare."""

import json
import multiprocessing
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import background
import pytest
import torch
from conftest import ROOT, script

sys.path.insert(0, str(ROOT))

from benchmarks import augmentation, cifar5m, growth, imagenet, projections, reinit, run, timing, training


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    """The processes that benchmarks start have torch already."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda way: background.CONTEXT)

    def run(words, **_):
        folder = Path(words[3])
        assert background.run(words[1:], folder, out="out") == 0, (folder / "log").read_text()
        return SimpleNamespace(stdout=(folder / "out").read_text())

    monkeypatch.setattr(cifar5m, "subprocess", SimpleNamespace(run=run, PIPE=None))


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


def test_streaming_counts_what_full_passes_count(capsys):
    reinit.main(count=12, name="lenet", sources=2, batch_size=8)
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "lenet has no pool to fold" and lines[-1].startswith("lenet, 12 images of 32 x 32, 6 layers x 2 ")
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["naive", "streaming", "streaming, stacked"]
    assert all(line.endswith("counts agree") for line in lines[1:-1])


def test_projections_are_timed_beside_reading_the_files(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    projections.main(str(tmp_path), "lenet")
    reading, whole = capsys.readouterr().out.strip().splitlines()
    assert reading.startswith("hash and torch.load of 5 files") and " times   reading " in whole


@pytest.mark.parametrize("power", [0.5, 1.0, 1.7])
def test_exponents_of_growth_are_found_whatever_a_start_costs(power):
    sizes = (1, 2, 4, 8)
    seconds = tuple(3 + 2 * size**power for size in sizes)
    assert growth.exponent(sizes, seconds) == pytest.approx(power, abs=0.011)
    assert growth.exponent((1, 100), (2.0, 20.0)) == pytest.approx(0.5)
    assert growth.exponent(sizes, (3.0, 3.2, 3.5, 3.9)) is None and growth.exponent(sizes, (3.0, 2.9, 5.0, 9.0)) is None


def test_growth_measures_every_size_in_a_process_of_its_own(capsys, monkeypatch):
    monkeypatch.setattr(growth, "GROWN", {"images": (1, 2), "layers": (1, 4)})
    growth.main(20, "eval")
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["eval", "images"], ["eval", "layers"]]
    assert all(0 < float(value) < 60 for line in lines[2:] for value in line.split()[2:4])


def test_reading_jpegs_gives_torchvisions_pixels_and_both_speeds(capsys, monkeypatch):
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    threads = torch.get_num_threads()
    imagenet.main(images=12, examples=0, workers=1, repeats=1)
    torch.set_num_threads(threads)
    text = capsys.readouterr().out
    assert (
        "ours: the same pixels" in text and "pixels off, by 1 at most" in text and "first batch of 12 images after" in text
    )


def busy(ready, done):
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    ready.set()
    done.wait(60)


def test_the_time_of_a_trainings_workers_counts_while_they_live():
    processes = multiprocessing.context.ForkContext()  # what it runs needs no library
    before, ready, done = training.workers_seconds(), processes.Event(), processes.Event()
    worker = processes.Process(target=busy, args=(ready, done))
    worker.start()
    assert ready.wait(60)
    spent = training.workers_seconds() - before
    done.set()
    worker.join()
    assert 0.25 < spent < 2


def test_what_the_time_of_a_step_goes_into_is_all_of_it(tmp_path):
    images = training.part("patches", str(tmp_path), 64)
    found = training.shares(training.Ours("small_cnn", images, torch.device("cpu"), 100, *training.OURS["float32"]))
    assert set(found) == {*training.KINDS, "optimiser", "all else"} and sum(found.values()) == pytest.approx(1)
    assert max(found, key=found.get) == "convolution" and min(found.values()) > 0


def test_a_benchmark_without_its_data_is_left_out(tmp_path):
    done = script("benchmarks/run.py", "training", cwd=tmp_path)
    assert done.returncode == 1 and "training is left out: cifar10-jpeg: no such data set" in done.stderr
    assert "none of the benchmarks could run" in done.stderr and "Traceback" not in done.stderr


def test_one_table_has_every_benchmark():
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"run", "timing"}
    assert files == set(run.BENCHMARKS)
    noted = [name for name in files if "compared(" in (ROOT / "benchmarks" / f"{name}.py").read_text()]
    assert set(noted) == files


def test_the_table_is_kept_as_a_record_with_ratio_and_agreement(tmp_path):
    done = script("benchmarks/run.py", "reinit", "--small", "--name", "look", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results" / "benchmark" / "look.json").read_text())["rows"]
    assert len(rows) == 2 and all(row["agreement"] == "counts agree" for row in rows)
    assert all(row["ratio"] == pytest.approx(row["plain"] / row["ours"]) for row in rows)
