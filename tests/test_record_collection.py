"""Records as a collection: listed, searched, exported and merged by `exec_tables.py ls`, `best`, `export` and `merge`."""

import csv
import errno
import json
import os
import random
import shutil
import time
from pathlib import Path

import background
import numpy as np
import pytest
import records
from table_records import tables

from lib.core import files
from lib.core.errors import UserError
from lib.experiments import EXPERIMENTS
from lib.runs import records as runs_records
from lib.tables import record_index, record_merge, record_queries


def row(layer: str, accuracy: float | None, **more) -> dict:
    return {"probe": "zero-shot", "layer": layer, "data": "digits", "variant": "", "accuracy": accuracy, "n": 10} | more


def probe(folder: Path, name: str, rows: list[dict], net: str = "a", **config) -> Path:
    return records.write(
        folder, "probe", name, rows, **{"model_path": f"models/{net}/model_2.pt", "dataset": "digits", "seed": [0]} | config
    )


@pytest.fixture
def some(tmp_path) -> Path:
    """Two probes of two networks, an evaluation, and a training."""
    probe(tmp_path, "one", [row("layer1", 0.5), row("layer2", 0.7), row("layer2", 0.9, data="digits-c", variant="fog-3")])
    probe(tmp_path, "two", [row("layer1", 0.6, lr=0.1), row("layer2", None)], net="b", seed=[1, 2], batch_size=8)
    records.write(
        tmp_path, "eval", "e", [{"data": "digits", "accuracy": 0.95, "loss": 0.3}], model_path="models/a/model_2.pt"
    )
    records.training(tmp_path, "a", dataset="digits")
    return tmp_path


def listed(folder: Path, *words: str) -> list[str]:
    done = tables(folder, "ls", *words, "--format", "csv")
    assert done.returncode == 0, done.stderr
    return [Path(line["record"]).stem for line in csv.DictReader(done.stdout.splitlines())]


@pytest.mark.parametrize(
    "words, names",
    [
        ((), ["a", "e", "one", "two"]),
        (("probe",), ["one", "two"]),
        (("probe", "eval"), ["one", "two", "e"]),
        (("seed=2",), ["two"]),
        (("seed=0", "seed=1", "probe"), ["one", "two"]),
        (("batch_size=8",), ["two"]),
        (("batch_size=64", "probe"), ["one"]),
        (("lr=0.1",), ["two"]),
        (("layer=layer*", "accuracy=0.90"), ["one"]),
        (("layer=layer[13]", "accuracy=0.7"), []),
        (("accuracy=", "probe"), ["two"]),
        (("network=models/a",), ["e", "one"]),
        (("network=b/model_2.pt",), ["two"]),
        (("network=models/?",), ["e", "one", "two"]),
        (("data=digits-c",), ["one"]),
        (("data=digits-c/fog-3",), ["one"]),
        (("data=digits",), ["a", "e", "one", "two"]),
        (("record=t*",), ["two"]),
        (("started=2026-01-01*", "probe"), ["one", "two"]),
        (("started=2025*",), []),
    ],
)
def test_records_are_listed_by_experiment_network_data_settings_and_columns(some, words, names):
    assert listed(some, *words) == names


def test_conditions_give_what_going_through_every_row_gives(tmp_path):
    draw = random.Random(0)
    for number in range(30):
        rows = [
            row(f"layer{draw.randrange(3)}", draw.choice([None, 0.25, 0.5, 1]), variant=draw.choice(["", "fog-3", None]))
            | ({"lr": draw.choice([0.1, 1, None])} if draw.random() < 0.5 else {})
            for _ in range(draw.randrange(4))
        ]
        probe(tmp_path, f"r{number}", rows, seed=draw.sample(range(4), 2), batch_size=draw.choice([8, 64]))
    index = record_index.Index(tmp_path / "results", EXPERIMENTS, tmp_path / ".cache")
    whole = dict(runs_records.records(tmp_path / "results", EXPERIMENTS))
    for _ in range(60):
        wanted = {
            name: draw.choice(values)
            for name, values in {
                "layer": ("layer0", "layer2"),
                "accuracy": (0.25, 1),
                "seed": (0, 3),
                "lr": (0.1, 1),
            }.items()
            if draw.random() < 0.5
        } | ({"batch_size": 8} if draw.random() < 0.3 else {})

        def fits(record: dict, line: dict, wanted=wanted) -> bool:
            for name, value in wanted.items():
                own = line[name] if name in line else record["config"].get(name)
                if value not in (own if isinstance(own, list) else [own]):
                    return False
            return True

        slow = {
            f"probe/{path.name}": [number for number, line in enumerate(record["rows"]) if fits(record, line)]
            for path, record in whole.items()
        }
        query = record_queries.parse([f"{name}={value}" for name, value in wanted.items()], EXPERIMENTS)
        assert {path: numbers for _, path, numbers in record_queries.fitting(index, query)} == {
            path: numbers for path, numbers in slow.items() if numbers
        }, wanted


