"""Eight processes over one results folder, with the same and with different commands: every record once, all valid."""

import json
import shutil
from pathlib import Path

import background
import pytest

from lib.experiments import EXPERIMENTS
from lib.runs import records as runs_records

SMALL = ("--max-examples", "60", "-gpu", "-1", "--quiet")
SAME = ("exec_eval.py", "models/a/model_2.pt", "-d", "digits", *SMALL)
DIFFERENT = [
    ("exec_eval.py", "models/a/model_1.pt", "-d", "digits", *SMALL),
    ("exec_eval.py", "models/a/model_1.pt", "-d", "digits-c/fog-3", *SMALL),
    ("exec_ood_layers.py", "models/a/model_2.pt", "-d", "digits", "-ood", "digits-c/fog-3", *SMALL),
    ("exec_probe.py", "models/a/model_2.pt", "-d", "digits", "-l", "classifier.1", "-e", "1", *SMALL),
    ("exec_projections.py", "models/a", "--quiet"),
]


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.hardening)])
def test_eight_processes_make_every_record_once(trained, tmp_path, rounds):
    for turn in range(rounds):
        folder = tmp_path / str(turn)
        shutil.copytree(trained / "models" / "a", folder / "models" / "a")
        commands = [SAME, *DIFFERENT, SAME, SAME]
        processes = [background.start(words, folder, f"log-{number}") for number, words in enumerate(commands)]
        for process in processes:
            process.join(300)
        ended = [(process.exitcode, (folder / f"log-{number}").read_text()) for number, process in enumerate(processes)]
        for status, said in ended:
            assert status == 0 or status == 1 and "another process is making results/eval/" in said, ended
        assert {status for status, _ in ended[1:6]} == {0} and 0 in (ended[0][0], ended[6][0], ended[7][0]), ended
        check(folder, len(set(commands)))
        made = {path: path.read_bytes() for path in (folder / "results").rglob("*.json")}
        assert all(background.run(words, folder) == 0 for words in commands[:2])  # and found again
        assert made == {path: path.read_bytes() for path in (folder / "results").rglob("*.json")}


def check(folder: Path, count: int) -> None:
    """So many records, all valid, each of another configuration; nothing temporary."""
    records = [record for _, record in runs_records.records(folder / "results", EXPERIMENTS)]
    assert len(records) == count
    assert len({json.dumps([record["experiment"], record["config"]]) for record in records}) == count
    assert not [path for path in (folder / "results").rglob(".*") if path.is_file()]
    (hashes,) = (folder / ".cache").glob("hashes-*.json")
    json.loads(hashes.read_text())
