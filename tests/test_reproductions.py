"""docs/reproductions.md: its tables are what the commands print, and its records hold nothing of a machine."""

import re

import pages
import pytest

from lib.core import files
from lib.experiments import EXPERIMENTS
from lib.runs import records

FOLDER = pages.DOCS / "reproductions"
PATHS = sorted(FOLDER.glob("*/*.json"))


def test_the_tables_of_the_page_are_what_its_commands_print():
    text = (pages.DOCS / "reproductions.md").read_text()
    assert pages.present(text) == text, "python tests/readme.py writes the tables"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_record_is_readable_and_names_no_machine(path):
    record = records.read(path)
    assert record["rows"] and record["experiment"] in EXPERIMENTS and path.parent.name == record["experiment"]
    assert not re.search(r"Linux-\d", record["environment"]["system"])
    assert not any(word.startswith("/") for word in record["command"])
    assert not re.search(r'"/(home|root|work|tmp|mnt|data)\b', path.read_text())


def test_every_record_of_the_folder_is_known_to_the_suite_and_small():
    assert PATHS and not [path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".json"]
    assert max(path.stat().st_size for path in PATHS) < 1_000_000 and all(files.read_json(path) for path in PATHS)
