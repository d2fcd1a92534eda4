"""A run that a record describes is made again, and compared with it."""

import json
import shutil
import sys
import types
from pathlib import Path

import inprocess
import pytest
from conftest import script
from table_records import tables

from lib.tables import rerun


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """What a rerun starts is run in this process; test_scripts.py has a rerun in a process of its own."""

    def run(words, *, env):
        assert words[0] == sys.executable
        done = inprocess.run([Path(words[1]).name, *words[2:]], environment=env)
        print(done.stderr, file=sys.stderr)
        return done

    monkeypatch.setattr(rerun, "subprocess", types.SimpleNamespace(run=run))


def test_a_repeated_run_is_compared_with_its_record(trained):
    done = script("exec_eval.py", "models/a/model_2.pt", "-d", "digits", "--name", "checked", cwd=trained)
    path = trained / "results/eval/checked.json"
    before = path.read_text()
    done = tables(trained, "--rerun", path, "--check")
    assert done.returncode == 0 and "agree within its tolerance of 1e-06" in done.stdout, done.stderr
    record = json.loads(before)
    assert record["tolerance"] == 1e-6
    record["rows"][0]["accuracy"] += 1e-3
    path.write_text(json.dumps(record))
    done = tables(trained, "--rerun", path, "--check")
    assert done.returncode == 1 and "accuracy of row 0 is" in done.stderr and len(json.loads(path.read_text())["rows"]) == 11
    path.unlink()


def test_a_record_is_made_again_where_it_lies_and_a_copy_is_refused(trained, tmp_path):
    done = script(
        "exec_eval.py",
        "models/a/model_2.pt",
        "-d",
        "digits",
        "--max-examples",
        "20",
        "--results-dir",
        tmp_path / "kept",
        cwd=trained,
    )
    path = tmp_path / done.stdout.strip().splitlines()[-1]
    copy = shutil.copy(path, tmp_path)
    moved = shutil.copytree(tmp_path / "kept", tmp_path / "moved") / "eval" / path.name
    before, there = path.read_text(), json.loads(moved.read_text())
    moved.write_text(json.dumps(there | {"rows": []}))
    done = tables(trained, "--rerun", copy)
    assert done.returncode == 1 and "a copy of a record" in done.stderr
    done = tables(trained, "--rerun", moved)
    assert done.returncode == 0 and json.loads(moved.read_text())["rows"] == there["rows"] and path.read_text() == before


def test_a_check_leaves_the_checkpoints_that_are_there_as_they_are(trained, tmp_path):
    shutil.copytree(trained / "models" / "a", tmp_path / "models" / "a")
    small = "--max-examples", "60", "--quiet"
    for name, *words in (
        ("train", "LargeMLP", "-d", "features=a/model_2.pt:features.4:digits", "-dir", "checks/head", "-e", 1),
        (
            "ood_detector",
            "a/model_2.pt",
            "auto",
            "features.4",
            "-m",
            "repr_cls_resnet20",
            "-e",
            1,
            "-fe",
            0,
            "-dir",
            "checks/detector",
            "-fdir",
            tmp_path / "models/checks",
        ),
        ("probe", "a/model_2.pt", "-l", "features.4", "--export", "checks/cut", "--select", "id-val", "-e", 1),
    ):
        done = script(f"exec_{name}.py", *words, *small, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "models").rglob("*")}
        record = tmp_path / done.stdout.strip().splitlines()[-1]
        done = tables(tmp_path, "--rerun", record, "--check")
        assert done.returncode == 0 and "agree within" in done.stdout, (name, done.stderr)
        assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "models").rglob("*")} == before, name


def test_differences_are_beyond_the_tolerance_and_clocks_do_not_count():
    before = [{"layer": "a", "auroc": 0.5, "n": 1000, "seconds": 1.0, "best": True}]
    assert not rerun.differences(before, [before[0] | {"auroc": 0.5 + 9e-7, "seconds": 9.0}], 1e-6)
    assert not rerun.differences(before, [before[0] | {"n": 1000.0005}], 1e-6)
    for change in ({"auroc": 0.51}, {"n": 1001}, {"layer": "b"}, {"best": False}, {"auroc": None}, {"new": 1}):
        assert len(rerun.differences(before, [before[0] | change], 1e-6)) == 1, change
    assert rerun.differences(before, [], 1) == ["0 rows instead of 1"]
