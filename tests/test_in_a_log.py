"""What a command says where nobody watches: nothing of homes and fonts, each suggestion once, and no folder made unasked."""

import logging
import os
import subprocess
import sys

import pytest
from conftest import ROOT, script

from lib.core.registry import misspelt, near


def test_quiet_is_quiet_in_a_home_that_cannot_be_written(tmp_path):
    """In a process of its own: Matplotlib looks at its home when it is imported."""
    environment = {**os.environ, "HOME": "/proc/nowhere", "OMP_NUM_THREADS": "1"}
    environment = {name: value for name, value in environment.items() if name not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    words = [sys.executable, str(ROOT / "exec_data.py"), "show", "digits", "--quiet", "--name", "a"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "results/data/a.json\n", "")


def test_matplotlib_speaks_of_fonts_with_debug_only(tmp_path):
    logger = logging.getLogger("matplotlib")
    for words, level in (((), logging.ERROR), (("--debug",), logging.WARNING)):
        logger.setLevel(logging.WARNING)
        script("exec_data.py", "list", *words, cwd=tmp_path)
        assert logger.level == level


def test_a_suggestion_is_made_once():
    assert near("ncgg", ["ncg", "ncg", "eval"]) == "did you mean ncg?"
    assert near("zzz", ["a", "a"]) == "known are a"


def test_a_misspelt_folder_or_file_is_suggested_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "stitch").mkdir(parents=True)
    (tmp_path / "results" / "stitch" / "direct.json").touch()
    assert misspelt("results/stich") == "; did you mean results/stitch?"
    assert misspelt("reslts/stitch/direct.json") == "; did you mean results/stitch/direct.json?"
    assert misspelt("results/stitch/drect.json") == "; did you mean results/stitch/direct.json?"
    for nothing_like_it in ("elsewhere/x", "/", "", "results/stich/other", "results/stitch/direct.json/x"):
        assert misspelt(nothing_like_it) == ""


@pytest.mark.parametrize(
    "words",
    [
        ("exec_stitch_ood.py", "results/stich", "-scd", "patches"),
        ("exec_tables.py", "--rerun", "results/stich"),
        ("exec_eval.py", "results/stich"),
        ("exec_data.py", "show", "folder=results/stich"),
        ("exec_eval.py", "x", "--config", "results/stich"),
    ],
    ids=lambda words: words[0],
)
def test_every_script_suggests_the_path_that_was_meant(tmp_path, words):
    (tmp_path / "results" / "stitch").mkdir(parents=True)
    done = script(*words, cwd=tmp_path)
    assert done.returncode and "did you mean results/stitch?" in done.stderr, done.stderr


def test_a_report_makes_no_folder(tmp_path):
    done = script("exec_tables.py", "--report", "no/such/page.html", cwd=tmp_path)
    assert done.returncode == 2 and "there is no folder no/such" in done.stderr and not (tmp_path / "no").exists()
