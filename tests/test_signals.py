"""Signals at the worst moments, clocks that jump, several commands at once: a record is whole or not there."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import background
import pytest
from conftest import ROOT, script
from test_kill import BEFORE, COMMANDS, contents, whole  # noqa: F401 (a fixture)

from lib.core import files
from lib.experiments import EXPERIMENTS
from lib.runs import records

SHOW = ("exec_data.py", "show", "digits", "--name", "a")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("file", ["a.json", "a-test.png"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_while_the_record_is_written_leaves_it_whole_or_not_there(tmp_path, monkeypatch, number, file, when):
    replace = os.replace

    def struck(source, target):
        if when == "after":
            replace(source, target)
        if str(target).endswith(file):
            os.kill(os.getpid(), number)
        if when == "before":
            replace(source, target)

    monkeypatch.setattr(files.os, "replace", struck)
    done = script(*SHOW, cwd=tmp_path)
    monkeypatch.undo()
    assert done.returncode == 75 and len(done.stderr.strip().splitlines()) == 1 and "runs it again" in done.stderr, (
        done.stderr
    )
    folder, there = tmp_path / "results" / "data", file.endswith("png") or when == "after"
    assert (folder / "a.json").exists() == there and not list(folder.glob(".*"))
    again = script(*SHOW, cwd=tmp_path)
    assert again.returncode == 0 and ("already there" in again.stderr) == there
    assert records.read(folder / "a.json", EXPERIMENTS["data"])["rows"]


TWICE = """
import io, os, signal, sys
sys.path.insert(0, {root!r})
from lib.runs import cli, script
from lib.runs.command_lines import Experiment

class Errors(io.StringIO):
    def write(self, text):
        for number in numbers:
            os.kill(os.getpid(), number)
        return super().write(text)

def struck(config):
    os.kill(os.getpid(), numbers[0])
    import time
    time.sleep(5)

numbers = {numbers!r}
sys.stderr = Errors()
try:
    script.main({{"data": Experiment(cli.RunConfig, struck)}}, "data", [])
finally:
    print(sys.stderr.getvalue())
"""


@pytest.mark.parametrize("numbers", [(2, 2), (15, 15), (15, 2), (2, 10)])
def test_a_second_signal_while_the_first_is_answered_adds_nothing(tmp_path, numbers):
    (tmp_path / "s.py").write_text(TWICE.format(root=str(ROOT), numbers=numbers))
    done = subprocess.run([sys.executable, "s.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 75 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert "runs it again" in done.stdout and not list((tmp_path / "results" / "data").iterdir())


@pytest.mark.parametrize("jump", [-1e6, -1.7e9, 1e9])
def test_a_clock_that_jumps_changes_no_number(trained, tmp_path, monkeypatch, jump):
    """To before the run began, to 1970, and far ahead."""
    clock, calls, found = time.time, [], []
    words = ("--max-examples", "20", "-gpu", "-1", "--save-logits", "--overwrite", "--results-dir", tmp_path / "results")
    for jumping in (False, True):
        if jumping:
            monkeypatch.setattr(time, "time", lambda: max(0, clock() + jump * (calls.append(0) or len(calls) > 1)))
        done = script("exec_eval.py", "models/a/model_2.pt", *words, "--name", "a", cwd=trained)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / "results/eval/a.json").read_text())
        found.append(record["rows"])
        assert all(0 <= seconds < 100 for seconds in record["seconds"].values())
    assert found[0] == found[1] and calls


def test_names_of_records_do_not_depend_on_pythons_hash_seed(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from lib.experiments import EXPERIMENTS\nfrom lib.runs import cli, records\n"
        "words = 'm.pt -d digits digits:train --name x'.split()\n"
        "print(records.run_name(cli.parse(EXPERIMENTS['eval'].configuration, words)))"
    )
    names = {
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True).stdout
        for seed in ("0", "1", "2")
    }
    assert len(names) == 1 and names != {b""}


def test_a_signal_while_libraries_are_loaded_waits_until_they_are(tmp_path):
    (tmp_path / "half.py").write_text(
        "import os, signal\nfor number in (signal.SIGINT, signal.SIGTERM):\n    os.kill(os.getpid(), number)\n"
        "open('whole', 'w').close()\ndef run(config): open('it-ran', 'w').close()\n"
    )
    (tmp_path / "s.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom lib.runs import cli, script\n"
        "from lib.runs.command_lines import Experiment\n"
        "script.main({'data': Experiment(cli.RunConfig, 'half:run')}, 'data', [])\n"
    )
    done = subprocess.run([sys.executable, "s.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 75 and "interrupted; the same command runs it again" in done.stderr, done.stderr
    assert (tmp_path / "whole").exists() and not (tmp_path / "it-ran").exists()


# several at once


def ended(processes, folder) -> list[tuple[int | None, str]]:
    for process in processes:
        process.join(300)
    return [(process.exitcode, (folder / f"log-{number}").read_text()) for number, process in enumerate(processes)]


@pytest.mark.hardening
@pytest.mark.parametrize("name", COMMANDS)
def test_two_identical_commands_started_together_make_one_record(whole, tmp_path, name):  # noqa: F811
    pristine, uninterrupted, _ = whole(name)
    folder = tmp_path / "run"
    shutil.copytree(pristine, folder)
    both = ended([background.start(COMMANDS[name], folder, f"log-{number}") for number in range(2)], folder)
    assert sorted(status for status, _ in both) in ([0, 0], [0, 1]), both
    assert all(status == 0 or "another process is" in said for status, said in both), both
    for log in folder.glob("log-*"):
        log.unlink()
    assert contents(folder) == contents(uninterrupted)


@pytest.mark.hardening
def test_eight_writers_over_every_script_make_every_record_once_and_whole(whole, tmp_path):  # noqa: F811
    """Each runs the commands of all scripts in an order of its own, in one folder; refused where another is at work."""
    pristine, _, _ = whole("stitch_ood")
    folder = tmp_path / "run"
    shutil.copytree(pristine, folder)

    def writer(number: int) -> list[str]:
        names, wrong = random.Random(number).sample(list(COMMANDS), len(COMMANDS)), []
        for turn, name in enumerate(names):
            log = f"log-{number}-{turn}"
            status = background.run(COMMANDS[name], folder, log)
            said = (folder / log).read_text()
            if status and "another process is" not in said or "Traceback" in said:
                wrong.append(f"{name}: exit status {status}: {said[-500:]}")
        return wrong

    with ThreadPoolExecutor(8) as pool:
        wrong = [fault for faults in pool.map(writer, range(8)) for fault in faults]
    assert not wrong, wrong
    for name in COMMANDS:  # whoever was refused finds it, or runs it now
        assert background.run(COMMANDS[name], folder) == 0, (folder / "log").read_text()
    made = [record["experiment"] for _, record in records.records(folder / "results", EXPERIMENTS)]
    assert sorted(set(made)) == sorted(COMMANDS) and len(made) == len(COMMANDS) + len(BEFORE["stitch_ood"]) - 2
    assert not [path for root in ("results", "models") for path in (folder / root).rglob(".*") if path.is_file()]
