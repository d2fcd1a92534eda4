"""One self-contained page of all that came out, read in a browser: no file beside it and no network is needed.

What was run, with a picture per experiment; every experiment's table beside its figures; the networks; the papers' tables;
the records with their rows. `report.js` searches, sorts and filters what is here, and shows the first hundred rows of a
table: further ones stand in the page as JSON. Without scripts the tables and figures are there as they are.
"""

import datetime
import functools
import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from lib.tables.formats import PrintedTable
from lib.tables.html_report.markup import KINDS, FilterKeys, Picture, figures, keyed, table
from lib.tables.papers import PAPERS
from lib.tables.record_library import Library, RecordedRun, joined

# nothing is fetched from anywhere
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
MOST_ROWS = 5000  # of one record; of all together 40 times as many, but a hundred of each in any case
# columns of an experiment's table beside those of its rows
JOINED = {
    "run": "the networks: type, data set and settings of their training",
    "setting": "what differs from other lines of the same run",
    "runs": "how many runs, which differ in their seeds only, the line is the mean of",
    "code": "the versions of the code, where a line joins several",
    "version": "whether the line is of an earlier version of the method",
}
MOST_OPEN = 6  # networks whose tables are not folded
MOST_CHOICES = 12  # networks or data sets that the first screen has without being asked


@dataclass(frozen=True)
class Content:
    """What the page is made of.

    experiments   their tables, each named after its experiment
    papers        tables of the papers
    networks      the tables of each network's layers, the first of which has the figure
    curves        figures of trainings, without rows
    """

    library: Library
    experiments: Sequence[PrintedTable] = ()
    papers: Sequence[PrintedTable] = ()
    networks: Sequence[Sequence[PrintedTable]] = ()
    curves: Sequence[PrintedTable] = ()

    @functools.cached_property
    def runs(self) -> list[RecordedRun]:
        """The runs that have a record."""
        return [run for run in self.library.runs if run.record["command"]]

    @functools.cached_property
    def keys(self) -> FilterKeys:
        """What the reader can choose by."""
        return FilterKeys(self.runs)

    @functools.cached_property
    def pictures(self) -> dict[str, list[Picture]]:
        """The figures by experiment: those of its table, then those of its records."""
        found = {one.name: [self.own(one)] for one in self.experiments if one.figure}
        for curve in self.curves:
            found.setdefault("train", []).append(self.own(curve))
        beside = {folder: figure_files(folder) for folder in dict.fromkeys(run.path.parent for run in self.runs)}
        for run in self.runs:
            for path in beside[run.path.parent].get(run.path.stem, ()):
                found.setdefault(run.experiment, []).append(self._picture(run, path))
        return found

    def _picture(self, run: RecordedRun, path: Path) -> Picture:
        """A figure that lies beside a record."""
        suffix, of = path.stem.removeprefix(run.path.stem).strip("-"), run.whole_origin
        what = " on ".join(filter(None, (_few(of.networks), _few(of.sets))))
        caption = f"{suffix}: {what}" if suffix else what
        about = f"figure of {run.experiment}: {caption}"
        record = self.place(run.path)
        return Picture(self._figure_place(path), path, about, caption, self.keys.of(of), run.path, record)

    def own(self, one: PrintedTable) -> Picture:
        """The figure of a table."""
        assert one.figure is not None
        keys = self.keys.of(joined(one.origins))
        return Picture(self._figure_place(one.figure), one.figure, f"figure: {one.title}", one.title, keys)

    def _figure_place(self, path: Path) -> str:
        return f"figure-{self._figures.setdefault(path, len(self._figures))}"

    @functools.cached_property
    def _figures(self) -> dict[Path, int]:
        """The figures that have been shown, each with its number."""
        return {}

    def meanings(self, experiment: str) -> dict[str, str]:
        """What the columns of an experiment's rows are, and the deviations in its table."""
        known = {
            name: column.described().replace("`", "") for name, column in self.library.columns(experiment).defined.items()
        }
        return known | {f"{name} sd": f"sample standard deviation of {name} over the runs" for name in known}

    def place(self, record: Path) -> str:
        """Where on the page a record is."""
        return f"record-{self.keys.records[record]}"


