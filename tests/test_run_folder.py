"""Nothing is lost: two commands at once, a full disk, files where folders should be, folders of other runs."""

import json
import resource

import background
import pytest
import torch
from conftest import script

from lib.core import files
from lib.core.errors import UserError
from lib.experiments.config.train import TrainConfig
from lib.experiments.train import train
from lib.training import run_folder

WORDS = ("lenet", "-d", "digits", "-dir", "a", "-e", "2", "-lr", "3e-3", "-gpu", "-1", "--max-examples", "200")


def config(**options) -> TrainConfig:
    return TrainConfig(
        **{
            "model_type": "lenet",
            "dataset": "digits",
            "directory": "a",
            "epochs": 2,
            "gpu": -1,
            "quiet": True,
            "max_examples": 100,
        }
        | options
    )


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_of_two_identical_commands_one_works_and_the_other_says_so(tmp_path):
    both = [background.start(["exec_train.py", *WORDS], tmp_path, f"log-{number}") for number in range(2)]
    for process in both:
        process.join(240)
    ends = sorted((process.exitcode, (tmp_path / f"log-{number}").read_text()) for number, process in enumerate(both))
    (_, said), statuses = ends[1], [status for status, _ in ends]
    assert statuses == [0, 1], ends
    assert "another process is making results/train/" in said and len(said.strip().splitlines()) == 1
    rows = json.loads(next((tmp_path / "results" / "train").glob("*.json")).read_text())["rows"]
    assert [row["epoch"] for row in rows] == [1, 2]
    again = script("exec_train.py", *WORDS, cwd=tmp_path)
    assert again.returncode == 0 and "already there" in again.stderr


@pytest.mark.parametrize("limit, lost", [(100_000, "init.pt"), (700_000, "resume.pt")])
def test_a_full_disk_ends_in_a_sentence_and_loses_nothing(tmp_path, monkeypatch, limit, lost):
    """A limit on the size of files stands for the full disk: writing fails in the middle of a file."""
    monkeypatch.chdir(tmp_path)
    whole = train(config(directory="whole"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UserError, match=rf"cannot write models/a/{lost}: .*[Ll]arge"):
            train(config())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "models" / "a").glob(".*.tmp"))
    for path in (tmp_path / "models" / "a").glob("*.pt"):
        torch.load(path, weights_only=True)  # whatever is there is whole
    continued = train(config())
    assert [row["val_loss"] for row in continued.rows] == [row["val_loss"] for row in whole.rows]
    assert equal(*(torch.load(f"models/{name}/model_2.pt", weights_only=True) for name in ("a", "whole")))


def test_a_state_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "resume.pt"
    files.write_atomically(path, lambda file: file.write(b"the state of the epoch before"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match="cannot write"):
            files.write_atomically(path, lambda file: file.write(b"x" * 5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"the state of the epoch before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("obstacle", ["models", "models/a"])
def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path, monkeypatch, obstacle):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / obstacle
    path.parent.mkdir(exist_ok=True)
    path.write_text("not a folder")
    with pytest.raises(UserError, match="cannot write into models/a"):
        train(config())
    assert path.read_text() == "not a folder"


def test_a_file_in_place_of_the_results_folder_is_found_before_any_work(tmp_path):
    (tmp_path / "results").write_text("not a folder")
    done = script("exec_train.py", *WORDS, cwd=tmp_path)
    assert done.returncode == 1 and "cannot write into results/train" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "models").exists()


def test_a_folder_belongs_to_one_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = run_folder.folder(config())
    directory.mkdir(parents=True)
    run_folder.claim(directory, config())
    run_folder.claim(directory, config(quiet=False))  # how a run is run is no part of it
    run_folder.claim(directory, config(noise=0.3))  # the other one failed before it had begun
    run_folder.claim(directory, config())
    (directory / "init.pt").write_bytes(b"begun")
    with pytest.raises(UserError, match=r"noise 0.0 there, 0.5 here, split 0.0 there, 0.1 here"):
        run_folder.claim(directory, config(noise=0.5, split=0.1))
    (directory / "run.json").unlink()
    (directory / "init.pt").rename(directory / "model_1.pt")
    (directory / "model_1.pt").write_bytes(b"somebody's")
    with pytest.raises(UserError, match="unknown origin"):
        run_folder.claim(directory, config())
    assert (directory / "model_1.pt").read_bytes() == b"somebody's"
    run_folder.claim(directory, config(overwrite=True))
    assert not (directory / "model_1.pt").exists()


def test_without_resuming_a_run_begins_again_in_its_own_folder_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = run_folder.folder(config())
    directory.mkdir(parents=True)
    run_folder.claim(directory, config())
    (directory / "resume.pt").write_bytes(b"of this run")
    with pytest.raises(UserError, match="holds another run"):
        run_folder.claim(directory, config(noise=0.5, resume=False))
    assert (directory / "resume.pt").exists()
    run_folder.claim(directory, config(resume=False))
    assert not (directory / "resume.pt").exists() and (directory / "run.json").exists()


def test_a_flag_younger_than_the_folder_had_its_default_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = run_folder.folder(config())
    directory.mkdir(parents=True)
    run_folder.claim(directory, config())
    marker = directory / "run.json"
    (directory / "init.pt").write_bytes(b"begun")
    older = {key: value for key, value in json.loads(marker.read_text()).items() if key not in ("noise", "milestones")}
    marker.write_text(json.dumps(older))
    with pytest.raises(UserError, match=r"milestones \[\] there, \[5\] here"):
        run_folder.claim(directory, config(milestones=(5,)))
    run_folder.claim(directory, config())
    assert json.loads(marker.read_text())["milestones"] == []


def test_a_state_that_is_cut_off_is_not_continued(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(config())
    path = tmp_path / "models" / "a" / "resume.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="resume.pt cannot be continued .*--overwrite starts the run again"):
        train(config())