def test_the_best_row_comes_with_the_settings_and_the_command_of_its_record(some):
    done = tables(some, "best", "accuracy", "probe")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()
    assert first[0] == "## accuracy: highest of 4 rows"
    assert first[4].split()[0] == "0.9000" and first[4].endswith(" results/probe/one.json")
    assert "command:  python exec_probe.py" in done.stdout and "dataset digits" in done.stdout
    (line,) = csv.DictReader(
        tables(some, "best", "accuracy", "probe", "layer=layer1", "--format", "csv").stdout.splitlines()
    )
    assert (line["accuracy"], line["record"], line["config.batch_size"]) == ("0.6", "results/probe/two.json", "8")
    assert [line["accuracy"] for line in best(some, "accuracy", "--top", "3")] == ["0.95", "0.9", "0.7"]
    assert [line["accuracy"] for line in best(some, "accuracy", "--lowest")] == ["0.5"]
    assert [line["loss"] for line in best(some, "loss")] == ["0.3"]


def test_of_each_value_or_record_the_best_row_is_shown_beside_the_settings_that_differ(some):
    lines = best(some, "accuracy", "probe", "--each", "layer")
    assert [(line["layer"], line["accuracy"], line["record"]) for line in lines] == [
        ("layer1", "0.6", "results/probe/two.json"),
        ("layer2", "0.9", "results/probe/one.json"),
    ]
    assert [line["accuracy"] for line in best(some, "accuracy", "--each", "record")] == ["0.95", "0.9", "0.6"]
    assert [line["accuracy"] for line in best(some, "accuracy", "probe", "--each", "batch_size", "layer", "--lowest")] == [
        "0.5",
        "0.7",
        "0.6",
    ]
    title, _, head, _, one, two, _, note = tables(some, "best", "accuracy", "probe", "--each", "record").stdout.splitlines()
    assert title == "## accuracy: highest of 4 rows, for each record"
    assert head.split()[:2] == ["model_path", "batch_size"] and two.split()[:2] == ["models/b/model_2.pt", "8"]
    assert one.split()[-1] == "results/probe/one.json" and "probe zero-shot; dataset digits" in note
    wrong = tables(some, "best", "accuracy", "--each", "lair")
    assert wrong.returncode == 2 and "--each lair: no record has such a column or flag; did you mean" in wrong.stderr


def test_the_best_row_is_of_all_images_unless_a_part_is_asked_for_and_says_what_it_is_of(some):
    rows = [
        {"data": "digits", "split": "test", "subset": subset, "n": 9, "accuracy": accuracy, "loss": 1.0}
        for subset, accuracy in (("all", 0.2), ("class:7", 1.0))
    ]
    records.write(some, "eval", "parts", rows, model_path="models/a/model_2.pt")
    (line,) = best(some, "accuracy", "eval", "record=parts")
    assert (line["accuracy"], line["subset"]) == ("0.2", "all")
    assert [line["accuracy"] for line in best(some, "accuracy", "eval", "subset=class*")] == ["1.0"]
    printed = tables(some, "best", "accuracy", "probe").stdout.splitlines()
    assert {"probe", "layer"} <= set(printed[2].split())


