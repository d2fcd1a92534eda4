"""From Python: records as a pandas frame, and the notebooks of `examples/`, cell by cell."""

import json
import sys

import matplotlib
import pytest
from conftest import ROOT, script

from lib.core.errors import UserError
from lib.runs import records


def run_notebook(name: str, folder, monkeypatch) -> dict:
    """What a notebook's cells leave behind, run in order in a folder."""
    matplotlib.use("agg")
    monkeypatch.chdir(folder)
    found: dict = {}
    for cell in json.loads((ROOT / "examples" / name).read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "a notebook is kept without its outputs"
            exec(compile("".join(cell["source"]), name, "exec"), found)
    return found


@pytest.fixture
def measured(trained):
    for words in (("-ood", "patches"), ("-ood", "uniform-grey")):
        done = script("exec_ood_layers.py", "models/a/model_2.pt", *words, "-l", "cuts", "--max-examples", 60, cwd=trained)
        assert done.returncode == 0, done.stderr
    return trained


def test_a_frame_has_a_line_for_every_row_with_what_was_asked(measured):
    pandas = pytest.importorskip("pandas")
    paths = sorted((measured / "results" / "ood_layers").glob("*.json"))
    both = [records.read(path) for path in paths]
    frame = records.frame(measured / "results" / "ood_layers")
    assert isinstance(frame, pandas.DataFrame) and len(frame) == sum(len(record["rows"]) for record in both)
    assert list(frame["auroc"]) == [row["auroc"] for record in both for row in record["rows"]]
    assert set(frame["record"]) == set(map(str, paths)) and set(frame["config.max_examples"]) == {60}
    assert records.frame(paths[0]).equals(frame[frame["record"] == str(paths[0])].reset_index(drop=True))


def test_a_frame_without_pandas_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="records.frame needs pandas: pip install pandas"):
        records.frame("results/probe")


def test_the_notebook_of_a_probe_study_runs(tmp_path, monkeypatch):
    found = run_notebook("probe_own_network.ipynb", tmp_path, monkeypatch)
    assert max(found["by_val"][2]) > 0.8 and found["chosen"].layer in ("block1", "block2", "block3")


def test_the_notebook_of_a_figure_runs(measured, monkeypatch):
    pytest.importorskip("pandas")
    run_notebook("figure_from_records.ipynb", measured, monkeypatch)
    assert (measured / "energies_by_layer.png").is_file()
