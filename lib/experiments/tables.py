"""Tables from records: `exec_tables.py`. Reads records only, and writes none."""

import sys
from dataclasses import dataclass
from pathlib import Path

from lib.core import files
from lib.core.errors import UsageError
from lib.core.lazy import lazy
from lib.core.registry import near
from lib.runs import records
from lib.runs.cli import RunConfig, flag
from lib.tables import formats, missing_runs, papers, record_library, similarity_validity, summaries
from lib.tables import paper_rows as paper_rows
from lib.tables.compare import fill
from lib.tables.papers import published

grounding_plots = lazy("lib.plots.similarity_validity")
network_tables = lazy("lib.tables.network_overview")
reports = lazy("lib.tables.html_report")
tables_rerun = lazy("lib.tables.rerun")


def _known(word: str) -> None:
    known = [*summaries.SUMMARIES, *similarity_validity.TESTS, *papers.names()]
    if word not in known:
        raise UsageError(f"{word}: no such experiment, paper or table; {near(word, known)}")


@dataclass(frozen=True, kw_only=True)
class TablesConfig(RunConfig):
    """Tables of the records under results/: per experiment, and those of the papers beside their published numbers."""

    tables: tuple[str, ...] = flag(
        (),
        positional=True,
        check=_known,
        help="experiments, papers and their tables: eval, "
        + ", ".join(papers.PAPERS)
        + ", ilc/fig5; specificity and sensitivity of indices "
        "of similarity; default: the experiments that have records",
    )
    format: str = flag("text", choices=tuple(formats.SUFFIXES), help="of the tables; csv has all numbers in full")
    out: str = flag("", metavar="DIR", help="write each table to a file of its own in this folder")
    seeds: tuple[int, ...] = flag((), help="only runs with these seeds; with --missing: each of them is wanted")
    measured: bool = flag(False, help="of the papers' tables only the cells that a record fills")
    missing: bool = flag(
        False, help="print the commands that fill the empty cells of the papers' tables, in stages: trainings first"
    )
    report: str = flag("", metavar="FILE.html", help="write one page with all tables, figures and records")
    network: str = flag(
        "",
        metavar="CHECKPOINT",
        help="what every experiment says of the layers of one network, and how these measures go together",
    )
    rerun: str = flag("", help="a record whose run is repeated")
    check: bool = flag(False, help="with --rerun: compare with the record instead of replacing it")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.check and not self.rerun:
            raise UsageError("--check is for --rerun RECORD")
        asked = [f"--{name}" for name in ("rerun", "missing", "network", "report") if getattr(self, name)]
        if len(asked) > 1:
            raise UsageError(f"{' '.join(asked)}: one of them at a time")
        if self.measured and self.missing:
            raise UsageError("--measured --missing: the cells that are filled, or the commands for those that are not")
        if self.missing and (self.out or self.format != "text"):
            raise UsageError("--missing prints commands: --format and --out are for tables")
        if self.missing and not {word.partition("/")[0] for word in self.tables} <= set(papers.PAPERS):
            raise UsageError("--missing is for the papers' tables")
        if self.seeds and set(self.tables) & set(similarity_validity.TESTS):
            raise UsageError("--seeds: specificity and sensitivity compare networks of all seeds")

    def answer(self) -> str:
        if self.rerun:
            return (tables_rerun.check if self.check else tables_rerun.rerun)(Path(self.rerun))
        return text(self)


def text(config: TablesConfig) -> str:
    """What the command prints: tables, commands, or where they were written."""
    broken: list[str] = []
    library = record_library.Library(records.records(config.results_dir, broken=broken))
    for sentence in broken:
        print(f"warning: {sentence}; left out", file=sys.stderr)
    if config.missing:
        return "\n".join(_commands(config, library))
    if config.network:
        found = network_tables.tables(config.network, library)
        figure = Path(config.out or Path(config.results_dir) / "tables") / f"{found.name}.png"
        files.write_figure(figure, found.figure())
        return _printed(config, found.tables) + f"\n\nfigure: {figure}"
    if config.report:
        page = reports.page(library, _experiments(library, config.seeds) + _tests(config, library), _papers(config, library))
        files.write_atomically(Path(config.report), lambda file: file.write(page.encode()))
        return config.report
    made = _experiments(library, config.seeds, config.tables) + _tests(config, library)
    made += _papers(config, library) if config.tables else []
    if not made:
        wanted = " that fill these tables" if config.measured and library.runs else ""
        return f"no records under {config.results_dir}/{wanted}"
    return _printed(config, made)


