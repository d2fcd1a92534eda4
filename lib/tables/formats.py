"""Tables as text, Markdown, LaTeX, CSV and HTML. Knows rows only.

Every format but CSV rounds numbers; CSV has them in full.
"""

import csv
import html
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

from lib.core import terminal, text_table
from lib.tables.record_library import Origin

SUFFIXES = {  # format -> ending of its files
    "text": "txt",
    "md": "md",
    "latex": "tex",
    "csv": "csv",
    "html": "html",
}
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


@dataclass(frozen=True)
class PrintedTable:
    """A table: the name of its file, its title, its rows for readers and in full, a note, the lines it was made of, and the
    file of its figure, where it has one of its own; what each row is of, or one origin for all of them.
    """

    name: str
    title: str
    rows: list[dict]
    full: list[dict]
    note: str = ""
    lines: list = field(default_factory=list)
    figure: Path | None = None
    origins: list[Origin] = field(default_factory=list)


def fitted(table: PrintedTable, width: int) -> str:
    """The table as text for a terminal of this width: what is too long or too wide for it is left out, and said."""
    shown = text_table.text(table.rows, _columns(table.rows), text_table.LONGEST, width=width, rest="with --all")
    title, note = (terminal.wrapped(words, width, "") for words in (f"## {table.title}", table.note))
    return "\n".join(filter(None, (f"{title}\n", shown, note and f"\n{note}")))


def write(kind: str, table: PrintedTable) -> str:
    """The table in one of the formats, `SUFFIXES`; columns are those of all rows."""
    rows = table.full if kind == "csv" else table.rows
    return WRITERS[kind](table, _columns(rows), rows)


def _columns(rows: list[dict]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for row in rows for key in row))


def _cells(columns: tuple[str, ...], rows: list[dict]) -> list[list[str]]:
    return [[text_table.cell(row.get(column)) for column in columns] for row in rows]


def _text(table: PrintedTable, columns, rows) -> str:
    return "\n".join(filter(None, (f"## {table.title}\n", text_table.text(rows, columns), table.note and f"\n{table.note}")))


def _markdown(table: PrintedTable, columns, rows) -> str:
    def line(words):
        return "| " + " | ".join(word.replace("|", r"\|").replace("\n", " ") for word in words) + " |"

    return "\n".join(
        [
            f"## {table.title}",
            "",
            line(columns),
            "|" + "---|" * len(columns),
            *map(line, _cells(columns, rows)),
            *(["", table.note] if table.note else []),
        ]
    )


def _latex(table: PrintedTable, columns, rows) -> str:
    def line(words):
        return " & ".join(map(_escaped, words)) + r" \\"

    return "\n".join(
        [
            f"% {table.title}",
            rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
            r"\hline",
            line(columns),
            r"\hline",
            *map(line, _cells(columns, rows)),
            r"\hline",
            r"\end{tabular}",
            *([f"% {table.note}"] if table.note else []),
        ]
    )


def _escaped(word: str) -> str:
    return re.sub(r"[\\&%$#_{}~^±≤<>|]", lambda found: LATEX[found[0]], word).replace("\n", " ")


def _csv(table: PrintedTable, columns, rows) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return file.getvalue().rstrip("\n")


def _html(table: PrintedTable, columns, rows) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(word)}</td>" for word in line) + "</tr>" for line in _cells(columns, rows)
    )
    note = f"\n<p>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f'<h2>{html.escape(table.title)}</h2>\n<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>{note}"
    )


WRITERS = {"text": _text, "md": _markdown, "latex": _latex, "csv": _csv, "html": _html}
