"""Tables from records: `exec_tables.py`. Reads records only, and writes none."""

import contextlib
import functools
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib.core import figures, files, terminal
from lib.core.errors import UserError
from lib.core.text import readable
from lib.experiments import EXPERIMENTS
from lib.experiments.config.tables import TablesConfig
from lib.runs import records
from lib.tables import (
    TESTED,
    TESTS,
    formats,
    missing_runs,
    paper_rows,
    papers,
    record_library,
    summaries,
)
from lib.tables.compare import compare
from lib.tables.papers import published

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = 24  # figures of networks, and of trainings, that a report draws at most, half a second each


def text(config: TablesConfig) -> str:
    """What the command prints: tables, commands, or where they were written."""
    if config.figures:
        from lib.runs import drawing

        drawn = drawing.redraw(config.figures, EXPERIMENTS, config.figure_format, config.figure_width)
        return "\n".join(map(str, drawn)) or "no figures: these records have none"
    broken: list[str] = []
    library = record_library.Library(records.records(config.results_dir, EXPERIMENTS, broken), EXPERIMENTS)
    _warn(broken)
    if config.missing:
        width = terminal.width()
        return "\n".join(terminal.command(line, width) if width else line for line in _commands(config, library))
    if config.network:
        from lib.tables import network_overview

        found = network_overview.tables(config.network, library, config.group_by)
        figure = _drawn(config, found.name, found.figure, config.out)
        return _printed(config, found.tables) + (f"\n\nfigure: {figure}" if figure else "")
    if config.report:
        page = _report(config, library)
        files.write_atomically(Path(config.report), lambda file: file.write(readable(page).encode()))
        return config.report
    made = _experiments(library, config.seeds, config.tables, config.group_by) + (
        [] if config.group_by else _tests(config, library)
    )
    made += _papers(config, library) if config.tables and not config.group_by else []
    if not made and config.group_by and library.runs:
        raise UserError(f"--group-by {config.group_by}: no record that is shown has rows with this column")
    if not made:
        wanted = " that fill these tables" if (config.measured or config.tables) and library.runs else ""
        return f"no records under {config.results_dir}/{wanted}"
    return _printed(config, made)


def collection(config: TablesConfig) -> str:
    """What `ls`, `best`, `export` and `merge` print."""
    from lib.tables import record_export, record_index, record_merge, record_queries

    words = config.tables[1:]
    if config.action == "merge":
        told, left_out = record_merge.merge([Path(word) for word in words], Path(config.results_dir), EXPERIMENTS)
        _warn(left_out)
        return told
    subject, filters = ("", words) if config.action == "ls" else (words[0], words[1:])
    query = record_queries.parse(filters, EXPERIMENTS)
    if config.action == "export":
        record_export.check(Path(subject))
    index = record_index.Index(config.results_dir, EXPERIMENTS, config.cache_dir)
    _warn(index.problems())
    if not index.size:
        return f"no records under {config.results_dir}/"
    if config.action == "export":
        return record_export.export(index, query, Path(subject))
    if config.action == "ls":
        return _printed(config, [record_queries.listing(index, query)])
    return _printed(config, [record_queries.best(index, subject, query, config.top, config.lowest, config.each)])


def _warn(sentences: list[str]) -> None:
    for sentence in sentences:
        print(f"warning: {sentence}; left out", file=sys.stderr)


def _experiments(library, seeds, words: tuple[str, ...] = (), group_by: str = "") -> list[formats.PrintedTable]:
    """A table per experiment that is named, or that has records; with `group_by` those whose rows have this column."""
    wanted = [name for name in summaries.summarised(EXPERIMENTS) if not words or name in words]
    made = {name: summaries.lines(name, library, seeds, group_by) for name in wanted}
    return [formats.PrintedTable(name, name, rows, rows, origins=origins) for name, (rows, origins) in made.items() if rows]


def _report(config: TablesConfig, library) -> str:
    """The page of everything, and the figures that are drawn for it alone."""
    from lib.tables import html_report

    return html_report.page(
        html_report.Content(
            library,
            _experiments(library, config.seeds) + _tests(config, library),
            _papers(config, library),
            _networks(config, library),
            _curves(config, library),
        )
    )


def _networks(config: TablesConfig, library) -> list[list[formats.PrintedTable]]:
    """The tables of each network's layers, the first with the figure; of many networks not all are drawn."""
    from lib.tables import network_overview

    made = []
    for path in network_overview.checkpoints(library):
        with contextlib.suppress(UserError):  # what is known of it is of no layer
            found = network_overview.tables(path, library)
            if found.tables[0].name != f"{found.name}-layers":
                continue  # only the commands for what is missing
            first, *others = found.tables
            if len(made) < DRAWN:
                first = replace(first, figure=_drawn(config, found.name, found.figure))
            else:
                first = replace(first, note=f"{first.note} Its figure: python exec_tables.py --network {shlex.quote(path)}")
            made.append([first, *others])
    return made


