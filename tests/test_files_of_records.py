"""The numbers of a record are of the files that it names: whatever is changed, replaced or damaged is noticed."""

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import script

from lib.core import files
from lib.core.errors import UserError
from lib.experiments import EXPERIMENTS
from lib.models import checkpoints
from lib.runs import cli, loading, records
from lib.tables import rerun

SMALL = ("--max-examples", "120", "-gpu", "-1")


def command(folder: Path, *words: str, status: int = 0) -> tuple[str, list[dict]]:
    """What a script says on stderr, and the rows of its record, if it leaves one."""
    done = script(*words, cwd=folder)
    assert done.returncode == status, done.stderr
    last = (done.stdout.strip().splitlines() or [""])[-1]
    return done.stderr, json.loads((folder / last).read_text())["rows"] if last.endswith(".json") else []


def pictures(folder: Path, seed: int, n: int = 60) -> None:
    """`one.npy` and its labels: noise, so that another seed is another data set."""
    draw = np.random.default_rng(seed)
    np.save(folder / "one.npy", draw.integers(0, 256, (n, 16, 16), dtype=np.uint8))
    np.save(folder / "one_labels.npy", np.arange(n) % 3)


NETWORK = """
from torch import nn

class Network(nn.Module):
    def __init__(self, classes, channels, size):
        super().__init__()
        self.layer = nn.Linear(channels * size * size, classes)

    def forward(self, images):
        return self.layer(images.flatten(1)){}
"""
TRAIN = ("exec_train.py", "small_cnn", "-d", "npy=one.npy", "-dir", "n", "-e", "2", "-gpu", "-1")


# --- 1. what is kept of a run


def test_a_training_does_not_go_on_with_other_data(tmp_path):
    pictures(tmp_path, 0)
    command(tmp_path, *TRAIN)
    pictures(tmp_path, 1)
    said, _ = command(tmp_path, *TRAIN, status=1)
    assert "models/n was begun with other contents of npy=one.npy; restore it, or --overwrite begins again" in said
    pictures(tmp_path, 0)
    said, before = command(tmp_path, *TRAIN)
    assert "already there" in said or before
    pictures(tmp_path, 1)
    said, after = command(tmp_path, *TRAIN, "--overwrite")
    assert [row["train_loss"] for row in after] != [row["train_loss"] for row in before]


def test_what_a_command_does_not_name_is_hashed_as_well(tmp_path):
    """The data set that the network was trained on, its sidecar, and the Python file that builds it."""
    pictures(tmp_path, 0)
    (tmp_path / "own.py").write_text(NETWORK.format(""))
    command(tmp_path, TRAIN[0], "own.py:Network", *TRAIN[2:])
    ask = ("exec_eval.py", "models/n/model_2.pt", "own.py:Network", "-gpu", "-1")
    _, first = command(tmp_path, *ask)
    said, _ = command(tmp_path, *ask)
    assert "already there" in said

    def measured(changed: str) -> list[dict]:
        said, found = command(tmp_path, *ask)
        assert f"{changed} has changed since; running again" in said
        return found

    pictures(tmp_path, 1)
    assert measured("npy=one.npy") != first
    pictures(tmp_path, 0)
    assert measured("npy=one.npy") == first
    (tmp_path / "own.py").write_text(NETWORK.format(" * 3"))
    assert measured("own.py") != first
    (tmp_path / "own.py").write_text(NETWORK.format(""))
    sidecar = tmp_path / "models/n/model_2.json"
    files.write_json(sidecar, files.read_json(sidecar) | {"mean": [0.1], "std": [0.9]})
    assert measured("models/n/model_2.json") != first
    record = tmp_path / "results/eval" / next((tmp_path / "results/eval").glob("*.json")).name
    older = files.read_json(record)
    for name in ("npy=one.npy", "own.py", "models/n/model_2.json"):  # as earlier versions wrote it
        del older["inputs"][name]
    files.write_json(record, older)
    said, _ = command(tmp_path, *ask)
    assert "already there" in said


