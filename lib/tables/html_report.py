"""The report: one self-contained HTML page of all tables, figures and records."""

import base64
import html
from collections.abc import Iterable

from lib.tables import formats
from lib.tables.papers import PAPERS
from lib.tables.record_library import Library, RecordedRun

# nothing is fetched from anywhere
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 78rem; padding: 0 1rem 4rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
header { position: sticky; top: 0; background: Canvas; padding: .5rem 0; border-bottom: 1px solid var(--line); z-index: 1; }
header input { font: inherit; width: 100%; padding: .5rem; border: 1px solid var(--line); border-radius: .4rem;
  background: Canvas; color: CanvasText; }
nav { display: flex; flex-wrap: wrap; gap: .2rem .9rem; padding: .4rem 0; font-size: .85rem; }
.scroll { overflow-x: auto; max-height: 32rem; overflow-y: auto; border: 1px solid var(--line); }
table { border-collapse: collapse; font-size: .8rem; }
th, td { text-align: left; padding: .2rem .55rem; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; }
td { max-width: 24rem; overflow-wrap: anywhere; } td:last-child { white-space: normal; min-width: 26rem; }
#experiments td:last-child { min-width: 0; }
thead th { position: sticky; top: 0; background: Canvas; }
details { border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .7rem; margin: .4rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; } details > summary { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .78rem; overflow-wrap: anywhere; }
figure { margin: .5rem 0; } img { max-width: 100%; height: auto; background: white; }
[hidden] { display: none !important; }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; } dt { font-weight: 600; } body { padding: 0 .6rem 3rem; }
  th, td { padding: .2rem .35rem; } td:last-child { min-width: 14rem; }
}
"""

# what the reader types hides every row, table and record without all of its words; a title that has them keeps its rows
SCRIPT = """
const box = document.getElementById("search"), count = document.getElementById("count");
const parts = [...document.querySelectorAll("section")];
const has = (element, words) => words.every(word => element.textContent.toLowerCase().includes(word));
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const part of parts) {
    const title = has(part.querySelector("h2, summary"), words), rows = [...part.querySelectorAll("tbody tr")];
    for (const row of rows) row.hidden = !title && !has(row, words);
    part.hidden = !title && !(rows.length ? rows.some(row => !row.hidden) : has(part, words));
    if (!part.hidden) shown += 1;
  }
  for (const group of document.querySelectorAll("main > details")) if (words.length) group.open = true;
  count.textContent = words.length ? `${shown} of ${parts.length} tables and records` : "";
});
const unfold = () => {
  for (let part = document.getElementById(location.hash.slice(1)); part; part = part.parentElement)
    if (part.tagName === "DETAILS") part.open = true;
};
addEventListener("hashchange", unfold);
unfold();
"""


def page(library: Library, experiments: list[formats.PrintedTable], papers: list[formats.PrintedTable]) -> str:
    """The page as HTML."""
    groups = {"experiments": ("Measured", "one table per experiment", experiments)}
    groups |= {
        name: (
            name,
            paper.citation + (f" (left out: {paper.left_out})" if paper.left_out else ""),
            [table for table in papers if table.title.startswith(f"{name}/")],
        )
        for name, paper in PAPERS.items()
    }
    runs = [run for run in library.runs if run.record["command"]]
    shown = {figure for run in runs for figure in _figures(run.path)} | {table.figure for table in experiments}
    body = [
        _group(key, title, about, [_table(table, shown) for table in made]) for key, (title, about, made) in groups.items()
    ]
    body.append(_group("records", "Records", "runs, with their figures", map(_record, runs)))
    links = "".join(f'<a href="#{key}">{html.escape(key)}</a>' for key in [*groups, "records"])
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>Representations under distribution shift</title><style>{STYLE}</style></head>
<body><h1>Representations under distribution shift: results</h1>
<header><input id="search" type="search" placeholder="search tables and records" aria-label="search"><div id="count"></div>
<nav>{links}</nav></header>
<main>
{chr(10).join(body)}
</main><script>{SCRIPT}</script></body></html>
"""


def _group(key: str, title: str, about: str, sections: Iterable[str]) -> str:
    opened = " open" if key == "experiments" else ""
    return (
        f'<details id="{key}"{opened}><summary>{html.escape(title)}</summary><p>{html.escape(about)}</p>\n'
        + "\n".join(sections)
        + "</details>"
    )


def _table(table: formats.PrintedTable, shown: set) -> str:
    """The table with its own figure, and links to those of its records that the page shows."""
    figures = dict.fromkeys(figure for line in table.lines for path in line.records for figure in _figures(path))
    links = " ".join(f'<a href="#{_anchor(figure)}">{html.escape(figure.stem)}</a>' for figure in figures if figure in shown)
    own = _picture(table.figure) if table.figure else ""
    return f"<section>{formats.write('html', table)}{own}" + (f"<p>figures: {links}</p>" if links else "") + "</section>"


def _record(run: RecordedRun) -> str:
    record = run.record
    told = {
        "command": " ".join(record["command"]),
        "started": record["started"],
        "seconds": f"{record['seconds'].get('total', 0):.0f}",
        "rows": str(len(run.rows)),
        **{f"input {name}": f"{known['sha256'][:16]}, {known['bytes']} bytes" for name, known in record["inputs"].items()},
        **{name: str(value) for name, value in record["environment"].items()},
    }
    facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in told.items())
    pictures = "".join(map(_picture, _figures(run.path)))
    return (
        f"<section><details><summary>{html.escape(f'{run.experiment}: {run.path.stem}')}</summary><dl>{facts}</dl>"
        f"{pictures}</details></section>"
    )


def _picture(path) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure id="{_anchor(path)}"><img loading="lazy" alt="{html.escape(path.stem)}" '
        f'src="data:image/png;base64,{content}"></figure>'
    )


def _figures(path) -> list:
    """The figures beside a record: `<run>.png`, `<run>-<suffix>.png`; not those of a longer run name."""
    others = {other.stem for other in path.parent.glob("*.json")} - {path.stem}
    found = [path.with_suffix("").with_name(path.stem + ".png"), *sorted(path.parent.glob(f"{_literal(path.stem)}-*.png"))]
    return [
        figure
        for figure in found
        if figure.is_file()
        and not any(
            figure.stem == other or figure.stem.startswith(other + "-") for other in others if other.startswith(path.stem)
        )
    ]


def _literal(stem: str) -> str:
    """The stem for a glob."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


def _anchor(path) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in str(path))
