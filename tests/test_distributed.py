"""Training in two processes under torchrun: the losses of one process, one voice, and continuing after a death."""

import json
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import background
import pytest
import torch
from conftest import ROOT, script

NETWORKS = """
from torch import nn

def plain(classes, channels, image_size):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(),
                         nn.Linear(8 * (image_size // 4) ** 2, classes))

def batchnorm(classes, channels, image_size):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                         nn.Linear(8 * (image_size // 2) ** 2, classes))
"""
# 146 images in batches of 48: the last one has two, a row for each process
COMMON = (
    "-d",
    "digits",
    "-dir",
    "a",
    "-b",
    "48",
    "-gpu",
    "-1",
    "-o",
    "sgd",
    "-lr",
    "0.05",
    "--max-examples",
    "146",
    "--augmentation",
    "crop",
)


@dataclass(frozen=True)
class Run:
    """`torchrun --nproc-per-node 2 exec_train.py ...` in a folder; its launcher is forked, its processes start Python."""

    launcher: multiprocessing.Process
    folder: Path

    def ended(self) -> tuple[int, str, str]:
        """Exit status, standard output and error, once it has ended."""
        self.launcher.join(240)
        return self.launcher.exitcode, (self.folder / "out").read_text(), (self.folder / "log").read_text()


def torchrun(*words, cwd, processes: int = 2) -> Run:
    """Starts it at a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["torchrun", "--nproc-per-node", processes, "--master-port", port, ROOT / "exec_train.py", *words]
    return Run(background.start(command, cwd, out="out"), cwd)


def rows(folder) -> list[dict]:
    return json.loads(next((folder / "results" / "train").glob("*.json")).read_text())["rows"]


def made(tmp_path, name: str):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "networks.py").write_text(NETWORKS)
    return folder


def test_two_processes_have_the_losses_of_one(tmp_path):
    words = ("networks.py:plain", *COMMON, "-e", "3", "--grad-clip", "1.0", "--momentum", "0.9")
    one, two = made(tmp_path, "one"), made(tmp_path, "two")
    together = torchrun(*words, cwd=two)
    alone = script("exec_train.py", *words, cwd=one)
    status, out, err = together.ended()
    assert alone.returncode == 0 and status == 0, err
    for single, double in zip(rows(one), rows(two), strict=True):
        assert double["processes"] == 2 and single["processes"] == 1 and double["batchnorm"] is None
        for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            assert double[key] == pytest.approx(single[key], abs=1e-5), key
    first, second = (torch.load(folder / "models" / "a" / "model_3.pt", weights_only=True) for folder in (one, two))
    assert all(torch.allclose(first[key], second[key], atol=1e-5) for key in first)
    assert err.count("epoch 3/3") == 1 and out.strip().splitlines()[-1].endswith(".json")  # one process speaks
    status, out, err = torchrun(*words, cwd=two).ended()
    assert status == 0 and err.count("already there") == 1 and len(out.strip().splitlines()) == 1, err


def test_a_killed_process_ends_the_run_and_the_same_command_continues(tmp_path):
    """With batch normalisation: running statistics are those of all processes, so that one can go on alone."""
    words = ("networks.py:batchnorm", *COMMON, "-e", "300")
    folder = made(tmp_path, "run")
    first = torchrun(*words, cwd=folder)
    deadline = time.time() + 120
    while not (folder / "models" / "a" / "resume.pt").exists() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(worker(first.launcher.pid, rank=1), signal.SIGKILL)
    status, _, err = first.ended()
    assert status != 0
    assert err.count("the same command continues") == 1, err
    assert not list((folder / "results").rglob("*.json"))
    done = torch.load(folder / "models" / "a" / "resume.pt", weights_only=True)["position"]["epoch"]
    continued = torchrun(*words, cwd=folder)
    deadline = time.time() + 120
    while epoch_reached(folder) < done + 2 and continued.launcher.is_alive() and time.time() < deadline:
        time.sleep(0.05)
    os.kill(continued.launcher.pid, signal.SIGTERM)  # as a scheduler ends a job
    _, _, err = continued.ended()
    assert f"continuing models/a in epoch {done}" in err and err.count("stopped by SIGTERM") == 1, err
    position = torch.load(folder / "models" / "a" / "resume.pt", weights_only=True)["position"]
    assert position["epoch"] >= done + 2
    tensors = json.loads((folder / "models" / "a" / "best.json").read_text())["metrics"]
    assert tensors["batchnorm"] == "per process" and tensors["processes"] == 2


def epoch_reached(folder) -> int:
    try:
        return torch.load(folder / "models" / "a" / "resume.pt", weights_only=True)["position"]["epoch"]
    except (RuntimeError, OSError):
        return 0


def worker(parent: int, rank: int) -> int:
    """The process of that rank among torchrun's children."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                variables = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if int(status[1]) == parent and f"RANK={rank}".encode() in variables:
                return int(entry)
    raise AssertionError("there is no such process")


def test_what_several_processes_cannot_do_is_said(monkeypatch, tmp_path):
    from lib.core import distributed
    from lib.core.errors import UserError
    from lib.experiments.config.train import TrainConfig
    from lib.training import setup

    config = TrainConfig(model_type="resnet20", directory="a", sync_batchnorm=True)
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    with pytest.raises(UserError, match="--sync-batchnorm: PyTorch has"):
        setup.synchronise(config, network, distributed.Processes(0, 2), torch.device("cpu"))
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match="-gpu 0: under torchrun"):
        TrainConfig(model_type="resnet20", directory="a", gpu=0)
    done = script("exec_data.py", "list", cwd=tmp_path)
    assert done.returncode == 2 and "not with torchrun" in done.stderr


def test_every_row_of_a_batch_belongs_to_one_process():
    from lib.core.distributed import Processes

    parts = [Processes(rank, 3).rows(torch.arange(10)) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == list(range(10))


def test_augmentation_draws_for_the_whole_batch():
    from lib.core.distributed import Processes
    from lib.core.randomness import generator
    from lib.datasets.augment import crop_flip

    def augment(images, step):
        return crop_flip(images, generator(0, "augmentation", step))

    images = torch.rand(7, 3, 8, 8)
    whole = augment(images, 4)
    for rank in range(2):
        processes = Processes(rank, 2)
        assert torch.equal(processes.augmented(augment, processes.rows(images), 7, 4), processes.rows(whole))