def test_the_source_networks_data_are_inputs_of_its_detectors(tmp_path):
    pictures(tmp_path, 0)
    command(tmp_path, *TRAIN)
    config = cli.parse(
        EXPERIMENTS["ood_detector"].configuration,
        [
            "n/model_2.pt",
            "auto",
            "pool2",
            "-m",
            "repr_cls_resnet18",
            "-dir",
            "d",
            "-fe",
            "0",
            "--models-dir",
            str(tmp_path / "models"),
        ],
    )
    assert "models/n/model_2.pt" not in config.implied() and "n/model_2.json" in config.implied()
    sidecar = tmp_path / "models/n/model_2.json"
    files.write_json(sidecar, files.read_json(sidecar) | {"dataset": f"npy={tmp_path}/one.npy"})
    assert f"npy={tmp_path}/one.npy" in config.implied()


def test_a_training_that_was_begun_before_its_network_file_was_hashed_goes_on(tmp_path):
    pictures(tmp_path, 0)
    (tmp_path / "own.py").write_text(NETWORK.format(""))
    words = (TRAIN[0], "own.py:Network", *TRAIN[2:])
    command(tmp_path, *words)
    marker = tmp_path / "models/n/run.json"
    begun = files.read_json(marker)
    del begun["inputs"]["own.py"]
    files.write_json(marker, begun)
    for record in (tmp_path / "results/train").glob("*.json"):
        record.unlink()
    command(tmp_path, *words)
    (tmp_path / "own.py").write_text(NETWORK.format(" * 3"))
    for record in (tmp_path / "results/train").glob("*.json"):
        record.unlink()
    said, _ = command(tmp_path, *words, status=1)
    assert "was begun with other contents of own.py" in said


def test_features_and_attacks_are_those_of_the_network_as_its_file_is_now(tmp_path):
    pictures(tmp_path, 0)
    (tmp_path / "own.py").write_text(NETWORK.format(""))
    command(tmp_path, TRAIN[0], "own.py:Network", *TRAIN[2:])
    attack = ("exec_eval.py", "models/n/model_2.pt", "own.py:Network", "--attack", "pgd", "--eps", "0.2", "-gpu", "-1")
    command(tmp_path, *attack)
    (tmp_path / "own.py").write_text(NETWORK.format(".cos()"))
    _, kept = command(tmp_path, *attack)
    _, anew = command(tmp_path, *attack, "--cache-dir", "other", "--overwrite")
    assert [row["robust_accuracy"] for row in kept] == [row["robust_accuracy"] for row in anew]


def test_a_stopped_training_of_other_data_or_of_an_earlier_version_is_not_continued(tmp_path, monkeypatch):
    pictures(tmp_path, 0)
    save = checkpoints.save

    def stopped(path, *given):  # as a scheduler ends a job behind its first epoch
        save(path, *given)
        if path.name == "best.pt":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoints, "save", stopped)
    command(tmp_path, *TRAIN, status=75)
    monkeypatch.setattr(checkpoints, "save", save)
    pictures(tmp_path, 1)
    said, _ = command(tmp_path, *TRAIN, status=1)
    assert "was begun with other contents of npy=one.npy" in said
    marker = tmp_path / "models/n/run.json"
    marker.write_text(json.dumps({key: value for key, value in json.loads(marker.read_text()).items() if key != "inputs"}))
    said, _ = command(tmp_path, *TRAIN, status=1)
    assert "begun by an earlier version, which kept no hash of npy=one.npy" in said
    assert not list((tmp_path / "results").rglob("*.json"))


# --- 2. inputs replaced during a run


def test_a_file_that_is_replaced_while_it_is_read_leaves_no_record(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "models", tmp_path / "models")
    load = loading.load_checkpoint

    def replaced(*given):
        loaded = load(*given)
        os.replace(tmp_path / "models/a/model_1.pt", tmp_path / "models/a/model_2.pt")
        return loaded

    monkeypatch.setattr(loading, "load_checkpoint", replaced)
    said, rows = command(tmp_path, "exec_eval.py", "models/a/model_2.pt", "-d", "digits", *SMALL, status=1)
    assert "models/a/model_2.pt was changed while the run read it; no record was written" in said
    assert not rows and not list((tmp_path / "results").rglob("*.json"))


# --- 3. caches