def test_a_row_without_a_value_is_not_of_the_flags_value(some):
    """As the rows of front ends as they are beside those of a null model."""
    for name, null in (("plain", None), ("both", "noise")):
        rows = [
            {"front_layer": "conv1", "end_layer": "conv1", "null": one, "accuracy": 0.5}
            for one in dict.fromkeys((None, null))
        ]
        records.write(some, "stitch", name, rows, null=null is not None)
    assert [line["record"] for line in best(some, "accuracy", "stitch", "null=", "--top", "9")] == [
        "results/stitch/both.json",
        "results/stitch/plain.json",
    ]
    assert listed(some, "stitch", "null=noise") == ["both"] and listed(some, "stitch", "null=true") == []


def best(folder: Path, *words: str) -> list[dict]:
    return list(csv.DictReader(tables(folder, "best", *words, "--format", "csv").stdout.splitlines()))


def test_of_loss_the_least_is_best_and_records_of_an_earlier_version_are_none(some):
    for name, loss in (("f", 0.1), ("g", 0.2)):
        path = records.write(some, "eval", name, [{"data": "digits", "loss": loss}], model_path="models/a/model_2.pt")
        if name == "f":
            path.write_text(json.dumps(json.loads(path.read_text()) | {"revision": 0}))
    assert [line["loss"] for line in best(some, "loss")] == ["0.2"]
    assert [line["loss"] for line in best(some, "loss", "--no-lowest")] == ["0.3"]
    assert "earlier" in tables(some, "ls", "eval").stdout


def test_export_has_every_row_that_fits_with_every_digit_and_setting(some):
    probe(some, "third", [row("layer9", 1 / 3)])
    done = tables(some, "export", "made.csv", "probe", "layer=layer[19]")
    assert done.returncode == 0 and done.stdout.startswith("made.csv: 3 rows of 3 records"), done.stderr
    found = list(csv.DictReader(open(some / "made.csv")))
    assert [line["accuracy"] for line in found] == ["0.5", repr(1 / 3), "0.6"]
    assert [line["run.record"] for line in found] == [f"results/probe/{name}.json" for name in ("one", "third", "two")]
    assert found[2]["config.seed"] == "[1, 2]" and found[2]["lr"] == "0.1" and found[0]["lr"] == ""
    assert list(found[0])[:3] == ["probe", "layer", "data"] and list(found[0])[-1].startswith("config.")


def test_parquet_has_the_same_with_numbers_as_numbers(some):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the optional pyarrow is not installed")
    done = tables(some, "export", "made.parquet", "probe")
    assert done.returncode == 0, done.stderr
    table = parquet.read_table(some / "made.parquet")
    assert table["accuracy"].to_pylist() == [0.5, 0.7, 0.9, 0.6, None] and table["n"].to_pylist() == [10] * 5
    assert table["config.batch_size"].to_pylist() == [64, 64, 64, 8, 8]


@pytest.mark.parametrize(
    "words, status, told",
    [
        (("ls", "evil"), 2, ("evil", "eval")),
        (("ls", "batchsize=8"), 2, ("batchsize=8", "batch_size")),
        (("best",), 2, ("best takes more arguments",)),
        (("best", "acuracy"), 2, ("acuracy", "accuracy")),
        (("best", "accuracy", "layer=layer8"), 1, ("accuracy", "no row that fits")),
        (("export", "made.xlsx"), 2, (".csv or .parquet",)),
        (("export", "no/made.csv", "layer=nowhere"), 1, ("not written",)),
        (("export", "file/made.csv"), 1, ("file/made.csv",)),
        (("merge", "nowhere"), 1, ("nowhere", "no such folder")),
        (("merge", "results"), 2, ("results", "one lies in the other")),
        (("merge", "models"), 1, ("models", "holds no records")),
        (("ls", "--top", "2"), 2, ("--top",)),
        (("ls", "--missing"), 2, ("--missing", "ls")),
        (("merge", "models", "--format", "csv"), 2, ("--format", "merge")),
    ],
)
def test_a_mistake_is_one_sentence(some, words, status, told):
    (some / "file").write_text("")
    (some / "models").mkdir()
    done = tables(some, *words)
    assert done.returncode == status and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in told), done.stderr


