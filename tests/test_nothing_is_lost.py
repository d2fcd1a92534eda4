"""What was computed is kept, whatever names, fonts, terminals and figures do at the end."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import ROOT, script
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from lib.core import figures
from lib.core.errors import Interrupted, UsageError
from lib.core.text import as_bytes, readable
from lib.experiments.config.data import DataConfig
from lib.plots import confusion, filters, ncg
from lib.runs import drawing, records
from lib.runs.command_lines import Experiment
from lib.runs.records import Result

SMALL = ("--max-examples", "20", "-gpu", "-1")


def tree(folder: Path, classes: list[bytes], picture: bytes = b"caf\xe9.png") -> None:
    """An image folder with these classes, and two images in each."""
    images = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    for name in classes:
        below = os.path.join(os.fsencode(folder), b"test", name)
        os.makedirs(below)
        for file in (b"0.png", picture):
            Image.fromarray(images).save(os.path.join(below, file), format="png")


def record(folder: Path, experiment: str) -> dict:
    (path,) = (folder / "results" / experiment).glob("*.json")
    return json.loads(path.read_text("utf-8"))


def test_names_that_are_no_utf8_are_shown_with_replacements_and_kept_byte_for_byte(tmp_path):
    root = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"a\xff")))
    tree(root, [b"c\xe9", b"c\xe8", "\u5b9f".encode()])
    given = f"folder={root.name}"
    done = script("exec_data.py", "show", given, cwd=tmp_path)
    assert done.returncode == 0 and "class:c\\xe9" in done.stdout and "a\\xff" in done.stdout, done.stderr
    made = record(tmp_path, "data")
    assert made["config"]["arguments"] == [given] and made["command"][-1] == given
    assert [row["subset"] for row in made["rows"]] == ["all", "class:c\udce8", "class:c\udce9", "class:\u5b9f"]
    assert len(list((tmp_path / "results/data").glob("*.png"))) == 1
    again = script("exec_data.py", "show", given, cwd=tmp_path)
    assert "already there" in again.stderr


def test_a_network_answers_for_classes_whose_names_are_formulas_or_no_utf8(trained, tmp_path):
    tree(tmp_path / "odd", [b"a$^$b", b"c_{", b"d\xff", *(b"%d" % number for number in range(7))])
    words = ("-d", f"folder={tmp_path / 'odd'}", "--save-logits", "--name", "odd", "--results-dir", tmp_path / "results")
    done = script("exec_eval.py", "models/a/model_2.pt", *words, *SMALL, cwd=trained)
    assert done.returncode == 0 and "was not drawn" not in done.stderr, done.stderr
    assert "class:a$^$b" in {row["subset"] for row in record(tmp_path, "eval")["rows"]}
    assert {file.suffix for file in (tmp_path / "results/eval").iterdir()} == {".json", ".npz", ".png"}


@pytest.mark.parametrize("setting", ["text.usetex", "axes.formatter.use_mathtext"])
def test_figures_are_drawn_where_matplotlib_is_set_to_formulas(trained, tmp_path, setting, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, setting, True)
    words = ("--name", "plain", "--results-dir", tmp_path / "results")
    done = script("exec_eval.py", "models/a/model_2.pt", *words, *SMALL, cwd=trained)
    assert done.returncode == 0 and (tmp_path / "results/eval/plain.png").exists() and "not drawn" not in done.stderr, (
        done.stderr
    )


def written(folder: Path, draw) -> list[str]:
    """The warnings of a record with these figures; the record must be there."""
    config = DataConfig(action="show", arguments=("digits",), results_dir=str(folder / "results"), quiet=True)
    place = records.place(config, "data")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        record = records.write(place, config, Result([{"n": 1}]), command=["x"], started=0.0, inputs={})
        drawing.draw_anew(place, record, Experiment(DataConfig, Result, lambda run: draw()), "png", "screen")
    assert records.read(place.path)["rows"] == [{"n": 1}]
    return [str(warning.message) for warning in said]


def test_a_figure_that_fails_is_a_warning_and_the_record_and_other_figures_are_there(tmp_path):
    class Failing(Figure):
        def savefig(self, *words, **flags):
            raise RuntimeError("no font")

    old = tmp_path / "results/data/digits-s0-x-bad.png"
    (warning,) = written(tmp_path, lambda: {"bad": Failing(), "good": Figure()})
    assert "-bad.png was not drawn: RuntimeError: no font" in warning
    assert [path.name.rpartition("-")[2] for path in (tmp_path / "results/data").glob("*.png")] == ["good.png"]
    assert not old.exists()


def test_figures_that_cannot_even_be_made_are_a_warning(tmp_path):
    def draw():
        raise ValueError("too many\nlines")

    assert written(tmp_path, draw) == ["no figure was drawn: ValueError: too many"]


def test_an_interruption_while_figures_are_drawn_is_one(tmp_path):
    def draw():
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        written(tmp_path, draw)


def test_a_figure_of_an_earlier_run_does_not_outlast_one_that_fails(tmp_path):
    written(tmp_path, lambda: {"": Figure()})
    (path,) = (tmp_path / "results/data").glob("*.png")
    figure = Figure()
    figure.savefig = lambda *words, **flags: 1 / 0  # ty: ignore[invalid-assignment]
    assert len(written(tmp_path, lambda: {"": figure})) == 1 and not path.exists()


def test_glyphs_that_a_font_lacks_are_one_warning(tmp_path):
    figure = Figure()
    figure.suptitle("\u5b9f\u9a13\u4e00")
    (warning,) = written(tmp_path, lambda: {"": figure})
    assert "missing from font" in warning and "and 2 more such things" in warning


def test_no_figure_has_a_text_that_is_a_formula():
    """The texts of our own figures, and the numbers on logarithmic axes, are what they say without any parser."""
    rows = [
        {"layer": "a", "label": "a", "epoch": 1, "filters": 8, "counted": 8, "stage": 1, "block": 1, "mass": 0.4}
        | {"l2_distance": 0.1, "linf_distance": 0.2, "checkpoint": "m/1.pt", "draw": None, "mass_low": 0.1, "mass_high": 0.7}
    ]
    with figures.literal():
        made = [filters.mass_by_layer(rows, "n"), filters.distance_by_layer(rows, "n")]
        made.append(confusion.confusion(np.eye(2, dtype=int), ("a$^$b", "c"), "t"))
        arrays = {"squared_distances_pixel_k": np.array([0.1, 0.5]), "radius_at_images_k": np.array([1e-4, 2.0])}
        arrays |= {f"found_at_{at}_k": np.array([True, True]) for at in ("images", "neighbours")}
        arrays |= {"radius_at_neighbours_k": np.array([1e-3, 20.0])}
        made.append(ncg.radii(arrays, ["m"], "t", "pixel", 1.0))
        for figure in made:
            figure.savefig(os.devnull, format="png")
    shown = [text.get_text() for figure in made for text in figure.findobj(Text)]
    assert {text for text in shown if "$" in text or "\\" in text} == {"a$^$b"}


def test_letters_of_any_script_stay_in_names_and_what_leaves_no_name_is_refused(tmp_path):
    names = ["\u5b9f\u9a13\u4e00", "\u5b9f\u9a13\u4e8c", "\u0939\u093f\u0928\u094d\u0926\u0940", "caf\u00e9", "a-b.1_x+y"]
    assert [records.file_name(name) for name in names] == names
    assert records.file_name("cafe\u0301") == "caf\u00e9" and records.file_name("a b/c") == "a-b-c"
    for name, reason in (
        ("!!!", "no letter"),
        ("..", "no letter"),
        (".a", "hidden"),
        ("\udcff", "no letter"),
        ("x" * 201, "200"),
    ):
        with pytest.raises(UsageError, match=reason):
            records.file_name(name)
    documents = {f"reinit_{name}": {"n": 1} for name in names}
    config = DataConfig(action="show", arguments=("digits",), results_dir=str(tmp_path), name="d")
    place = records.place(config, "data")
    records.write(place, config, Result([{"n": 1}], documents=documents), command=["x"], started=0.0, inputs={})
    assert {path.stem for path in (tmp_path / "data" / "d").iterdir()} == documents.keys()
    for name in names[:2]:
        assert script("exec_data.py", "show", "digits", "--name", name, cwd=tmp_path).returncode == 0
    assert {path.stem for path in (tmp_path / "results/data").glob("*.json")} == set(names[:2])


def test_a_readable_name_is_utf8_and_the_bytes_of_a_name_are_its_own():
    raw = b"a\xff\xe5\xae\x9f"
    name = os.fsdecode(raw)
    assert as_bytes(name) == raw and readable(name) == "a\\xff\u5b9f" and readable("\u5b9f") == "\u5b9f"


STREAMS = """
import os, sys
sys.path.insert(0, {root!r})
from lib.core import streams
streams.prepare()
print("message", file=sys.stderr)
print("\\udcff\\u5b9f", file=sys.stderr)
file = os.open("kept", os.O_RDWR | os.O_CREAT)
print("result \\udcff")
sys.stdout.flush()
os._exit(10 if file < 3 else 0)
"""


@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>/dev/full", "2>&1 | true", ">out 2>&1"])
def test_streams_may_be_closed_or_full_and_no_file_takes_their_place(tmp_path, streams):
    (tmp_path / "s.py").write_text(STREAMS.format(root=str(ROOT)))
    command = f"{sys.executable} s.py {streams}; echo ${{PIPESTATUS[0]}} >status"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    status = int((tmp_path / "status").read_text())
    assert status == 0 or ("|" in streams and status in (1, 120))
    assert not (tmp_path / "kept").read_bytes()
    if "out" in streams:
        assert (tmp_path / "out").read_bytes() == b"message\n\\udcff\xe5\xae\x9f\nresult \xff\n"


def test_a_script_with_every_stream_closed_leaves_its_record_and_succeeds(tmp_path):
    command = f"{sys.executable} {ROOT}/exec_data.py show digits <&- >&- 2>&-; echo $? >status"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (tmp_path / "status").read_text() == "0\n" and record(tmp_path, "data")["rows"]
