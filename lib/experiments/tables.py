"""Tables from records: `exec_tables.py`. Reads records only, and writes none."""

import sys
from pathlib import Path

from lib.core import figures, files
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


def text(config: TablesConfig) -> str:
    """What the command prints: tables, commands, or where they were written."""
    broken: list[str] = []
    library = record_library.Library(records.records(config.results_dir, EXPERIMENTS, broken), EXPERIMENTS)
    _warn(broken)
    if config.missing:
        return "\n".join(_commands(config, library))
    if config.network:
        from lib.tables import network_overview

        found = network_overview.tables(config.network, library, config.group_by)
        figure = Path(config.out or Path(config.results_dir) / "tables") / f"{found.name}.png"
        figures.write_all(lambda: {"": found.figure()}, lambda _: figure)
        return _printed(config, found.tables) + (f"\n\nfigure: {figure}" if figure.exists() else "")
    if config.report:
        from lib.tables import html_report

        page = html_report.page(
            library, _experiments(library, config.seeds) + _tests(config, library), _papers(config, library)
        )
        files.write_atomically(Path(config.report), lambda file: file.write(readable(page).encode()))
        return config.report
    made = _experiments(library, config.seeds, config.tables, config.group_by) + (
        [] if config.group_by else _tests(config, library)
    )
    made += _papers(config, library) if config.tables and not config.group_by else []
    if not made and config.group_by and library.runs:
        raise UserError(f"--group-by {config.group_by}: no record that is shown has rows with this column")
    if not made:
        wanted = " that fill these tables" if config.measured and library.runs else ""
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
    return _printed(config, [record_queries.best(index, subject, query, config.top, config.lowest)])


def _warn(sentences: list[str]) -> None:
    for sentence in sentences:
        print(f"warning: {sentence}; left out", file=sys.stderr)


def _experiments(library, seeds, words: tuple[str, ...] = (), group_by: str = "") -> list[formats.PrintedTable]:
    """A table per experiment that is named, or that has records; with `group_by` those whose rows have this column."""
    wanted = [name for name in summaries.summarised(EXPERIMENTS) if not words or name in words]
    made = {name: summaries.rows(name, library, seeds, group_by) for name in wanted}
    return [formats.PrintedTable(name, name, rows, rows) for name, rows in made.items() if rows]


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
    for test in wanted:
        panels: dict[str, list] = {}
        for pair in pairs:
            if pair.test == test:
                what = f"{pair.index}: {pair.setting}" + (f"\n{pair.model_type}, {pair.probes}" if several else "")
                panels.setdefault(what, []).append((pair.reference.layer, pair.gap, pair.dissimilarity))
        if panels:
            rows = [{key: value for key, value in row.items() if key != "test"} for row in found if row["test"] == test]
            path = Path(config.results_dir) / "tables" / f"{test}.png"
            title = f"{test} of indices of similarity"
            figures.write_all(lambda: {"": plots.scatter(panels, title)}, lambda _: path)  # noqa: B023 (called at once)
            there = path if path.exists() else None
            made.append(formats.PrintedTable(test, test, rows, rows, f"figure: {path}" if there else "", figure=there))
    return made


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
        return "\n\n".join(formats.write(config.format, table) for table in made)
    paths = []
    for table in made:
        path = Path(config.out) / f"{table.name}.{formats.SUFFIXES[config.format]}"
        content = (readable(formats.write(config.format, table)) + "\n").encode()
        files.write_atomically(path, lambda file, content=content: file.write(content))
        paths.append(str(path))
    return "\n".join(paths)
