"""Shared by all tests: a suite-wide scratch run of the scripts, and one thread so that results repeat."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))

torch.set_num_threads(1)


def script(name: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs an entry script as a user would, in a working directory of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / name), *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def stopped_script(name: str, *words: str, cwd: Path, number: int, once: Path) -> subprocess.Popen:
    """Starts an entry script, sends it a signal as soon as a file is there, and waits for its end."""
    process = subprocess.Popen(
        [sys.executable, ROOT / name, *map(str, words)],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.time() + 120
    while not once.exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(timeout=120)
    return process


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A working directory with `models/a`: a lenet after two epochs of training on the built-in digits."""
    folder = tmp_path_factory.mktemp("trained")
    done = script("exec_train.py", "lenet", "-d", "digits", "-dir", "a", "-e", 2, "-lr", "3e-3", "-sf", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def grouped(tmp_path_factory) -> Path:
    """A working directory with `models/bg`: a small CNN trained on digits whose background goes with the label."""
    folder = tmp_path_factory.mktemp("grouped")
    done = script("exec_train.py", "small_cnn", "-d", "digits-bg", "-dir", "bg", "-e", 6, "-lr", "5e-3", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> Path:
    """A working directory with `models/a` and `models/b`: small_cnn of two seeds, briefly trained on digits of 16 px."""
    from lib.experiments.config.train import TrainConfig
    from lib.experiments.train import train
    from lib.runs import cli

    folder = tmp_path_factory.mktemp("pair")
    with contextlib.chdir(folder):
        for seed, name in enumerate("ab"):
            train(
                cli.parse(
                    TrainConfig,
                    [
                        "small_cnn",
                        "-d",
                        "digits",
                        "-dir",
                        name,
                        "-e",
                        "1",
                        "-lr",
                        "3e-3",
                        "-s",
                        str(seed),
                        "--image-size",
                        "16",
                        "--max-examples",
                        "300",
                        "-gpu",
                        "-1",
                        "--quiet",
                    ],
                )
            )
    return folder


@pytest.fixture(scope="session")
def siblings(tmp_path_factory) -> Path:
    """A working directory with `models/a` and `models/b`: small_cnn of two seeds after two epochs on the built-in digits."""
    folder = tmp_path_factory.mktemp("siblings")
    for seed, name in enumerate("ab"):
        done = script(
            "exec_train.py", "small_cnn", "-d", "digits", "-dir", name, "-e", 2, "-lr", "3e-3", "-s", seed, cwd=folder
        )
        assert done.returncode == 0, done.stderr
    return folder