def test_parquet_without_its_library_says_what_to_install(some, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    done = tables(some, "export", "made.parquet")
    assert done.returncode == 1 and "pip install pyarrow" in done.stderr and not (some / "made.parquet").exists()


# --- the index


def index_file(folder: Path) -> Path:
    (path,) = (folder / ".cache").glob("records-*.index")
    return path


def test_the_index_follows_what_happens_to_the_records(some, monkeypatch):
    assert listed(some, "probe") == ["one", "two"]
    read = []
    whole = runs_records.read
    monkeypatch.setattr(runs_records, "read", lambda path, *more: read.append(path.name) or whole(path, *more))
    assert listed(some, "probe") == ["one", "two"] and not read
    probe(some, "three", [row("layer1", 0.1)])
    (some / "results/probe/one.json").unlink()
    probe(some, "two", [row("layer7", 0.2)])
    assert listed(some, "probe") == ["three", "two"] and sorted(read) == ["three.json", "two.json"]
    assert listed(some, "layer=layer7") == ["two"] and listed(some, "layer=layer2") == []


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"", lambda content: content[::-1]])
def test_an_index_that_is_gone_or_damaged_is_made_again(some, damage):
    assert listed(some, "layer=layer2") == ["one", "two"]
    path, content = index_file(some), index_file(some).read_bytes()
    path.write_bytes(damage(content))
    assert listed(some, "layer=layer2") == ["one", "two"]
    assert path.read_bytes() != damage(content)
    flipped = bytearray(path.read_bytes())
    flipped[flipped.find(b"layer2")] ^= 1
    path.write_bytes(flipped)
    assert listed(some, "layer=layer2") == ["one", "two"]
    path.unlink()
    assert listed(some, "layer=layer2") == ["one", "two"]


def test_an_index_on_a_full_disk_is_a_warning(some, monkeypatch):
    whole = files.write_atomically

    def write(path, fill):
        if ".cache" in Path(path).parts:
            raise UserError(f"cannot write {path}: {os.strerror(errno.ENOSPC)}")
        whole(path, fill)

    monkeypatch.setattr(files, "write_atomically", write)
    done = tables(some, "ls", "probe")
    assert done.returncode == 0 and "two.json" in done.stdout and "No space left" in done.stderr
    assert not list((some / ".cache").glob("*.index"))


def test_a_broken_record_is_named_every_time_and_the_others_are_found(some):
    (some / "results/probe/bad.json").write_text('{"schema": 1')
    for _ in range(2):
        done = tables(some, "ls", "probe")
        assert done.returncode == 0 and "bad.json: not a whole record; left out" in done.stderr and "one.json" in done.stdout
    many = {f"column {number}": number for number in range(2000)}
    probe(some, "wide", [many])
    done = tables(some, "ls", "probe")
    assert done.returncode == 0 and "wide.json: with it, probe has more than 1900 columns; left out" in done.stderr


def test_no_records_are_no_error(tmp_path):
    for words in (("ls",), ("best", "accuracy"), ("export", "a.csv")):
        done = tables(tmp_path, *words)
        assert done.returncode == 0 and done.stdout == "no records under results/\n"


# --- merging


def machine(folder: Path, name: str, values: dict[str, float], started: int, commit: str = "a" * 40) -> Path:
    """A results folder of a machine, with arrays, a figure and documents beside its records, and files of nobody."""
    for run, value in values.items():
        path = probe(folder / name, run, [row("layer1", value)])
        record = json.loads(path.read_text()) | {"started": f"2026-01-0{started}T00:00:00+00:00", "arrays": f"{run}.npz"}
        files.write_json(path, record | {"environment": {"commit": commit}})
        path.with_suffix(".npz").write_bytes(b"arrays of %r" % value)
        path.with_name(f"{run}-map.png").write_bytes(b"map of %r" % value)
        path.with_suffix("").mkdir()
        (path.with_suffix("") / "layer.json").write_text(f'"document of {value!r}"')
    (folder / name / "results" / "notes.txt").write_text("the same everywhere")
    (folder / name / "results" / "probe" / "log.out").write_text(name)
    (folder / name / "results" / "probe" / ".half.tmp").write_text("hidden")
    return folder / name / "results"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def merged(folder: Path, target: str, *sources: Path) -> str:
    done = tables(folder, "merge", *sources, "--results-dir", target)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_merge_is_the_union_with_all_that_lies_beside_records(tmp_path):
    one, two = machine(tmp_path, "one", {"x": 0.1, "y": 0.2}, 1), machine(tmp_path, "two", {"y": 0.2, "z": 0.3}, 2)
    told = merged(tmp_path, "all", one, two)
    assert told.startswith("all: 3 records are new, 0 were there, 1 conflicts")  # log.out
    found = content(tmp_path / "all")
    for run, value in {"x": b"0.1", "y": b"0.2", "z": b"0.3"}.items():
        assert found[f"probe/{run}.npz"] == b"arrays of " + value and found[f"probe/{run}-map.png"] == b"map of " + value
        assert found[f"probe/{run}/layer.json"] == b'"document of %s"' % value
    assert json.loads(found["probe/y.json"])["started"].startswith("2026-01-01")  # what began first
    assert sorted(found.keys() - content(one).keys() - content(two).keys())[0].startswith("probe/log~")
    assert not [name for name in found if "/." in name or name.startswith(".")]
    assert "all: 0 records are new, 3 were there" in merged(tmp_path, "all", two, one)
    assert content(tmp_path / "all") == found


