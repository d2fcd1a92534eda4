"""exec_tables.py from the command line, on whole and on broken records."""

import csv
import json
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT
from table_records import (
    EVERY,
    tables,
    three_seeds,
)

from lib.experiments import EXPERIMENTS
from lib.tables import (
    missing_runs,
    papers,
    summaries,
)


def test_tables_from_the_command_line_in_files_and_without_torch(tmp_path):
    three_seeds(tmp_path, (0.3, 0.36, 0.39))
    done = tables(tmp_path, "ncg/pixel", "--format", "csv", "--out", "made")
    assert done.returncode == 0 and done.stdout.strip() == "made/ncg-pixel.csv", done.stderr
    found = [row for row in csv.DictReader(open(tmp_path / "made/ncg-pixel.csv")) if row["n"] != "0"]
    assert [(row["set"], row["measure"], row["method"], row["n"]) for row in found] == [("M-0", "NCG", "nat", "3")]
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); sys.modules['torch'] = None; "
        f"sys.argv = ['exec_tables.py', 'ncg/pixel', 'train']; "
        f"runpy.run_path({str(ROOT / 'exec_tables.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "0.3500 ± 0.0458" in done.stdout and "## train" in done.stdout, done.stderr


def test_measured_leaves_out_the_cells_and_tables_without_a_record(tmp_path):
    three_seeds(tmp_path)
    done = tables(tmp_path, "ncg/pixel", "ncg/table3", "--measured")
    assert done.returncode == 0 and "not measured" not in done.stdout and "table3" not in done.stdout
    assert [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("M-")] == [["M-0", "NCG", "nat"]]
    assert tables(tmp_path, "ncg/table3", "--measured").stdout == "no records under results/ that fill these tables\n"


@pytest.mark.parametrize(
    "words, status, told",
    [
        (("ilc/fig5", "--measured", "--missing"), 2, ("--measured", "--missing")),
        (("ilc/fig5", "--missing", "--format", "csv"), 2, ("--missing", "--format")),
        (("--network", "models/a", "--report", "r.html"), 2, ("--network --report", "one of them")),
        (("eval", "--missing"), 2, ("--missing is for the papers' tables",)),
        (("ilc/fig55",), 2, ("ilc/fig55", "ilc/fig5")),
        (("evil",), 2, ("evil", "eval")),
        (("--check",), 2, ("--rerun",)),
        (("eval", "--format", "xml"), 2, ("--format xml",)),
        (("--network", "models/none.pt"), 1, ("models/none.pt",)),
        (("ilc/fig5", "--out", "file/x"), 1, ("file/x",)),
        (("--report", "file/x.html"), 2, ("file/x.html", "no folder file")),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, words, status, told):
    (tmp_path / "file").write_text("")
    done = tables(tmp_path, *words)
    assert done.returncode == status and len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in told), done.stderr


def test_a_broken_record_is_named_and_the_others_go_on(tmp_path):
    three_seeds(tmp_path)
    whole = (tmp_path / "results/ncg/n0.json").read_text()
    (tmp_path / "results/ncg/n1.json").write_text(whole[:100])
    (tmp_path / "results/ncg/n9.json").write_text("[]")
    done = tables(tmp_path, "ncg/pixel")
    assert done.returncode == 0 and "n1.json: not a whole record" in done.stderr and "n9.json" in done.stderr
    assert "0.3450 ± 0.0636" in done.stdout


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda record: record["rows"][0].update(ncg="0.5"), "ncg of row 0 is '0.5', no number"),
        (lambda record: record["rows"][0].update(accuracy=True), "accuracy of row 0 is True, no number"),
        (lambda record: record.update(inputs={"mnist": {"sha256": "a"}}), "file mnist has no hash and size"),
        (lambda record: record["seconds"].update(total="1"), "seconds are not all numbers"),
        (lambda record: record.update(command=[1]), "command is not all words"),
    ],
)
def test_a_record_with_values_of_the_wrong_kind_is_named_and_left_out(tmp_path, change, told):
    three_seeds(tmp_path)
    path = tmp_path / "results/ncg/n1.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    done = tables(tmp_path, "ncg/pixel", "ncg")
    assert done.returncode == 0 and f"n1.json: not a valid record: {told}; left out" in done.stderr
    assert "0.3450 ± 0.0636" in done.stdout


def test_every_number_of_a_table_is_declared_as_one_beside_its_experiment():
    for name in summaries.summarised(EXPERIMENTS):
        shown = EXPERIMENTS[name].configuration.summary
        declared = EXPERIMENTS[name].columns
        assert set(shown.measured) <= declared.numbers.keys(), name
        assert set(shown.keys) <= declared.defined.keys(), name
    for table in EVERY.values():
        for cell in papers.spec.cells(table):
            read = {*cell.interval, *([cell.metric] if isinstance(cell.metric, str) and cell.metric else [])}
            if cell.experiment in EXPERIMENTS:
                assert read <= EXPERIMENTS[cell.experiment].columns.numbers.keys(), cell.labels


def test_missing_prints_commands_and_nothing_else(tmp_path):
    done = tables(tmp_path, "hyperplanes/f3", "--missing", "--seeds", "0", "1")
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 0 and len(lines) == len(set(lines)) == 13 and lines[6] == missing_runs.AFTER
    assert [line.split()[1] for line in lines] == ["exec_train.py"] * 6 + ["then,"] + ["exec_reinit.py"] * 6
    assert sum("-s 1" in line for line in lines) == 6


def test_no_stage_of_the_missing_commands_reads_what_it_leaves(tmp_path):
    for paper in papers.PAPERS:
        done = tables(tmp_path, paper, "--missing")
        made, scripts_ = set(), set()
        for stage in done.stdout.strip().split(f"\n{missing_runs.AFTER}\n"):
            commands = [shlex.split(line) for line in stage.splitlines()]
            read = {word for words in commands for word in re.findall(r"models/[^:\s]*\.pt", shlex.join(words))}
            assert all(path.rpartition("/")[0] in made for path in read) and not scripts_ & {"exec_stitch_ood.py"}
            made |= {"models/" + words[words.index("-dir") + 1] for words in commands if words[1] == "exec_train.py"}
            scripts_ |= {words[1] for words in commands}
        assert len(made) > 2 and (paper != "stitching" or [words[1] for words in commands] == ["exec_stitch_ood.py"])


def test_a_reader_who_has_read_enough_is_no_error(tmp_path):
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'exec_tables.py'))} --missing | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1 and not done.stderr
