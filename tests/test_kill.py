"""kill -9 at any moment loses nothing: the same command, run again, ends with the record of an uninterrupted run."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import background
import numpy as np
import pytest

SMALL = ("--max-examples", "120", "-gpu", "-1")

# script -> a command that takes a second or so, and does something of each kind that the script does
COMMANDS = {
    "data": ("exec_data.py", "show", "digits-c/fog-3", "-gpu", "-1"),
    "eval": (
        "exec_eval.py",
        "models/a/model_2.pt",
        "-d",
        "digits",
        "digits:train",
        "--save-logits",
        "--attack",
        "pgd",
        "--eps",
        "0.5",
        *SMALL,
    ),
    "ncg": ("exec_ncg.py", "models/a/model_2.pt", "-ood", "digits-c:test/fog-3", "--space", "feature", *SMALL),
    "ood_detector": (
        "exec_ood_detector.py",
        "models/a/model_2.pt",
        "auto",
        "features.0",
        "features.3",
        "-m",
        "repr_cls_resnet20",
        "-d",
        "digits",
        "-ftoodd",
        "patches",
        "-e",
        "1",
        "-fe",
        "1",
        "-dir",
        "d",
        *SMALL,
    ),
    "ood_layers": (
        "exec_ood_layers.py",
        "models/a/model_2.pt",
        "-d",
        "digits",
        "-ood",
        "patches",
        "--aggregate",
        "maha",
        *SMALL,
    ),
    "probe": (
        "exec_probe.py",
        "models/a/model_2.pt",
        "-d",
        "digits",
        "-ood",
        "digits-c/fog-3",
        "-l",
        "features.3,classifier.1",
        "-e",
        "3",
        *SMALL,
    ),
    "projections": ("exec_projections.py", "models/a", "--normalize", "--paper-json"),
    "reinit": ("exec_reinit.py", "models/a/model_2.pt", "-d", "digits", "--rand", "2", "-b", "8", *SMALL),
    "similarity": (
        "exec_similarity.py",
        "models/a/model_1.pt",
        "models/a/model_2.pt",
        "auto",
        "auto",
        "features.*",
        "-n",
        "100",
        *SMALL,
    ),
    "stitch": (
        "exec_stitch.py",
        "models/a/model_1.pt",
        "models/a/model_2.pt",
        "auto",
        "auto",
        "features.0,features.3",
        "features.0,features.3",
        "auto",
        "-d",
        "digits",
        "-e",
        "2",
        *SMALL,
    ),
    "stitch_ood": ("exec_stitch_ood.py", "results/stitch", "-scd", "patches", *SMALL),
    "train": ("exec_train.py", "lenet", "-d", "digits", "-dir", "b", "-e", "12", "-sf", "4", "--ema", "0.9", *SMALL),
}
BEFORE = {"stitch_ood": ("stitch", "ood_detector")}  # scripts whose commands make what a script needs
MEASURED = ("seconds", "images_per_second", "time_id", "time_ood")  # columns that differ from run to run


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """A function: script -> (a folder for it, one in which it ran to its end, the seconds it took), made when asked for."""
    made = {}

    def find(name: str):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            shutil.copytree(trained / "models" / "a", folder / "models" / "a")
            for before in BEFORE.get(name, ()):
                assert background.run(COMMANDS[before], folder) == 0, (folder / "log").read_text()
            pristine = shutil.copytree(folder, tmp_path_factory.mktemp(name) / "pristine")
            begin = time.perf_counter()
            assert background.run(COMMANDS[name], folder) == 0, (folder / "log").read_text()
            made[name] = pristine, folder, time.perf_counter() - begin
        return made[name]

    return find


def contents(folder: Path) -> dict:
    """What a run leaves: the rows of its records, its arrays, the weights of its checkpoints; nothing half-written."""
    found = {}
    for path in sorted(path for root in ("results", "models") for path in (folder / root).rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        assert not path.name.endswith((".tmp", ".lock")), f"{name} was left behind"
        if path.suffix == ".json" and path.parent.parent.name == "results":
            rows = json.loads(path.read_text())["rows"]
            found[name] = [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in arrays if key not in MEASURED}
        elif path.suffix == ".pt" and path.name != "resume.pt":
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return {name: value for name, value in found.items() if "tensorboard" not in name}


def killed_and_repeated(name: str, moment: float, whole, folder: Path) -> bool:
    """Whether the kill came before the end. Runs the command, kills it after that share of its time, runs it again."""
    pristine, uninterrupted, seconds = whole(name)
    shutil.copytree(pristine, folder)
    process = background.start(COMMANDS[name], folder)
    process.join(moment * seconds)
    struck = process.exitcode is None
    process.kill()
    process.join()
    for record in (folder / "results").rglob("*.json"):
        json.loads(record.read_text())  # what is there is whole
    assert background.run(COMMANDS[name], folder) == 0, (folder / "log").read_text()
    sweep(folder)
    assert contents(folder) == contents(uninterrupted)
    return struck


def sweep(folder: Path) -> None:
    """Half-written files of the killed process beside records, which nothing takes for results; of checkpoints none stay."""
    for path in (folder / "results").rglob(".*.tmp"):
        path.unlink()


@pytest.mark.parametrize("name, moment", [("train", 0.7), ("reinit", 0.8), ("probe", 0.9)])
def test_a_killed_command_repeated_ends_like_an_uninterrupted_one(whole, tmp_path, name, moment):
    killed_and_repeated(name, moment, whole, tmp_path / "run")


@pytest.mark.hardening
def test_fifty_kills_at_random_moments_of_all_scripts_change_no_record(whole, tmp_path):
    draw, struck = random.Random(0), 0
    for number in range(50):
        name = list(COMMANDS)[number % len(COMMANDS)]
        struck += killed_and_repeated(name, draw.uniform(0, 1.1), whole, tmp_path / f"{number}-{name}")
        shutil.rmtree(tmp_path / f"{number}-{name}")
    assert struck > 25


@pytest.mark.parametrize("name", COMMANDS)
def test_a_repeated_command_says_what_is_there_within_two_seconds_without_importing_torch(whole, name):
    """Of every script, after a run to its end in a process of its own."""
    _, folder, _ = whole(name)
    path, *words = COMMANDS[name]
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", background.ROOT / path, *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0 and "already there" in done.stderr and time.perf_counter() - begin < 2, done.stderr
    assert done.stdout.strip().splitlines()[-1].endswith(".json") and "| torch" not in done.stderr


def test_every_script_that_makes_a_record_is_among_them():
    scripts = {path.stem.removeprefix("exec_") for path in background.ROOT.glob("exec_*.py")}
    assert scripts - {"tables", "study"} == set(COMMANDS)  # these write no record of their own