def page(content: Content) -> str:
    """The page as HTML."""
    parts = {
        "experiments": _experiments(content),
        "networks": [_network(content, tables, len(content.networks) <= MOST_OPEN) for tables in content.networks],
        **{name: _of_paper(content, _named(content, name)) for name in PAPERS},
        "records": _records(content),
    }
    about = {
        "experiments": ("Experiments", "One table per experiment; runs that differ only in their seeds are one line."),
        "networks": ("Networks", "What every experiment says of the layers of one network, side by side."),
        **{name: (f"Paper: {name}", _citation(name, _named(content, name))) for name in PAPERS},
        "records": ("Records", "Every run: its command, its inputs, its rows."),
    }
    made = {name: several for name, several in parts.items() if several}
    groups = "\n".join(
        _group(name, *about[name], several, name in ("experiments", "networks")) for name, several in made.items()
    )
    links = "".join(f'<a href="#{name}">{html.escape(name)}</a>' for name in ["overview", *made])
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>Representations under distribution shift: results</title><style>{_file("report.css")}</style></head>
<body><header id="bar"><form role="search" class="tools">
<input id="search" type="search" placeholder="search headings and values" aria-label="search headings and values">
{content.keys.choices()}</form>
<div class="state"><output id="count" for="search"></output>
<button type="button" id="clear" hidden>show all</button></div>
<nav aria-label="parts of this page">{links}</nav></header>
<main>
<noscript><p>Search, filters, sorting and rows after the first hundred need scripts, which are off.</p></noscript>
{_overview(content)}
{groups}
</main>
<dialog id="zoom" aria-label="figure"><button type="button">close</button><img alt=""></dialog>
<script>{_file("report.js")}</script></body></html>
"""


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _group(name: str, title: str, about: str, parts: Iterable[str], opened: bool) -> str:
    """A part of the page that folds; what is read first is open."""
    return (
        f'<details class="group" id="{name}"{" open" if opened else ""}><summary><h2>{html.escape(title)}</h2></summary>'
        f"<p>{html.escape(about)}</p>\n" + "\n".join(parts) + "</details>"
    )


def _overview(content: Content) -> str:
    """What was run, and a picture per experiment that leads to its figure."""
    runs, keys = content.runs, content.keys
    if not runs:
        return '<section id="overview"><h1>Results</h1><p>There are no records yet.</p></section>'
    times = sorted(run.record["started"] for run in runs)
    seconds = sum(run.record["seconds"].get("total", 0) for run in runs)
    counts = Counter(run.experiment for run in runs)
    versions = sorted({run.code for run in runs})
    told = {
        "when": " to ".join(dict.fromkeys(map(_moment, (times[0], times[-1])))),
        "computed for": _duration(seconds),
        "code": ", ".join(versions[:5]) + (f" and {len(versions) - 5} more versions" if len(versions) > 5 else ""),
    }
    counted = ", ".join(f'<a href="#experiment-{name}">{html.escape(name)}</a> {n}' for name, n in counts.items())
    told = {"runs": f"{len(runs)}: {counted}", **_texts(told)}
    pages = {name: _place(first) for first, *_ in content.networks for one in first.origins for name in one.networks}
    of = [run.whole_origin for run in runs]
    networks = _choices("n", Counter(name for one in of for name in one.networks), keys.networks, pages)
    sets = _choices("d", Counter(name for one in of for name in one.sets), keys.sets, {})
    thumbs = "".join(
        f'<a class="thumb" href="#{several[0].anchor}"><img data-figure="{several[0].anchor}" alt="">'
        f"<span>{html.escape(name)}</span></a>"
        for name, several in content.pictures.items()
    )
    return (
        f'<section id="overview"><h1>What was run</h1>{_facts(told)}'
        + (f'<div class="thumbs">{thumbs}</div>' if thumbs else "")
        + (f"<h2>Networks</h2>{networks}" if networks else "")
        + (f"<h2>Data sets</h2>{sets}" if sets else "")
        + "</section>"
    )


def _choices(kind: str, counts: Counter, keys: dict[str, int], pages: dict[str, str]) -> str:
    """Networks or data sets, those of most runs first: a button that filters by it, a link to its layers."""
    items = [
        f'<li><button type="button" data-choose="{kind}{keys[name]}">{html.escape(name)}</button> '
        f"{count} run{'s' * (count > 1)}" + (f' <a href="#{pages[name]}">layers</a>' if name in pages else "") + "</li>"
        for name, count in counts.most_common()
    ]
    first, others = items[:MOST_CHOICES], items[MOST_CHOICES:]
    further = f"<details><summary>{len(others)} more</summary>{_list(others)}</details>" if others else ""
    return _list(first) + further if first else ""


def _list(items: list[str]) -> str:
    return f'<ul class="chips">{"".join(items)}</ul>'


def _experiments(content: Content) -> list[str]:
    """Each table with the figures of its records beside it; the figures of experiments without a table, too."""
    tables, made = {one.name: one for one in content.experiments}, []
    for name in dict.fromkeys([*(run.experiment for run in content.runs), *tables]):
        one = tables.get(name) or PrintedTable(name, name, [], [])
        known = content.library.experiments.get(name)
        about = (known.configuration.__doc__ or "").partition("\n")[0] if known else ""
        meanings = JOINED | content.meanings(name)
        made.append(_part(content, one, f"experiment-{name}", about, content.pictures.get(name, ()), meanings=meanings))
    return made


def _network(content: Content, tables: Sequence[PrintedTable], opened: bool) -> str:
    """A network's figure and tables."""
    shown = [[content.own(one)] if one.figure else [] for one in tables]
    parts = (_part(content, one, _place(one), "", own) for one, own in zip(tables, shown, strict=True))
    title = f"<summary><h3>{html.escape(tables[0].title.removeprefix('layers of '))}</h3></summary>"
    return f'<details class="group"{" open" if opened else ""}>{title}{"".join(parts)}</details>'