def _experiments(library, seeds, words: tuple[str, ...] = ()) -> list[formats.Table]:
    """A table per experiment that is named, or that has records."""
    found = {name: summaries.rows(name, library, seeds) for name in summaries.SUMMARIES if not words or name in words}
    return [formats.Table(name, name, rows, rows) for name, rows in found.items() if rows]


def _tests(config: TablesConfig, library) -> list[formats.Table]:
    """The statistical tests of indices against probes that are named, or that have records, each with its figure."""
    wanted = (
        () if config.seeds else [test for test in similarity_validity.TESTS if not config.tables or test in config.tables]
    )
    runs = [run for name in similarity_validity.READ for run in library.of(name)] if wanted else []
    pairs, found, made = similarity_validity.pairs(runs), similarity_validity.rows(runs), []
    several = len({pair[1:3] for pair in pairs}) > 1
    for test in wanted:
        panels: dict[str, list] = {}
        for pair in pairs:
            if pair.test == test:
                what = f"{pair.index}: {pair.setting}" + (f"\n{pair.model_type}, {pair.probes}" if several else "")
                panels.setdefault(what, []).append((pair.reference.layer, pair.gap, pair.dissimilarity))
        if panels:
            rows = [{key: value for key, value in row.items() if key != "test"} for row in found if row["test"] == test]
            path = Path(config.results_dir) / "tables" / f"{test}.png"
            files.write_figure(path, grounding_plots.scatter(panels, f"{test} of indices of similarity"))
            made.append(formats.Table(test, test, rows, rows, f"figure: {path}", figure=path))
    return made


def _papers(config: TablesConfig, library) -> list[formats.Table]:
    """The papers' tables that are named, or all."""
    words = tuple(word for word in config.tables if word.partition("/")[0] in papers.PAPERS)
    if config.tables and not words:
        return []
    known, made, chosen = published.read(), [], papers.chosen(words)
    if any(table.experiment in similarity_validity.TESTS for table in chosen.values()):
        runs = [run for name in similarity_validity.READ for run in library.of(name)]
        rows = similarity_validity.rows(runs)
        for test in similarity_validity.TESTS:
            library.derive(test, [run.path for run in runs], [row for row in rows if row["test"] == test])
    for name, table in chosen.items():
        lines, axes = fill(table, known.get(name, {}), library, config.seeds), list(table.axes)
        if config.measured and not (lines := [line for line in lines if line.values]):
            continue
        made.append(
            formats.Table(
                name.replace("/", "-"),
                f"{name}: {table.title}",
                paper_rows.shown(axes, lines),
                paper_rows.raw(axes, lines),
                table.note,
                lines,
            )
        )
    return made


def _commands(config: TablesConfig, library) -> list[str]:
    """The commands that fill the empty cells of the chosen tables, each once, and a comment line between their stages."""
    found = [
        command
        for table in _papers(config, library)
        for command in missing_runs.commands(table.name.partition("-")[0], table.lines, library, config.seeds)
    ]
    return missing_runs.staged(found)


def _printed(config: TablesConfig, made: list[formats.Table]) -> str:
    """The tables as text, or the names of the files that they were written to."""
    if not config.out:
        return "\n\n".join(formats.write(config.format, table) for table in made)
    paths = []
    for table in made:
        path = Path(config.out) / f"{table.name}.{formats.SUFFIXES[config.format]}"
        content = (formats.write(config.format, table) + "\n").encode()
        files.write_atomically(path, lambda file, content=content: file.write(content))
        paths.append(str(path))
    return "\n".join(paths)
