"""Tables and figures as HTML that a reader's search, filters and sorting find their way in.

What a table, a row or a figure is of stands beside it as keys: `n0` is the first network, `d1` the second data set, `e` an
experiment, `r` a record. `report.js` hides what does not have the keys that are chosen.
"""

import base64
import html
import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.core import text_table
from lib.core.text import readable
from lib.tables.record_library import Origin, RecordedRun

AT_ONCE = 100  # rows of a table that are shown without being asked for
KINDS = {".png": "image/png", ".svg": "image/svg+xml"}  # figures that a page can show
LONG = 48  # letters; columns with longer words have lines
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?( ± \S+)?")


class FilterKeys:
    """The networks, data sets, experiments and records that there are, each with its number."""

    def __init__(self, runs: Sequence[RecordedRun]) -> None:
        origins = [run.whole_origin for run in runs]
        self.networks = _numbered(name for one in origins for name in one.networks)
        self.sets = _numbered(name for one in origins for name in one.sets)
        self.experiments = _numbered(name for one in origins for name in one.experiments)
        self.records = {run.path: number for number, run in enumerate(runs)}

    def of(self, origin: Origin) -> str:
        """The keys of what has this origin."""
        found = [f"n{self.networks[name]}" for name in origin.networks if name in self.networks]
        found += [f"d{self.sets[name]}" for name in origin.sets if name in self.sets]
        found += [f"e{self.experiments[name]}" for name in origin.experiments if name in self.experiments]
        found += [f"r{self.records[path]}" for path in origin.records if path in self.records]
        return " ".join(found)

    def choices(self) -> str:
        """The lists from which a reader chooses one network, data set, experiment."""
        lists = (("network", "n", self.networks), ("data set", "d", self.sets), ("experiment", "e", self.experiments))
        return "".join(
            f'<select data-filter aria-label="only one {what}"><option value="">{what}</option>'
            + "".join(
                f'<option value="{kind}{known[name]}">{html.escape(name)}</option>' for name in sorted(known, key=str.lower)
            )
            + "</select>\n"
            for what, kind, known in lists
        )


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


@dataclass(frozen=True)
class Picture:
    """A figure: where links to it lead, its file, what it shows in words, and what it is of.

    record     the file of the record that it is from, and the place on the page; none where it is of several
    """

    anchor: str
    path: Path
    alt: str
    caption: str
    keys: str
    record: Path | None = None
    place: str = ""


def figures(pictures: Sequence[Picture]) -> str:
    """Figures one after the other."""
    return f'<div class="figures">{"".join(map(_figure, pictures))}</div>' if pictures else ""


def _figure(one: Picture) -> str:
    link = f' <a href="#{one.place}">record</a>' if one.place else ""
    content = one.path.read_bytes()
    source = f"data:{KINDS[one.path.suffix]};base64,{base64.b64encode(content).decode()}"
    return (
        f'<figure id="{one.anchor}"{keyed(one.keys)}><button type="button" class="zoom">'
        f'<img loading="lazy"{_size(content)} alt="{html.escape(one.alt)}" src="{source}"></button>'
        f"<figcaption>{html.escape(one.caption)}{link}</figcaption></figure>"
    )


def _size(content: bytes) -> str:
    """Width and height of a PNG, so that nothing moves when it is decoded."""
    if not content.startswith(b"\x89PNG") or len(content) < 24:
        return ""
    width, height = struct.unpack(">II", content[16:24])
    return f' width="{width}" height="{height}"'


def keyed(keys: str) -> str:
    """The attribute that has the keys."""
    return f' data-keys="{keys}"' if keys else ""


def table(
    caption: str,
    rows: Sequence[Mapping],
    keys: Sequence[str],
    at_once: int = AT_ONCE,
    meanings: Mapping[str, str] | None = None,
) -> str:
    """A table with its first rows, and the others as JSON: a list of keys and cells for each.

    keys       of each row; one for all of them; or none
    meanings   column -> what it is, which a heading says when it is pointed at
    """
    told = {name: f' title="{html.escape(text)}"' for name, text in (meanings or {}).items()}
    columns = [
        name for name in dict.fromkeys(key for row in rows for key in row) if any(_told(row.get(name)) for row in rows)
    ]
    if not columns:
        return ""
    cells = [[readable(text_table.cell(row.get(column))) for column in columns] for row in rows]
    kinds = [
        _kind([row.get(column) for row in rows], words)
        for column, words in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    keys = list(keys) * len(rows) if len(keys) == 1 else list(keys) or [""] * len(rows)
    head = "".join(
        f'<th scope="col"{_classed(kind)}{told.get(column, "")}>{html.escape(column)}</th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = "\n".join(_row(key, words, kinds) for key, words in zip(keys[:at_once], cells[:at_once], strict=True))
    rest = [[key, *words] for key, words in zip(keys[at_once:], cells[at_once:], strict=True)]
    made = (
        f"<table><caption>{html.escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table>"
    )
    scrolled = f'<div class="scroll" role="group" tabindex="0" aria-label="{html.escape(caption)}">{made}</div>'
    return scrolled + (_json(rest) if rest else "")


def _row(keys: str, words: Sequence[str], kinds: Sequence[str]) -> str:
    first, *others = words
    return (
        f'<tr{keyed(keys)}><th scope="row"{_classed(kinds[0])}>{html.escape(first)}</th>'
        + "".join(f"<td{_classed(kind)}>{html.escape(word)}</td>" for word, kind in zip(others, kinds[1:], strict=True))
        + "</tr>"
    )


def _json(rows: list[list[str]]) -> str:
    """Data that a script reads, and that ends no element."""
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).replace("<", r"\u003c")
    return f'<script type="application/json">{text}</script>'


def _told(value) -> bool:
    return value not in (None, "")


def _kind(values: Sequence, words: Sequence[str]) -> str:
    """How a column is set: numbers to the right, long texts in lines."""
    if any(isinstance(value, bool) for value in values):
        return ""
    if all(NUMBER.fullmatch(word) for word in words if word):
        return "num"
    return "long" if max(map(len, words)) > LONG else ""


def _classed(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
