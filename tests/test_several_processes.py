"""Experiments in two processes: the rows of one, one voice, one sentence where one fails, and going on after a kill."""

import json
import shutil
import signal

import background
import pytest
import torch
from conftest import ROOT, script

from lib.core.distributed import Processes
from lib.core.errors import Interrupted
from lib.runs import records
from lib.tables import rerun

MODEL = "models/a/model_1.pt"
COMMANDS = {
    "eval": ("exec_eval.py", MODEL, "-b", "48"),
    "eval under attack": ("exec_eval.py", MODEL, "--attack", "pgd", "--eps", "0.1", "-b", "48", "--max-examples", "100"),
    "OOD layers": (
        *("exec_ood_layers.py", MODEL, "-ood", "patches", "digits-c/fog-5", "--max-examples", "150", "-b", "32"),
        *("--baselines", "all", "--aggregate", "fisher", "maha", "--choose", "jigsaw", "--layer-detectors", "knn"),
    ),
    "probes": (
        *("exec_probe.py", MODEL, "-ood", "digits-c/fog-5", "-l", "cuts", "-e", "3", "--max-examples", "150"),
        *("--ranks", "2", "--reduce", "gap"),
    ),
    "probes of principal components": (
        *("exec_probe.py", MODEL, "-ood", "digits-c/fog-5", "-l", "cuts", "-e", "3", "--max-examples", "150"),
        *("--reduce", "pca:8"),
    ),
    "streamed probes": (
        *("exec_probe.py", MODEL, "-ood", "digits-c/fog-5", "-l", "cuts", "-e", "2", "--max-examples", "150"),
        *("--reduce", "gap", "--cache-limit", "0.000001"),
    ),
    "re-initialisation": ("exec_reinit.py", MODEL, "--rand", "2", "--max-examples", "150", "-b", "32"),
    "nearest categories": (
        *("exec_ncg.py", MODEL, "-ood", "uniform-grey", "--space", "pixel", "feature", "--radius", "3", "-b", "2"),
        *("--max-examples", "30"),
    ),
}


def working(trained, folder):
    """A folder with the trained networks, and no records."""
    shutil.copytree(trained / "models", folder / "models")
    return folder


def ended(processes) -> list[int]:
    for process in processes:
        process.join(240)
    return [process.exitcode for process in processes]


def text(folder, name: str) -> str:
    return (folder / name).read_text()


def record(folder) -> dict:
    (path,) = (folder / "results").rglob("*.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_two_processes_have_the_rows_of_one(name, trained, tmp_path):
    one, two = (working(trained, tmp_path / name) for name in ("one", "two"))
    status = ended(background.together(COMMANDS[name], two))
    assert status == [0, 0], text(two, "log-0") + text(two, "log-1")
    alone = script(*COMMANDS[name], cwd=one)
    assert alone.returncode == 0, alone.stderr
    first, second = record(one), record(two)
    assert rerun.differences(first["rows"], second["rows"], records.tolerance(first)) == []
    assert first["rows"] and text(two, "out-1") == text(two, "log-1") == ""  # one process speaks
    assert text(two, "out-0").strip().splitlines()[-1].endswith(".json")


def test_what_fails_in_one_process_is_one_sentence_and_ends_both(trained, tmp_path):
    folder = working(trained, tmp_path / "run")
    state = torch.load(folder / MODEL, weights_only=True)
    first = next(name for name, tensor in state.items() if tensor.is_floating_point())
    state[first] = state[first] * float("nan")
    torch.save(state, folder / MODEL)
    status = ended(background.together(("exec_ood_layers.py", MODEL, "-ood", "patches", "--max-examples", "64"), folder))
    assert status == [1, 1]
    assert text(folder, "log-0").count("error:") == 1 and text(folder, "log-1") == ""


def test_a_record_that_is_there_is_left_by_all(trained, tmp_path):
    folder = working(trained, tmp_path / "run")
    assert ended(background.together(COMMANDS["eval"], folder)) == [0, 0]
    assert ended(background.together(COMMANDS["eval"], folder)) == [0, 0]
    assert "already there" in text(folder, "log-0") and text(folder, "log-1") == ""


# runs a script that keeps what it has behind every batch; process 0 kills itself when it has so many
KILLED = """
import os, runpy, signal, sys
stop, path = int(sys.argv[1]), sys.argv[2]
sys.argv[:3] = sys.argv[2:3]
from lib.core import saved_state
from lib.core.distributed import Processes
saved_state.SAVE_EVERY = -1.0
begun, whole = [], Processes.shared

def noted(self, count, work):
    begun.append(count)
    for number, made in enumerate(whole(self, count, work)):
        yield made
        if len(begun) >= stop and number and self.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)

Processes.shared = noted
runpy.run_path(os.path.join(ROOT, path), run_name="__main__")
"""


@pytest.mark.parametrize(("name", "stop"), [("OOD layers", 3), ("probes", 2), ("re-initialisation", 1)])
def test_two_processes_go_on_where_two_were_killed(name, stop, trained, tmp_path):
    one, two = (working(trained, tmp_path / name) for name in ("one", "two"))
    killing = tmp_path / "killing.py"
    killing.write_text(f"ROOT = {str(ROOT)!r}\nimport sys\nsys.path.insert(0, ROOT)\n{KILLED}")
    stopped = ended(background.together((killing, stop, *COMMANDS[name]), two))
    assert stopped == [-signal.SIGKILL, Interrupted.status] and text(two, "log-1") == ""
    assert [*two.rglob("*.partial")] and not [*(two / "results").rglob("*.json")]
    assert ended(background.together(COMMANDS[name], two)) == [0, 0], text(two, "log-0")
    assert script(*COMMANDS[name], cwd=one).returncode == 0
    assert rerun.differences(record(one)["rows"], record(two)["rows"], records.tolerance(record(one))) == []
    assert not [*two.rglob("*.partial")]


def test_each_number_is_the_work_of_one_process():
    done = [[], []]

    class Alone(Processes):
        def exchange(self, value):
            return [value, value]

    for rank in range(2):
        list(Alone(rank, 2).shared(5, done[rank].append))
    assert done == [[0, 2, 4], [1, 3]]