def _of_paper(content: Content, tables: list[PrintedTable]) -> list[str]:
    """A paper's tables, and links to the figures of the records that they are made of."""
    runs = {run.path: run for run in content.library.runs}
    made = []
    for one in tables:
        used = [[path for path in line.records if path in runs] for line in one.lines]
        origins = [
            replace(joined(runs[path].whole_origin for path in paths), experiments=(line.cell.experiment,))
            for line, paths in zip(one.lines, used, strict=True)
        ]
        records = {path for line in one.lines for path in line.records}
        shown = [picture for several in content.pictures.values() for picture in several if picture.record in records]
        made.append(_part(content, replace(one, origins=origins), _place(one), "", (), _links(shown)))
    return made


def _links(shown: Iterable[Picture]) -> str:
    links = " ".join(f'<a href="#{one.anchor}">{html.escape(one.path.stem)}</a>' for one in shown)
    return f"<p>figures: {links}</p>" if links else ""


def _part(
    content: Content,
    one: PrintedTable,
    anchor: str,
    about: str,
    shown: Sequence[Picture],
    more: str = "",
    meanings: Mapping[str, str] | None = None,
) -> str:
    """A table and the figures beside it, which the reader finds as one."""
    title = f"<h3>{html.escape(one.title)}</h3>" + (f"<p>{html.escape(about)}</p>" if about else "")
    note = f'<p class="note">{html.escape(one.note)}</p>' if one.note else ""
    rows = table(one.title, one.rows, [content.keys.of(origin) for origin in one.origins], meanings=meanings)
    return (
        f'<section class="part{" beside" if shown and rows else ""}" id="{anchor}"'
        f"{keyed(content.keys.of(joined(one.origins)))}>{title}"
        f'<div class="columns"><div>{rows}{note}{more}</div>{figures(shown)}</div></section>'
    )


