"""Revisions of a method: a record of before is neither taken for one of after, nor joined with it, nor lost."""

import contextlib
import dataclasses
import json
import shutil
from dataclasses import dataclass
from typing import ClassVar

import pytest
import records as made
from table_records import KNOWN, NCG, library, ncg_row, three_seeds

from lib.core import cache_folders
from lib.core.errors import UserError
from lib.experiments import EXPERIMENTS
from lib.runs import cli, records, revisions, script
from lib.runs.cli import RunConfig, flag
from lib.runs.command_lines import Experiment
from lib.runs.records import Result
from lib.tables import compare, missing_runs, rerun, summaries


@dataclass(frozen=True, kw_only=True)
class Before(RunConfig):
    """A toy experiment."""

    rate: float = flag(1.0, help="rate")


@dataclass(frozen=True, kw_only=True)
class After(Before):
    """The same, with its method corrected."""

    revision: ClassVar[int] = 2


def run(folder, kind) -> bool:
    """Whether the experiment ran for this configuration."""
    ran = []
    toy = Experiment(kind, lambda config: ran.append(config) or Result([{"rate": kind.revision}]))
    config = kind(results_dir=str(folder / "results"), cache_dir=str(folder / "cache"), quiet=True)
    script.run({"toy": toy}, "toy", config, ["exec_toy.py"])
    return bool(ran)


def record(folder) -> dict:
    (path,) = (folder / "results/toy").glob("*.json")
    return json.loads(path.read_text())


def test_a_record_of_an_earlier_revision_is_made_again_under_its_name(tmp_path, capsys):
    assert run(tmp_path, Before) and not run(tmp_path, Before) and record(tmp_path)["revision"] == 1
    assert run(tmp_path, After) and "of an earlier version of the method; running again" in capsys.readouterr().err
    assert record(tmp_path)["revision"] == 2 and not run(tmp_path, After)


def test_a_record_without_a_revision_is_of_the_first(tmp_path):
    run(tmp_path, Before)
    (path,) = (tmp_path / "results/toy").glob("*.json")
    content = record(tmp_path)
    del content["revision"]
    path.write_text(json.dumps(content))
    assert records.revision(records.read(path)) == 1 and not run(tmp_path, Before) and run(tmp_path, After)


def test_a_record_of_a_newer_revision_is_refused_and_left_as_it_is(tmp_path):
    run(tmp_path, After)
    with pytest.raises(UserError, match="newer version of the suite; --name keeps both, --overwrite replaces it"):
        run(tmp_path, Before)
    assert record(tmp_path)["rows"] == [{"rate": 2}]


@pytest.fixture(autouse=True)
def first(monkeypatch):
    """All experiments before any correction of their methods."""
    for experiment in EXPERIMENTS.values():
        monkeypatch.setattr(experiment.configuration, "revision", 1)


@pytest.fixture
def corrected(tmp_path, monkeypatch):
    """`exec_ncg.py` after a correction of its method, with three records of before."""
    three_seeds(tmp_path, (0.30, 0.36, 0.39))
    monkeypatch.setattr(EXPERIMENTS["ncg"].configuration, "revision", 2)


def present(folder, name: str, seed: int, value: float) -> None:
    """A record like those of `three_seeds`, of the present revision."""
    path = made.training(folder, f"{'abc'[seed]}/{seed}", seed=seed)
    made.write(folder, "ncg", name, [ncg_row(path, value)], model_path=path, seed=seed)


def test_records_of_an_earlier_revision_are_shown_apart_and_not_judged(tmp_path, corrected):
    present(tmp_path, "new", 0, 0.5)
    earlier, now = sorted(compare.compare(NCG, KNOWN, library(tmp_path)), key=lambda line: not line.earlier)
    assert earlier.n == 3 and earlier.verdict == compare.EARLIER and "its command runs it again" in earlier.note
    assert now.n == 1 and now.mean == 0.5 and now.verdict == "above" and not now.note
    rows = summaries.rows("ncg", library(tmp_path))
    assert sorted((row["ncg"], row["runs"]) for row in rows) == [(pytest.approx(0.35), 3), (0.5, 1)]
    assert sum("earlier version 1" in row["setting"] for row in rows) == 1
    assert {row["runs"]: row["version"] for row in rows} == {3: "of an earlier version", 1: ""}


