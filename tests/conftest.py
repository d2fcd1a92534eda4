"""Shared by all tests: the scripts as a user runs them, networks trained once, and one thread so that results repeat."""

import contextlib
import fcntl
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import background
import inprocess
import pytest
import torch

from lib.runs import cli, records

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))

torch.set_num_threads(1)


def script(name: str, *words: str, cwd: Path, **environment: str) -> inprocess.End:
    """Runs an entry script as a user would, in a working directory of its own, but in this process."""
    return inprocess.run([name, *map(str, words)], cwd, environment)


def stopped_script(name: str, *words: str, cwd: Path, number: int, once: Path) -> inprocess.End:
    """Starts an entry script in a process, sends it a signal as soon as a file is there, and waits for its end."""
    begin = time.perf_counter()
    stopped = background.start([name, *words], cwd, "stopped-log")
    while not once.exists() and stopped.is_alive() and time.perf_counter() < begin + 120:
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.kill(stopped.pid, number)
    stopped.join(120)
    return inprocess.End(stopped.exitcode, "", (cwd / "stopped-log").read_text(), time.perf_counter() - begin)


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make(folder)` filled, for whichever of pytest's processes asked first; no test may write into it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = root / "shared" / name, root / "shared" / f"{name}.done"
    folder.parent.mkdir(exist_ok=True)
    with open(root / "shared" / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def copied(tmp_path_factory, name: str, *trainings: tuple) -> Path:
    """A copy, of a test file's own, of the folder in which these trainings were run once for all."""

    def make(folder: Path) -> None:
        for words in trainings:
            done = script("exec_train.py", *words, cwd=folder)
            assert done.returncode == 0, done.stderr

    return shutil.copytree(made_once(tmp_path_factory, name, make), tmp_path_factory.mktemp(name), dirs_exist_ok=True)


PARSER = functools.cache(cli._parser)


@pytest.fixture
def one_parser_for_a_script(monkeypatch):
    """For tests that parse hundreds of command lines: making a parser takes longer than using it."""
    monkeypatch.setattr(cli, "_parser", PARSER)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A working directory with `models/a`: a lenet after two epochs of training on the built-in digits."""
    return copied(tmp_path_factory, "trained", ("lenet", "-d", "digits", "-dir", "a", "-e", 2, "-lr", "3e-3", "-sf", 1))


@pytest.fixture(scope="module")
def grouped(tmp_path_factory) -> Path:
    """A working directory with `models/bg`: a small CNN trained on digits whose background goes with the label."""
    return copied(tmp_path_factory, "grouped", ("small_cnn", "-d", "digits-bg", "-dir", "bg", "-e", 6, "-lr", "5e-3"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A working directory with `models/a` and `models/b`: small_cnn of two seeds, briefly trained on digits of 16 px."""
    brief = ("-e", 1, "-lr", "3e-3", "--image-size", 16, "--max-examples", 300, "-gpu", -1, "--quiet")
    trainings = [("small_cnn", "-d", "digits", "-dir", name, "-s", seed, *brief) for seed, name in enumerate("ab")]
    return copied(tmp_path_factory, "pair", *trainings)


@pytest.fixture(scope="module")
def siblings(tmp_path_factory) -> Path:
    """A working directory with `models/a` and `models/b`: small_cnn of two seeds after five epochs on the digits."""
    trainings = [
        ("small_cnn", "-d", "digits", "-dir", name, "-e", 5, "-lr", "3e-3", "-s", seed) for seed, name in enumerate("ab")
    ]
    return copied(tmp_path_factory, "siblings", *trainings)


@pytest.fixture(scope="session", autouse=True)
def columns_are_declared() -> Iterator[None]:
    """Whatever a script writes in any test: its columns are declared beside its flags, and hold what they declare."""
    write = records.write

    def checked(where, config, result, **about):
        declared = set(config.columns.defined)
        written = {column for row in result.rows for column in row}
        assert not declared or written <= declared, f"{where.experiment} does not declare {sorted(written - declared)}"
        return write(where, config, result, **about)

    records.write = checked
    yield
    records.write = write


@pytest.fixture(scope="module")
def nine(tmp_path_factory) -> Path:
    """A working directory with `models/wo9`: a CNN002 after one and after two epochs on the digits without 9."""
    words = ("CNN002", "-d", "digits-wo9", "-dir", "wo9", "-e", 2, "-lr", "3e-3", "-sf", 1)
    return copied(tmp_path_factory, "nine", words)