@pytest.mark.parametrize(
    "kind, words",
    [
        (
            "features",
            ("exec_probe.py", "models/a/model_2.pt", "-ood", "digits-c/fog-3", "-l", "flatten", "-e", "3", "-lr", "1e-2"),
        ),
        ("corrupted", ("exec_eval.py", "models/a/model_2.pt", "-d", "digits-c/fog-3")),
    ],
)
def test_a_flipped_bit_in_a_cache_is_noticed_and_changes_no_number(trained, tmp_path, kind, words):
    shutil.copytree(trained / "models", tmp_path / "models")
    _, before = command(tmp_path, *words, *SMALL)
    kept = sorted((tmp_path / ".cache" / kind).rglob("*.npy"))
    assert kept
    for path in kept:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x40
        path.write_bytes(content)
    said, after = command(tmp_path, *words, *SMALL, "--overwrite")
    assert "damaged since it was written; it is computed anew" in said and after == before
    said, again = command(tmp_path, *words, *SMALL, "--overwrite")
    assert "damaged" not in said and again == before


def test_what_an_earlier_version_kept_without_checksums_is_computed_anew(trained, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "models")
    words = ("exec_eval.py", "models/a/model_2.pt", "-d", "digits-c/fog-3", *SMALL)
    _, before = command(tmp_path, *words)
    (kept,) = (tmp_path / ".cache/corrupted").rglob("*.npy")
    np.save(kept, 255 - np.load(kept))
    said, after = command(tmp_path, *words, "--overwrite")
    assert "what an earlier version kept there has no checksums; it is computed anew" in said and after == before


def test_all_caches_are_verified_by_hand(trained, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "models")
    command(tmp_path, "exec_eval.py", "models/a/model_2.pt", "-d", "digits-c/fog-3", *SMALL)
    assert ": 0 damaged" in script("exec_data.py", "verify-cache", cwd=tmp_path).stdout
    (kept,) = (tmp_path / ".cache/corrupted").rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:-40])
    said = script("exec_data.py", "verify-cache", cwd=tmp_path).stdout
    assert f"{kept.name} is removed" in said and ": 1 damaged" in said and not kept.exists()


# --- 4. the memory of hashes


def test_a_file_that_is_replaced_with_its_size_and_time_kept_has_its_own_hash(tmp_path):
    for name, content in (("a", b"one"), ("b", b"two")):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    path, cache = tmp_path / "c", tmp_path / "cache"
    shutil.copy2(tmp_path / "a", path)
    first = files.fingerprint([path], cache)
    shutil.copy2(tmp_path / "b", path)  # in place: the same inode
    second = files.fingerprint([path], cache)
    assert path.stat().st_mtime_ns == 10**18 and second["sha256"] == files.sha256(path) != first["sha256"]
    os.replace(tmp_path / "a", path)
    assert files.fingerprint([path], cache) == first


def test_hashes_are_kept_for_each_host_and_read_without_reading_the_file(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"one")
    first = files.fingerprint([tmp_path / "a"], tmp_path / "cache")
    monkeypatch.setattr(files, "sha256", lambda path: "read")
    assert files.fingerprint([tmp_path / "a"], tmp_path / "cache") == first
    monkeypatch.setattr("platform.node", lambda: "another host/x")
    assert files.fingerprint([tmp_path / "a"], tmp_path / "cache")["sha256"] == "read"
    assert (tmp_path / "cache/hashes-another-host-x.json").exists()


# --- 5. links


def image_folder(folder: Path, brightness: int) -> None:
    from PIL import Image

    for label in "xy":
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            Image.fromarray(np.full((16, 16), brightness + number, np.uint8)).save(folder / label / f"{number}.png")


