"""Records: named by their configuration, written whole, checked on every read, never replaced unasked."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lib.core.errors import UserError
from lib.runs import records, script
from lib.runs.cli import RunConfig, flag
from lib.runs.command_lines import Experiment
from lib.runs.records import Result


@dataclass(frozen=True, kw_only=True)
class Toy(RunConfig):
    """A toy."""

    rate: float = flag(1.0, help="rate")
    word: str = flag("a", label="{}", help="word")
    file: str = flag("", help="an input", identity=False)

    def inputs(self):
        return {self.file: [Path(self.file)]} if self.file else {}


def config(tmp_path, **changes) -> Toy:
    return Toy(results_dir=str(tmp_path / "results"), cache_dir=str(tmp_path / "cache"), quiet=True, **changes)


def eval(config):
    calls.append(config)
    return Result([{"accuracy": np.float32(0.5), "n": np.int64(3), "missing": float("nan")}], {"x": np.arange(3)})


calls: list = []


def run(configuration) -> int:
    """How many times the experiment ran for this configuration."""
    calls.clear()
    script.run({"eval": Experiment(Toy, eval)}, "eval", configuration, ["exec_toy.py"])
    return len(calls)


def test_a_record_is_found_again_and_not_overwritten(tmp_path):
    assert run(config(tmp_path)) == 1
    place = records.place(config(tmp_path), "eval")
    before = place.path.read_bytes()
    assert run(config(tmp_path)) == 0 and place.path.read_bytes() == before
    assert run(config(tmp_path, overwrite=True)) == 1
    assert run(config(tmp_path, rate=2.0)) == 1 and len(list(place.path.parent.glob("*.json"))) == 2


def test_rows_are_plain_numbers_and_undefined_ones_are_null(tmp_path):
    run(config(tmp_path))
    place = records.place(config(tmp_path), "eval")
    assert records.read(place.path)["rows"] == [{"accuracy": 0.5, "n": 3, "missing": None}]
    assert np.array_equal(np.load(place.beside(".npz"))["x"], np.arange(3))


def test_a_name_depends_on_identity_alone_and_not_on_defaults(tmp_path):
    assert records.run_name(config(tmp_path)) == records.run_name(Toy(quiet=False))
    assert records.run_name(config(tmp_path, rate=2.0)) != records.run_name(config(tmp_path))
    assert records.run_name(config(tmp_path, word="b/c d")).startswith("b-c-d-")


def test_a_name_spells_out_short_lists_and_counts_long_ones():
    @dataclass(frozen=True, kw_only=True)
    class Several(RunConfig):
        names: tuple[str, ...] = flag((), label="{}", help="names")

    assert records.run_name(Several(names=("a", "b", "c"))).startswith("a+b+c-")
    four, others = (records.run_name(Several(names=names)) for names in (("a", "b", "c", "d"), ("a", "x", "y", "z")))
    assert four.startswith("a+3more-") and others.startswith("a+3more-") and four != others


def test_a_changed_input_voids_the_record(tmp_path):
    file = tmp_path / "input.bin"
    file.write_bytes(b"one")
    assert run(config(tmp_path, file=str(file))) == 1
    assert run(config(tmp_path, file=str(file))) == 0
    file.write_bytes(b"two!")
    assert run(config(tmp_path, file=str(file))) == 1


def test_a_record_tells_the_hash_of_the_checkpoints_that_it_leaves(tmp_path, monkeypatch):
    left = tmp_path / "model.pt"
    left.write_bytes(b"weights")
    monkeypatch.setattr(Toy, "outputs", lambda self: [left, tmp_path / "none.pt"])
    run(config(tmp_path))
    assert records.read(records.place(config(tmp_path), "eval").path)["outputs"] == {
        str(left): {"sha256": hashlib.sha256(b"weights").hexdigest(), "bytes": 7, "files": 1}
    }


@pytest.mark.parametrize(
    "content, fragment",
    [
        ("{", "not a whole record"),
        ("[]", "no schema"),
        ('{"schema": 0}', "schema is 0"),
        ('{"schema": 1, "experiment": "eval"}', "config is missing"),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused_and_kept(tmp_path, content, fragment):
    place = records.place(config(tmp_path), "eval")
    place.path.parent.mkdir(parents=True)
    place.path.write_text(content)
    with pytest.raises(UserError, match=fragment):
        run(config(tmp_path))
    assert place.path.read_text() == content


def test_one_name_for_two_configurations_is_refused(tmp_path):
    run(config(tmp_path, name="mine"))
    with pytest.raises(UserError, match="differs in rate"):
        run(config(tmp_path, name="mine", rate=3.0))


def test_rows_must_be_flat(tmp_path):
    place = records.place(config(tmp_path), "eval")
    with pytest.raises(ValueError, match="x of row 0"):
        records.write(place, config(tmp_path), Result([{"x": {"y": 1}}]), command=[], started=0, inputs={})
    assert not place.path.exists()


def test_a_second_process_with_the_same_record_stops_with_a_sentence(tmp_path):
    place = records.place(config(tmp_path), "eval")
    with records.locked(place), pytest.raises(UserError, match="another process is making"):
        run(config(tmp_path))
    assert run(config(tmp_path)) == 1
    assert sorted(path.suffix for path in place.path.parent.iterdir()) == [".json", ".npz"]


@pytest.mark.parametrize("blocked", ["results", "results/eval"])
def test_a_file_where_a_folder_should_be_ends_in_a_sentence(tmp_path, blocked):
    (tmp_path / blocked).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / blocked).write_text("")
    with pytest.raises(UserError, match="cannot write"):
        run(config(tmp_path))


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    import errno
    import os

    run(config(tmp_path))
    place = records.place(config(tmp_path), "eval")
    before = json.loads(place.path.read_text())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        run(config(tmp_path, overwrite=True))
    assert json.loads(place.path.read_text()) == before
    assert not list(tmp_path.rglob("*.tmp"))