def test_a_cell_that_only_earlier_revisions_fill_is_asked_for_again(tmp_path, corrected):
    known, table = library(tmp_path), dataclasses.replace(NCG, setup=NCG.setup | {"net.model_type": "CNN002"})
    lines = compare.compare(table, KNOWN, known)
    assert [command.split()[1] for command in missing_runs.commands("ncg", lines, known, (0,))] == ["exec_ncg.py"]


def test_a_training_of_an_earlier_revision_is_another_network(tmp_path, monkeypatch):
    three_seeds(tmp_path, (0.30, 0.36, 0.39))
    monkeypatch.setattr(EXPERIMENTS["train"].configuration, "revision", 2)
    path = tmp_path / "results/train/a-0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"revision": 2}))
    assert sorted(line.n for line in compare.compare(NCG, KNOWN, library(tmp_path))) == [1, 2]


def test_a_record_of_an_earlier_revision_is_not_checked_against_new_numbers(tmp_path, corrected):
    with pytest.raises(UserError, match="of an earlier version of the method, whose numbers were other; --rerun"):
        rerun.check(tmp_path / "results/ncg/n0.json", EXPERIMENTS)


def trained(folder, *words) -> int:
    """Trains for an epoch in the folder; how many epochs the record has."""
    with contextlib.chdir(folder):
        argv = ["small_cnn", "-d", "digits", "-dir", "a", "-e", "1", "--max-examples", "64", "-gpu", "-1", "--quiet", *words]
        config = cli.parse(EXPERIMENTS["train"].configuration, argv)
        path = script.run(EXPERIMENTS, "train", config, ["exec_train.py", *argv])
        return json.loads(path.read_text())["revision"]


def test_a_training_of_an_earlier_revision_begins_again_instead_of_continuing(tmp_path, monkeypatch, capsys):
    assert trained(tmp_path) == 1
    begun = (tmp_path / "models/a/init.pt").stat().st_mtime_ns
    monkeypatch.setattr(EXPERIMENTS["train"].configuration, "revision", 2)
    assert trained(tmp_path) == 2 and "of an earlier version of the method; beginning again" in capsys.readouterr().err
    assert (tmp_path / "models/a/init.pt").stat().st_mtime_ns > begun


def test_a_training_of_a_newer_revision_is_refused_where_its_record_is_gone(tmp_path, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(EXPERIMENTS["train"].configuration, "revision", 2)
        trained(tmp_path)
    shutil.rmtree(tmp_path / "results")
    with pytest.raises(UserError, match="models/a is of a newer version of the suite; choose another -dir, or --overwrite"):
        trained(tmp_path)


def test_what_earlier_revisions_have_left_is_listed(tmp_path, monkeypatch):
    trained(tmp_path)
    (tmp_path / ".cache/features/key").mkdir(parents=True)
    places = tmp_path / "results", tmp_path / "models", tmp_path / ".cache"
    assert not revisions.earlier(EXPERIMENTS, *places)
    monkeypatch.setattr(EXPERIMENTS["train"].configuration, "revision", 3)
    monkeypatch.setitem(cache_folders.REVISIONS, "features", 2)
    listed = revisions.earlier(EXPERIMENTS, *places)
    assert [(row["what"], row["revision"], row["now"]) for row in listed] == [
        ("record", 1, 3),
        ("checkpoints", 1, 3),
        ("cache", 1, 2),
    ]
    assert listed[0]["made again by"] == f"exec_tables.py --rerun {listed[0]['path']}"
    assert cache_folders.folder(".cache", "features").name == "features-2"
    monkeypatch.chdir(tmp_path)
    told = cli.parse(EXPERIMENTS["data"].configuration, ["check"]).answer()
    assert all(path in told for path in (listed[0]["path"].removeprefix(f"{tmp_path}/"), "models/a", ".cache/features"))