def test_data_behind_links_is_part_of_the_hash_and_what_file_managers_leave_is_not(tmp_path):
    image_folder(tmp_path / "real", 10)
    (tmp_path / "linked").mkdir()
    for label in "xy":
        os.symlink(tmp_path / "real" / label, tmp_path / "linked" / label)
    os.symlink(tmp_path / "linked", tmp_path / "linked" / "x" / "back")  # a circle
    words = ("exec_data.py", "show", "folder=linked", "--quiet")
    command(tmp_path, *words)
    (record,) = (tmp_path / "results/data").glob("*.json")
    assert json.loads(record.read_text())["inputs"]["folder=linked"]["files"] == 6
    (tmp_path / "real/x/.DS_Store").write_bytes(b"droppings")
    (tmp_path / "real/x/Thumbs.db").write_bytes(b"droppings")
    said, _ = command(tmp_path, *words[:-1])
    assert "already there" in said
    image_folder(tmp_path / "real", 90)
    said, _ = command(tmp_path, *words[:-1])
    assert "folder=linked has changed since; running again" in said


def test_plain_folders_keep_the_hash_that_earlier_versions_gave_them(tmp_path):
    import hashlib

    image_folder(tmp_path / "plain", 10)
    (tmp_path / "plain/x-1").mkdir()
    (tmp_path / "plain/x-1/a.png").write_bytes(b"1")
    paths = sorted(path for path in (tmp_path / "plain").rglob("*") if path.is_file())
    lines = [
        f"{path.relative_to(tmp_path / 'plain')} {path.stat().st_size} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in paths
    ]
    known = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert files.fingerprint([tmp_path / "plain"], tmp_path / "cache")["sha256"] == known


# --- 6. outputs


def test_a_finished_training_whose_folder_holds_another_run_is_not_already_there(tmp_path):
    def train(seed: int, *words: str, status: int = 0) -> str:
        given = ("exec_train.py", "small_cnn", "-d", "digits", "-dir", "z", "-e", "1", "-s", str(seed), *SMALL, *words)
        return command(tmp_path, *given, status=status)[0]

    train(0)
    train(1, "--overwrite")
    said = train(0, status=1)
    assert "models/z/model_1.pt has changed since; running again" in said and "holds another run (seed 1 there" in said
    assert "already there" in train(1)


# --- 7. records that cannot be believed


def rewritten(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def evaluated(trained, tmp_path) -> Path:
    shutil.copytree(trained / "models", tmp_path / "models")
    command(tmp_path, "exec_eval.py", "models/a/model_2.pt", "-d", "digits", *SMALL)
    return next((tmp_path / "results/eval").glob("*.json"))


def test_a_check_does_not_take_the_tolerance_of_the_record_for_more_than_the_suites(evaluated, tmp_path):
    record = json.loads(evaluated.read_text())
    record["rows"][0]["accuracy"] += 0.01
    rewritten(evaluated, rows=record["rows"], tolerance=1e9)
    with contextlib.chdir(tmp_path), pytest.raises(UserError, match="beyond its tolerance of 1e-06"):
        rerun.check(evaluated.relative_to(tmp_path), EXPERIMENTS)


@pytest.mark.parametrize(
    "text",
    [
        '"tolerance": Infinity',
        '"tolerance": NaN',
        '"tolerance": -1',
        '"rows": [{"accuracy": NaN}]',
        '"rows": [{"accuracy": 1e999}]',
        f'"rows": [{{"n": {10**400}}}]',
        '"rows": [{"accuracy": "high"}]',
        '"config": {"seed": [[1]]}',
        '"config": {"seed": "one"}',
        f'"seconds": {{"total": {10**400}}}',
        '"rows": ' + "[" * 100000 + "]" * 100000,
    ],
)
def test_a_record_that_cannot_be_is_named_and_left_out_of_the_tables(evaluated, tmp_path, text):
    whole = evaluated.read_text().rstrip()
    evaluated.with_name("bad.json").write_text(f"{whole[:-1]}, {text}}}")  # of two values of a key the last counts
    shutil.copy(evaluated, evaluated.with_name("good.json"))
    os.mkfifo(evaluated.with_name("pipe.json"))
    done = script("exec_tables.py", "eval", cwd=tmp_path)
    assert done.returncode == 0 and "accuracy" in done.stdout, done.stderr
    for name in ("bad", "pipe"):
        (line,) = [line for line in done.stderr.splitlines() if f"{name}.json" in line]
        assert line.startswith("warning: ") and line.endswith("left out")


def test_what_every_test_writes_is_read_again(evaluated):
    assert records.read(evaluated, EXPERIMENTS["eval"])["rows"]