def test_a_conflict_is_named_and_both_are_kept(tmp_path):
    one, two = machine(tmp_path, "one", {"x": 0.1}, 1), machine(tmp_path, "two", {"x": 0.2}, 2)
    told = merged(tmp_path, "all", one, two)
    assert f"conflict: all/probe/x.json is that of {two}/probe/x.json" in told
    (aside,) = (tmp_path / "all/probe").glob("x~*.json")
    assert f"{aside.name} is that of {one}/probe/x.json: they differ in accuracy of row 0 is 0.1 instead of 0.2" in told
    record = json.loads(aside.read_text())
    assert record["rows"][0]["accuracy"] == 0.1 and record["arrays"] == f"{aside.stem}.npz"
    assert aside.with_suffix(".npz").read_bytes() == b"arrays of 0.1"
    assert aside.with_name(f"{aside.stem}-map.png").read_bytes() == b"map of 0.1"
    assert (tmp_path / "all/probe/x.npz").read_bytes() == b"arrays of 0.2"
    assert listed(tmp_path, "--results-dir", "all") == ["x", aside.stem]


def test_a_copy_that_was_cut_off_replaces_no_whole_file_and_is_named(tmp_path):
    for number in range(4):  # whichever hash is the least
        one = machine(tmp_path, f"one{number}", {"x": 0.1}, 1)
        np.savez(one / "probe/x.npz", values=np.arange(100) + number)
        two = Path(shutil.copytree(one, tmp_path / f"two{number}"))
        for name in ("x.npz", "x-map.png"):
            whole = (one / "probe" / name).read_bytes()
            (two / "probe" / name).write_bytes(whole[: len(whole) // 2])
        before = content(one)
        cut = Path(shutil.copytree(two, tmp_path / f"cut{number}"))
        for target, source in ((one, cut), (two, one)):
            told = merged(tmp_path, str(target), source)
            assert f"{one}/probe/x.npz is taken, which is not the same as " in told
            assert content(target) == before
        assert "is taken" not in merged(tmp_path, str(one), two)
        third = Path(shutil.copytree(two, tmp_path / f"third{number}"))
        (third / "probe/x.npz").write_bytes((two / "probe/x.npz").read_bytes()[:9])
        told = merged(tmp_path, str(one), two, third)
        assert f"{one}/probe/x.npz is taken, which is not the same as {third}/probe/x.npz\n" in told  # and not two's


def test_the_order_of_merging_changes_no_byte(tmp_path):
    places = [
        machine(tmp_path, "one", {"x": 0.1, "y": 0.2}, 3),
        machine(tmp_path, "two", {"x": 0.2, "y": 0.2}, 2),
        machine(tmp_path, "three", {"x": 0.3, "z": 0.1}, 1, "b" * 40),
        machine(tmp_path, "four", {"x": 0.1, "z": 0.1}, 4),
    ]
    merged(tmp_path, "at-once", *places)
    expected = content(tmp_path / "at-once")
    assert len(list((tmp_path / "at-once/probe").glob("x~*.json"))) == 2
    for turn in range(6):
        random.Random(turn).shuffle(places)
        for place in places:
            merged(tmp_path, f"turn{turn}", place)
        assert content(tmp_path / f"turn{turn}") == expected
    merged(tmp_path, "pair", *places[:2])
    merged(tmp_path, "other", *places[1:])
    merged(tmp_path, "other", tmp_path / "pair")
    assert content(tmp_path / "other") == expected


def test_broken_records_are_named_and_left_where_they_are(tmp_path):
    one, two = machine(tmp_path, "one", {"x": 0.1, "y": 0.2}, 1), machine(tmp_path, "two", {"x": 0.2}, 2)
    (one / "probe/y.json").write_text("{")
    (two / "probe/x.json").write_text("[]")
    done = tables(tmp_path, "merge", one, "--results-dir", two)
    assert done.returncode == 0 and "y.json: not a whole record; left out" in done.stderr and "x.json" in done.stderr
    assert (two / "probe/x.json").read_text() == "[]" and (two / "probe/x.npz").read_bytes() == b"arrays of 0.2"
    assert len(list((two / "probe").glob("x~*.json"))) == 1 and not list((two / "probe").glob("y*"))


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    one, two = machine(tmp_path, "one", {"x": 0.1, "y": 0.2}, 1), machine(tmp_path, "two", {"x": 0.2}, 2)
    before, copy, count = content(two), shutil.copy2, []

    def full(source, target):
        count.append(source)
        if len(count) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return copy(source, target)

    monkeypatch.setattr(shutil, "copy2", full)
    done = tables(tmp_path, "merge", one, "--results-dir", two)
    assert done.returncode == 1 and "No space left" in done.stderr and content(two) == before
    assert not list(two.glob(".merge*"))


@pytest.mark.parametrize("after", range(0, 12, 2))
def test_a_merge_that_is_stopped_goes_on_and_mixes_nothing(tmp_path, monkeypatch, after):
    one, two = machine(tmp_path, "one", {"x": 0.1, "y": 0.2}, 1), machine(tmp_path, "two", {"x": 0.2, "y": 0.3}, 2)
    merged(tmp_path, "whole", one, two)
    merged(tmp_path, "stopped", one)
    replace, count = os.replace, []

    def stop(source, target):
        count.append(target)
        if len(count) > after:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(record_merge.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            record_merge.merge([two], tmp_path / "stopped", EXPERIMENTS)
    merged(tmp_path, "stopped", two, one)
    found, expected = content(tmp_path / "stopped"), content(tmp_path / "whole")
    assert {name: found[name] for name in expected} == expected
    assert all("~" in name and name.endswith((".npz", ".png", ".json")) for name in found.keys() - expected.keys())


def test_two_processes_merge_into_one_folder(tmp_path):
    sources = [machine(tmp_path, name, {f"{name}{n}": n / 10 for n in range(5)}, 1) for name in ("one", "two")]
    words = [("exec_tables.py", "merge", str(source), "--results-dir", "all") for source in sources]
    processes = [background.start(command, tmp_path, f"log-{number}") for number, command in enumerate(words)]
    for number, process in enumerate(processes):
        process.join(120)
        said = (tmp_path / f"log-{number}").read_text()
        assert process.exitcode == 0 or process.exitcode == 1 and "another process merges into all" in said, said
    for source in sources:  # whichever had to wait
        merged(tmp_path, "all", source)
    assert len(list((tmp_path / "all/probe").glob("*.json"))) == 10 and not list((tmp_path / "all").glob(".*"))


@pytest.mark.slow
def test_ten_thousand_records_are_merged_in_half_a_minute_and_searched_in_a_second(tmp_path):
    lines = [
        row(f"layer{number}", number / 20, origin="built-in", split="test", group="all", se=0.01) for number in range(20)
    ]
    for number in range(10_000):
        probe(tmp_path / f"machine{number % 4}", f"r{number}", lines, net=str(number % 50), seed=[number % 5])
    begin = time.process_time()
    merged(tmp_path, "results", *(tmp_path / f"machine{number}" / "results" for number in range(4)))
    assert time.process_time() - begin < 30
    listed(tmp_path, "seed=0")
    for words in (("ls", "seed=0", "network=models/7"), ("best", "accuracy", "layer=layer3"), ("ls", "layer=layer1")):
        begin = time.process_time()
        assert tables(tmp_path, *words).returncode == 0
        assert time.process_time() - begin < 1, words
