"""The scripts run in processes that start at once: forked from a server that has imported torch already.

What the kill and concurrency tests need: dozens of processes that can be killed and whose ends are compared.
"""

import multiprocessing
import os
import runpy
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torchvision", "scipy.stats", "matplotlib.figure", "torch.utils.tensorboard"])


def start(words: list, folder: Path, log: str = "log", out: str = "", **environment: str) -> multiprocessing.Process:
    """`python exec_x.py ...` or `torchrun ...` in `folder`, its output in the file `log` there; `process.kill()` is kill -9.

    With `out`, standard output has a file of its own.
    """
    words = [str(word) for word in words]
    process = CONTEXT.Process(target=_run, args=(words, str(folder), log, out or log, environment))
    process.start()
    return process


def run(words: list, folder: Path, log: str = "log", out: str = "") -> int:
    """The exit status of the script."""
    process = start(words, folder, log, out)
    process.join(300)
    assert process.exitcode is not None, f"{words} is still at work"
    return process.exitcode


def together(words: list, folder: Path, count: int = 2) -> list[multiprocessing.Process]:
    """The processes that `torchrun` would start, without it; rank r writes to the files `out-r` and `log-r` in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    about = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(words, folder, f"log-{rank}", f"out-{rank}", RANK=str(rank), LOCAL_RANK=str(rank), **about)
        for rank in range(count)
    ]


def _run(words: list[str], folder: str, log: str, out: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environment, OMP_NUM_THREADS="1")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    os.dup2(os.open(log, flags), 2)
    os.dup2(2 if out == log else os.open(out, flags), 1)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    import torch

    torch.set_num_threads(1)
    sys.argv = words
    sys.path.insert(0, str((ROOT / words[0]).parent))
    if words[0] == "torchrun":
        runpy.run_module("torch.distributed.run", run_name="__main__")
    else:
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