def _records(content: Content) -> list[str]:
    most = max(100, min(MOST_ROWS, 40 * MOST_ROWS // max(1, len(content.runs))))
    return [_record(content, run, most) for run in content.runs]


def _record(content: Content, run: RecordedRun, most: int) -> str:
    record, title, of = run.record, f"{run.experiment}: {run.path.stem}", run.whole_origin
    told = {
        "command": " ".join(record["command"]),
        "networks": ", ".join(of.networks),
        "data sets": ", ".join(of.sets),
        "started": record["started"],
        "seconds": f"{record['seconds'].get('total', 0):.0f}",
        **{f"input {name}": f"{known['sha256'][:16]}, {known['bytes']} bytes" for name, known in record["inputs"].items()},
        "environment": ", ".join(f"{name} {value}" for name, value in record["environment"].items()),
    }
    shown = [one for one in content.pictures.get(run.experiment, ()) if one.record == run.path]
    rows, left_out = run.rows[:most], len(run.rows) - most
    note = f'<p class="note">the other {left_out} rows are in {html.escape(str(run.path))}</p>' if left_out > 0 else ""
    keys = [content.keys.of(run.origin(row)) for row in rows]
    made = table(f"rows of {title}", rows, keys, at_once=0, meanings=content.meanings(run.experiment))
    return (
        f'<details class="part record" id="{content.place(run.path)}"{keyed(content.keys.of(of))}>'
        f"<summary>{html.escape(title)}</summary>{_facts(_texts(told))}{_links(shown)}{made}{note}</details>"
    )


def _facts(told: dict[str, str]) -> str:
    """Names, and what is told of each as HTML; without what is empty."""
    facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{text}</dd>" for name, text in told.items() if text)
    return f"<dl>{facts}</dl>"


def _texts(told: dict[str, str]) -> dict[str, str]:
    return {name: html.escape(text) for name, text in told.items()}


def _few(names: Sequence[str]) -> str:
    """Names in a sentence: two, and how many more."""
    more = len(names) - 2
    return " and ".join([*names[:2], f"{more} more"]) if more > 0 else " and ".join(names)


def figure_files(folder: Path) -> dict[str, list[Path]]:
    """The figures of a folder of records, by the name of their run: `<run>.png` first, then `<run>-<suffix>.png`.

    A figure is of the longest run name that fits; of one that is there in several formats it is the first of KINDS.
    """
    runs = {path.stem for path in folder.glob("*.json")}
    found: dict[str, dict[str, Path]] = {}
    for kind in KINDS:
        for path in folder.glob(f"*{kind}"):
            words = path.stem.split("-")
            names = ("-".join(words[:count]) for count in range(len(words), 0, -1))
            if (run := next((name for name in names if name in runs), None)) is not None:
                found.setdefault(run, {}).setdefault(path.stem, path)
    return {run: [of_run[stem] for stem in sorted(of_run)] for run, of_run in found.items()}


def _place(one: PrintedTable) -> str:
    """Where on the page a table is."""
    return f"table-{re.sub(r'[^A-Za-z0-9._-]', '-', one.name)}"


def _moment(iso: str) -> str:
    """A record's time, to the minute; as it is where it is no time."""
    try:
        return datetime.datetime.fromisoformat(iso).astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return iso


def _duration(seconds: float) -> str:
    """Two units: 3 min 20 s."""
    whole = round(seconds)
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {below}"
    return f"{whole} s"


def _named(content: Content, paper: str) -> list[PrintedTable]:
    return [one for one in content.papers if one.title.startswith(f"{paper}/")]


def _citation(name: str, tables: list[PrintedTable]) -> str:
    """The paper, how many of its numbers were measured, and what is left out."""
    lines = [line for one in tables for line in one.lines]
    paper = PAPERS[name]
    left_out = f" (left out: {paper.left_out})" if paper.left_out else ""
    return f"{paper.citation}{left_out}; {sum(bool(line.values) for line in lines)} of {len(lines)} cells are measured."