def _curves(config: TablesConfig, library) -> list[formats.PrintedTable]:
    """Figures of the trainings' losses and accuracies, those on the same data together, as many as can be told apart."""
    from lib.plots import training_curves

    of_set: dict[tuple[str, ...], list] = {}
    for run in library.of("train"):
        if len(run.rows) > 1:
            of_set.setdefault(run.whole_origin.sets, []).append(run)
    most = training_curves.MOST
    parts = [
        (sets, start, runs[start : start + most]) for sets, runs in of_set.items() for start in range(0, len(runs), most)
    ]
    made = []
    for sets, start, runs in parts[:DRAWN]:
        title = f"training on {', '.join(sets)}" + (f", from run {start + 1}" if start else "")
        rows = {f"{run.config['directory']}: {_trained(run)}": run.rows for run in runs}
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", title)
        path = _drawn(config, name, functools.partial(training_curves.curves, rows, title))
        origin = record_library.joined(run.whole_origin for run in runs)
        made.append(formats.PrintedTable(title, title, [], [], figure=path, origins=[origin]))
    return [one for one in made if one.figure]


def _trained(run) -> str:
    """What a training made."""
    network = run.networks(run.rows[0])["net"]
    return f"{network}, seed {network.seed}"


def _tests(config: TablesConfig, library) -> list[formats.PrintedTable]:
    """The statistical tests of indices against probes that are named, or that have records, each with its figure."""
    wanted = () if config.seeds else [test for test in TESTS if not config.tables or test in config.tables]
    runs = [run for name in TESTED for run in library.present(name)] if wanted else []
    if not runs:
        return []
    from lib.plots import similarity_validity as plots
    from lib.tables import similarity_validity

    pairs, found, made = similarity_validity.pairs(runs), similarity_validity.rows(runs), []
    several = len({pair[1:3] for pair in pairs}) > 1
    origins = [record_library.joined(run.whole_origin for run in runs)]
    for test in wanted:
        panels: dict[str, list] = {}
        for pair in pairs:
            if pair.test == test:
                what = f"{pair.index}: {pair.setting}" + (f"\n{pair.model_type}, {pair.probes}" if several else "")
                panels.setdefault(what, []).append((pair.reference.layer, pair.gap, pair.dissimilarity))
        if panels:
            rows = [{key: value for key, value in row.items() if key != "test"} for row in found if row["test"] == test]
            figure = functools.partial(plots.scatter, panels, f"{test} of indices of similarity")
            path = _drawn(config, test, figure)
            made.append(formats.PrintedTable(test, test, rows, rows, f"figure: {path}" if path else "", [], path, origins))
    return made


def _drawn(config: TablesConfig, name: str, draw: Callable[[], "Figure"], folder: str = "") -> Path | None:
    """The file of a figure that was drawn of several records, in a folder of tables; None where that failed."""
    kind = "png" if config.report else config.figure_format  # which is what a page shows
    path = Path(folder or Path(config.results_dir) / "tables") / f"{name}.{kind}"
    path.unlink(missing_ok=True)
    return next(iter(figures.write_all(lambda: {"": draw()}, lambda _: path, config.figure_width)), None)


def _papers(config: TablesConfig, library) -> list[formats.PrintedTable]:
    """The papers' tables that are named, or all."""
    words = tuple(word for word in config.tables if word.partition("/")[0] in papers.PAPERS)
    if config.tables and not words:
        return []
    known, made, chosen = published.read(), [], papers.chosen(words)
    if any(table.experiment in TESTS for table in chosen.values()):
        from lib.tables import similarity_validity

        runs = [run for name in TESTED for run in library.present(name)]
        rows = similarity_validity.rows(runs)
        for test in TESTS:
            library.derive(test, [run.path for run in runs], [row for row in rows if row["test"] == test])
    for name, table in chosen.items():
        lines, axes = compare(table, known.get(name, {}), library, config.seeds), list(table.axes)
        if config.measured and not (lines := [line for line in lines if line.values]):
            continue
        made.append(
            formats.PrintedTable(
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
    return missing_runs.staged(found, EXPERIMENTS)


def _printed(config: TablesConfig, made: list[formats.PrintedTable]) -> str:
    """The tables as text, or the names of the files that they were written to."""
    if not config.out:
        width = terminal.width() if config.format == "text" and not config.all else None
        return "\n\n".join(
            formats.write(config.format, table) if width is None else formats.fitted(table, width) for table in made
        )
    paths = []
    for table in made:
        path = Path(config.out) / f"{table.name}.{formats.SUFFIXES[config.format]}"
        content = (readable(formats.write(config.format, table)) + "\n").encode()
        files.write_atomically(path, lambda file, content=content: file.write(content))
        paths.append(str(path))
    return "\n".join(paths)
