"""Which records, and which of their rows, fit some conditions: `exec_tables.py ls` and `best`.

A condition is a name and the values it may have. The name is a column of the rows or a setting of the configuration: where
a row has the column, its value counts, else the setting's. A value with `*`, `?` or `[...]` is a pattern; an empty one is
that of what has no value. Some names are of the record itself, `OF_RECORDS`.
"""

import contextlib
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lib.core.errors import UsageError, UserError
from lib.core.registry import near
from lib.core.text import readable
from lib.core.text_table import cell
from lib.runs import records
from lib.tables import formats, record_library
from lib.tables.record_index import SEPARATOR, Index

PART, WHOLE = "subset", "all"  # the column that says which part of the images a row is of, and what is no part
OF_RECORDS = {  # name -> what its values are
    "network": "a checkpoint that the record is of, or its folder",
    "data": "a data set that the row is of, else the record",
    "record": "the file's name without .json",
    "started": "when the run began, as 2026-01-31T12:00:00+00:00",
}


@dataclass(frozen=True)
class Query:
    """Experiments, none for all, and for each name the values of which one must be met."""

    experiments: tuple[str, ...] = ()
    conditions: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A record that fits, and how many of its rows do."""

    experiment: str
    path: str
    started: str
    earlier: bool
    fitting: int
    rows: int
    command: str


def parse(words: Iterable[str], experiments: Iterable[str]) -> Query:
    """The query that words such as `probe`, `seed=0`, `layer=layer3*` stand for; one name twice means either value."""
    wanted, conditions = [], {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name:
            conditions[name] = (*conditions.get(name, ()), value)
        elif word in experiments:
            wanted.append(word)
        else:
            raise UsageError(f"{word}: neither an experiment nor a condition such as seed=0; {near(word, experiments)}")
    return Query(tuple(dict.fromkeys(wanted)), conditions)


def found(index: Index, query: Query) -> list[Found]:
    """The records that have a row that fits, in the order of experiments and names."""
    _check(index, query)
    made = []
    for experiment, where, values, by_rows in _parts(index, query):
        number = "count(*)" if by_rows else "r.rows"
        lines = index.database.execute(
            f"SELECT r.path, r.started, r.revision, {number}, r.rows, r.command {where} GROUP BY r.id ORDER BY r.path",
            values,
        )
        present = index.experiments[experiment].revision
        for path, started, revision, fitting, rows, command in lines:
            made.append(Found(experiment, path, started, revision < present, min(fitting, rows), rows, command))
    return made


def listing(index: Index, query: Query) -> formats.PrintedTable:
    """A line per record that fits."""
    lines = found(index, query)
    rows = [
        {
            "record": str(index.results_dir / one.path),
            "started": one.started,
            "rows": one.fitting,
            **({"of": one.rows} if query.conditions else {}),
            "version": "earlier" if one.earlier else None,
            "command": one.command,
        }
        for one in lines
    ]
    if rows and not any(row["version"] for row in rows):
        rows = [{name: value for name, value in row.items() if name != "version"} for row in rows]
    return formats.PrintedTable("ls", f"{len(rows)} records", rows, rows)


def best(
    index: Index, measure: str, query: Query, most: int = 1, lowest: bool | None = None, each: tuple[str, ...] = ()
) -> formats.PrintedTable:
    """The rows with the best numbers of a measure, with the command and the changed settings of their records.

    most      how many rows
    lowest    whether the least number is the best; None: as the experiments' columns say
    each      columns, settings or `record`: so many rows for each of their values, beside the settings that differ

    Records of earlier versions of a method are left out, and so are rows of a part of the images, such as one class, unless
    a condition names the part. Raises `UserError` where no row has the measure.
    """
    _check(index, query, each)
    known = [name for one in index.experiments for name in index.columns(one, "row")]
    if measure not in known:
        raise UsageError(f"{measure}: no row of a record has this column; {near(measure, known)}")
    better = [one.columns.numbers[measure].better for one in index.experiments.values() if measure in one.columns.numbers]
    lowest = "lower" in better if lowest is None else lowest
    places, count = _places(index, measure, query, most, lowest, each)
    if not places:
        raise UserError(f"{measure}: no row that fits has a number there, in a record of the present version of its method")
    groups: dict[tuple, list[_Place]] = {}
    for place in places:
        groups.setdefault(place.key, []).append(place)
    ranked = [sorted(group, key=lambda place: place.value, reverse=not lowest)[:most] for group in groups.values()]
    lines = [_line(index, measure, each, place) for group in ranked for place in group]
    title = f"{measure}: {'lowest' if lowest else 'highest'} of {count} rows"
    if each:
        title += f", for each {' and '.join(each)}"
        rows, note = _beside_settings(lines, (measure, *each))
    else:
        rows, note = [line.row for line in lines], "\n".join(dict.fromkeys(line.about for line in lines))
    return formats.PrintedTable(f"best-{'-'.join((measure, *each))}", title, rows, [line.full for line in lines], note)


class _Place(NamedTuple):
    """A row of a record that has the measure."""

    value: float
    key: tuple  # the values of what `each` names
    path: str
    number: int
    experiment: str


class _Line(NamedTuple):
    """What is shown of a row, all that is known of it, and the words about its record."""

    row: dict
    full: dict
    settings: dict[str, str]
    about: str


def _places(
    index: Index, measure: str, query: Query, most: int, lowest: bool, each: tuple[str, ...]
) -> tuple[list[_Place], int]:
    """Rows that fit and have the measure, and how many there are: with `each` all in the order of runs and of the rows of a
    record, else the best of each experiment."""
    made, count = [], 0
    order = f"1 {'ASC' if lowest else 'DESC'}, r.path, w.number LIMIT {most}"
    for experiment, where, values, _ in _parts(index, query, rows=True):
        column = index.column(experiment, "row", measure)
        keys = [_value(index, experiment, name) for name in each]
        if column is None or "" in keys:
            continue
        where += f" AND typeof(w.{column}) IN ('integer', 'real') AND r.revision >= ?"
        values = [*values, index.experiments[experiment].revision]
        part = index.column(experiment, "row", PART)
        if part and PART not in query.conditions:
            where += f" AND COALESCE(w.{part}, '') IN ('', '{WHOLE}')"
        count += index.database.execute(f"SELECT count(*) {where}", values).fetchone()[0]
        wanted = ", ".join([f"w.{column}", "r.path", "w.number", *keys])
        ordered = f"{where} ORDER BY {'r.started, r.path, w.number' if each else order}"
        for value, path, number, *key in index.database.execute(f"SELECT {wanted} {ordered}", values):
            made.append(_Place(value, tuple(key), path, number, experiment))
    return made, count


def _line(index: Index, measure: str, each: tuple[str, ...], place: _Place) -> _Line:
    record = index.read(place.path, place.experiment)
    row, experiment = record["rows"][place.number], index.experiments[place.experiment]
    _, changed = record_library.settings_of(experiment.fields, record["config"], ())
    changed = {name: _shown(value) for name, value in changed.items()}
    about = {"record": str(index.results_dir / place.path)}
    others = {name: value for name, value in row.items() if name not in (measure, *about) and value not in (None, "")}
    shown, summary = list(others), experiment.configuration.summary
    if summary:  # and everything that tells the row from others of its record
        words = [name for name in others if name in experiment.columns.words]
        shown = [name for name in dict.fromkeys((*each, *summary.keys, *words, *summary.measured)) if name in others]
    command = shlex.join(["python", *record["command"]])
    settings = "; ".join(f"{name} {value}" for name, value in changed.items())
    return _Line(
        {measure: row[measure], **{name: others[name] for name in shown}, **about},
        {
            measure: row[measure],
            **about,
            **others,
            "command": command,
            **{f"config.{name}": value for name, value in changed.items()},
        },
        changed,
        readable(f"{about['record']}\n  command:  {command}\n  settings: {settings}"),
    )


def _beside_settings(lines: list[_Line], kept: tuple[str, ...]) -> tuple[list[dict], str]:
    """The rows behind the settings in which their records differ, and a note of what all share but the columns `kept`."""
    settings = dict.fromkeys(name for line in lines for name in line.settings if name not in line.row)
    differ = [name for name in settings if len({line.settings.get(name) for line in lines}) > 1]
    rows = [{**{name: line.settings.get(name) for name in differ}, **line.row} for line in lines]
    names = dict.fromkeys(name for row in rows for name in row)
    same = [name for name in names if name not in kept and len({row.get(name) for row in rows}) == 1]
    shared = [f"{name} {cell(rows[0][name])}" for name in same] if len(rows) > 1 else []
    shared += [f"{name} {lines[0].settings[name]}" for name in settings if name not in differ]
    shown = [{name: row.get(name) for name in names if name not in same or len(rows) == 1} for row in rows]
    return shown, readable(f"all rows: {'; '.join(shared)}") if shared else ""


def fitting(index: Index, query: Query) -> Iterator[tuple[str, str, list[int]]]:
    """(experiment, path, the numbers of its rows that fit) of every record that has any."""
    _check(index, query)
    for experiment, where, values, _ in _parts(index, query, rows=True):
        lines = index.database.execute(f"SELECT r.path, w.number {where} ORDER BY r.path, w.number", values)
        path, numbers = "", []
        for other, number in lines:
            if numbers and other != path:
                yield experiment, path, numbers
                numbers = []
            path = other
            numbers.append(number)
        if numbers:
            yield experiment, path, numbers


def _check(index: Index, query: Query, each: tuple[str, ...] = ()) -> None:
    """Raises `UsageError` for a name that no record has."""
    wanted = query.experiments or tuple(index.experiments)
    own = [name for one in wanted for kind in ("row", "setting") for name in index.columns(one, kind)]
    named = {f"{name}={values[0]}": (name, [*OF_RECORDS, *own]) for name, values in query.conditions.items()}
    named |= {f"--each {name}": (name, ["record", "started", *own]) for name in each}
    for words, (name, known) in named.items():
        if name not in known:
            raise UsageError(f"{words}: no record has such a column or flag; {near(name, known)}")


def _parts(index: Index, query: Query, rows: bool = False) -> Iterator[tuple[str, str, list, bool]]:
    """For every experiment that has all names: the end of a statement from FROM on, its values, whether it is by rows."""
    for experiment in query.experiments or index.experiments:
        conditions, values, by_rows = [], [], rows
        for name, wanted in query.conditions.items():
            condition, more, of_rows = _condition(index, experiment, name, wanted)
            conditions.append(condition)
            values += more
            by_rows |= of_rows
        if "" in conditions:
            continue
        join = f'JOIN "rows of {experiment}" w ON w.record = r.id' if rows else ""
        if by_rows and not rows:
            join = f'LEFT JOIN "rows of {experiment}" w ON w.record = r.id'
        where = " AND ".join(["r.problem IS NULL", *conditions])
        yield (
            experiment,
            f'FROM records r JOIN "settings of {experiment}" s ON s.record = r.id {join} WHERE {where}',
            values,
            by_rows,
        )


def _condition(index: Index, experiment: str, name: str, wanted: tuple[str, ...]) -> tuple[str, list, bool]:
    """One name as SQL, "" where no record of the experiment has it; its values; whether it is about rows."""
    row = index.column(experiment, "row", name)
    if name == "network" or name == "data" and row is None:
        return *_read(name, wanted), False
    if name == "data":
        variant = index.column(experiment, "row", "variant")
        whole, values = _any(f"w.{row}", wanted)
        if variant:
            also, more = _any(f"w.{row} || '/' || w.{variant}", wanted)
            whole, values = f"({whole} OR {also})", [*values, *more]
        else_, more = _read(name, wanted)
        return f"CASE WHEN COALESCE(w.{row}, '') = '' THEN {else_} ELSE {whole} END", [*more, *values], True
    value = _value(index, experiment, name)
    return (*_any(value, wanted), row is not None) if value else ("", [], False)


def _value(index: Index, experiment: str, name: str) -> str:
    """What a name stands for as SQL, "" where no record of the experiment has it."""
    if name == "record":
        return f"substr(r.path, {len(experiment) + 2}, length(r.path) - {len(experiment) + 6})"
    if name == "started":
        return "r.started"
    row, setting = (index.column(experiment, kind, name) for kind in ("row", "setting"))
    columns = [*([f"w.{row}"] if row else []), *([f"s.{setting}"] if setting else [])]
    return f"COALESCE({', '.join(columns)})" if len(columns) > 1 else "".join(columns)


def _any(column: str, wanted: tuple[str, ...]) -> tuple[str, list]:
    """That a value, or one of a list, is one of those wanted."""
    conditions, values = [], []
    for word in map(readable, wanted):
        options = [word, *_number(word)]
        conditions.append(f"{column} IN ({', '.join('?' * len(options))})")
        values += options
        if not word:
            conditions.append(f"{column} IS NULL OR {column} = '{SEPARATOR}'")
            continue
        conditions.append(f"instr({column}, ?) > 0")
        values.append(SEPARATOR + word + SEPARATOR)
        if _is_pattern(word):
            conditions.append(f"{column} GLOB ? OR {column} GLOB ?")
            values += [word, f"*{SEPARATOR}{word}{SEPARATOR}*"]
    return f"({' OR '.join(conditions)})", values


def _read(name: str, wanted: tuple[str, ...]) -> tuple[str, list]:
    """That a record is of one of these networks or data sets."""
    names: list[str] = []
    for word in map(readable, wanted):
        path = word.removeprefix("./").rstrip("/")
        names += [path, f"models/{path}"] if name == "network" else [word, f"{word}/*", f"{word}:*"]
    fits = " OR ".join(["name = ? OR name GLOB ?"] * len(names))
    values = [value for one in names for value in (one, one)]
    return f"EXISTS (SELECT 1 FROM reads WHERE reads.record = r.id AND ({fits}))", values


def _number(word: str) -> list[int | float]:
    """The number that a word is, too."""
    with contextlib.suppress(ValueError):
        return [number] if abs(number := int(word)) < records.LARGEST else []
    with contextlib.suppress(ValueError):
        return [float(word)]
    return []


def _is_pattern(word: str) -> bool:
    return any(sign in word for sign in "*?[")


def _shown(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
