"""Every format says what the table holds."""

import csv
import html.parser
import io
import re

import pytest
from table_records import (
    fill,
    three_seeds,
)

from lib.tables import (
    formats,
    paper_rows,
)


class Cells(html.parser.HTMLParser):
    """The texts of a table's cells, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


LATEX_BACK = {written: letter for letter, written in formats.LATEX.items()}


def parsed(kind: str, text: str) -> list[list[str]]:
    if kind == "html":
        return Cells(text).rows
    if kind == "csv":
        return list(csv.reader(io.StringIO(text)))
    lines = text.splitlines()
    if kind == "md":
        body = [line for line in lines if line.startswith("|") and not line.startswith("|---")]
        return [[word.strip().replace(r"\|", "|") for word in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]
    body = [line.removesuffix(r" \\") for line in lines if line.endswith(r" \\")]
    written = "|".join(sorted(map(re.escape, LATEX_BACK), key=len, reverse=True))
    return [
        [re.sub(written, lambda found: LATEX_BACK[found[0]], word) for word in re.split(r"(?<!\\) ?& ?", line)]
        for line in body
    ]


@pytest.mark.parametrize("kind", ["md", "latex", "csv", "html"])
def test_a_format_says_what_the_table_holds(kind):
    found = [
        {"layer": "a_1", "ours": "50 % ± 0.1", "note": "x | y & z < #{$}~^\\ ü"},
        {"layer": "b", "ours": "", "note": "1"},
    ]
    text = formats.write(kind, formats.PrintedTable("t", "title", found, found, "a note"))
    assert parsed(kind, text) == [["layer", "ours", "note"], *[list(row.values()) for row in found]]


def test_csv_has_every_digit(tmp_path):
    three_seeds(tmp_path, (1 / 3, 0.1, 0.2))
    full = paper_rows.raw(["set"], fill(tmp_path))
    text = formats.write("csv", formats.PrintedTable("t", "title", [], full))
    (row,) = csv.DictReader(io.StringIO(text))
    assert float(row["mean"]) == (1 / 3 + 0.1 + 0.2) / 3 and row["n"] == "3" and row["tag"] == "NB"
    assert row["records"].count(".json") == 3 and float(row["published"]) == 0.36
