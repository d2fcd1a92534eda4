"""An index of the records of a results folder, so that ten thousand of them are searched in a moment.

An SQLite database, which is only a memory: it is brought up to date before every question (records that are new, changed or
gone are known by size, inode and times), made anew where it is absent, damaged or of other columns, and held in memory
alone where it cannot be kept. It is one file under the cache folder, written whole, with its SHA-256 in front: no process
ever waits for another one, and no file system needs locks.

A value is a number or a text: truths are `true` and `false`, a list is its values between `SEPARATOR`s, and what a row has
without a value is the empty text. NULL is what a row does not have.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shlex
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from lib.core import files
from lib.core.errors import UserError
from lib.core.text import as_bytes, readable
from lib.runs import records
from lib.runs.command_lines import Experiment, Experiments
from lib.runs.input_files import SUFFIXES
from lib.tables import record_library

SEPARATOR = "\x1f"
VERSION = 2  # of what values are in the database
MOST_COLUMNS = 1900  # that the rows of an experiment may have together: SQLite's limit is 2000

TABLES = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY, experiment, path TEXT UNIQUE, version, problem, started, revision, rows, command
);
CREATE TABLE columns (experiment, kind, name, place, PRIMARY KEY (experiment, kind, name));
CREATE TABLE reads (record INTEGER, name, PRIMARY KEY (record, name)) WITHOUT ROWID;
"""
KINDS = ("setting", "row")  # of columns: tables "<kind>s of <experiment>" with columns c0, c1, ...
KEYS = ("record INTEGER PRIMARY KEY", "record INTEGER, number INTEGER, PRIMARY KEY (record, number)")  # of these tables


class Index:
    """The records of some experiments under a results folder, up to date as of now.

    database   `records`, one line each, with `problem` where one cannot be read; per experiment "settings of <experiment>"
               and "rows of <experiment>", whose columns are numbered: `column` tells them; `reads`, the files, data sets
               and networks that a record is of
    """

    def __init__(self, results_dir: str, experiments: Experiments, cache_dir: str) -> None:
        self.results_dir, self.experiments = Path(results_dir), experiments
        self.path = file_of(results_dir, cache_dir)
        self._about = _about(experiments)
        self.database = self._kept() or self._empty()
        self._places: dict[tuple[str, str], dict[str, int]] = {}
        for experiment, kind, name, place in self.database.execute("SELECT experiment, kind, name, place FROM columns"):
            self._places.setdefault((experiment, kind), {})[name] = place
        if self._update():
            self._keep()

    def column(self, experiment: str, kind: str, name: str) -> str | None:
        """The column of the database for a setting or a row's column; None where no record of the experiment has it."""
        place = self._places.get((experiment, kind), {}).get(name)
        return None if place is None else f"c{place}"

    def columns(self, experiment: str, kind: str) -> dict[str, str]:
        """All of them, name -> column of the database, in the order in which they were met."""
        return {name: f"c{place}" for name, place in self._places.get((experiment, kind), {}).items()}

    @property
    def size(self) -> int:
        """How many records there are."""
        return self.database.execute("SELECT count(*) FROM records WHERE problem IS NULL").fetchone()[0]

    def problems(self) -> list[str]:
        """What is wrong with each of the records that cannot be read."""
        found = self.database.execute("SELECT problem FROM records WHERE problem IS NOT NULL ORDER BY path")
        return [problem for (problem,) in found]

    def read(self, path: str, experiment: str) -> dict:
        """The record itself; raises `UserError` where it has changed since the index was brought up to date."""
        record = records.read(self.results_dir / path, self.experiments[experiment])
        (rows,) = self.database.execute("SELECT rows FROM records WHERE path = ?", (path,)).fetchone()
        if rows != len(record["rows"]):
            raise UserError(f"{self.results_dir / path} was changed meanwhile; the same command runs again")
        return record

    def _kept(self) -> sqlite3.Connection | None:
        """The database as an earlier command kept it; None where there is none that can be trusted."""
        try:
            stamp, _, content = self.path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if stamp.decode("ascii", "replace") != f"{self._about} {hashlib.sha256(content).hexdigest()}":
            return None
        database = sqlite3.connect(":memory:")
        database.deserialize(content)
        return database

    def _empty(self) -> sqlite3.Connection:
        database = sqlite3.connect(":memory:")
        database.executescript(TABLES)
        for experiment in self.experiments:
            for kind, keys in zip(KINDS, KEYS, strict=True):
                database.execute(f'CREATE TABLE "{kind}s of {experiment}" ({keys}) WITHOUT ROWID')
        return database

    def _keep(self) -> None:
        content = self.database.serialize()
        stamp = f"{self._about} {hashlib.sha256(content).hexdigest()}\n".encode("ascii")

        def write(file) -> None:
            file.write(stamp)
            file.write(content)

        try:
            files.write_atomically(self.path, write)
        except UserError as error:
            print(f"warning: {error}; the index of records is made again next time", file=sys.stderr)

    def _update(self) -> bool:
        """Brings the database up to date with the folder; whether anything had changed."""
        there = _there(self.results_dir, self.experiments)
        known = {
            path: (key, version) for key, path, version in self.database.execute("SELECT id, path, version FROM records")
        }
        gone = [key for path, (key, version) in known.items() if there.get(path, ("", ""))[1] != version]
        new = {path: about for path, about in there.items() if known.get(path, (0, ""))[1] != about[1]}
        if not gone and not new:
            return False
        with self.database:
            for key in gone:
                self._forget(key)
            for path, (experiment, version) in new.items():
                self._add(path, experiment, version)
        return True

    def _forget(self, key: int) -> None:
        (experiment,) = self.database.execute("SELECT experiment FROM records WHERE id = ?", (key,)).fetchone()
        self.database.execute("DELETE FROM records WHERE id = ?", (key,))
        for table in ("reads", *(f"{kind}s of {experiment}" for kind in KINDS)):
            self.database.execute(f'DELETE FROM "{table}" WHERE record = ?', (key,))

    def _add(self, path: str, experiment: str, version: str) -> None:
        record, problem = {}, None
        try:
            record = records.read(self.results_dir / path, self.experiments[experiment])
            self._make_room(record, experiment, path)
        except UserError as error:
            record, problem = {}, readable(str(error))
        command = readable(shlex.join(record.get("command", ())))
        about = (record.get("started"), records.revision(record), len(record.get("rows", ())), command)
        key = self.database.execute(
            "INSERT INTO records (experiment, path, version, problem, started, revision, rows, command) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (experiment, path, version, problem, *about),
        ).lastrowid
        if problem is None:
            self._insert(experiment, "setting", [(key,)], [_settings(self.experiments[experiment], record)])
            self._insert(experiment, "row", [(key, number) for number in range(len(record["rows"]))], record["rows"])
            reads = _reads(self.experiments[experiment], record)
            self.database.executemany("INSERT INTO reads VALUES (?, ?)", [(key, name) for name in sorted(reads)])

    def _make_room(self, record: dict, experiment: str, path: str) -> None:
        """The columns that the record has and the database has not; raises `UserError` where they are too many."""
        found = {"setting": [_settings(self.experiments[experiment], record)], "row": record["rows"]}
        for kind, lines in found.items():
            places = self._places.setdefault((experiment, kind), {})
            new = [name for name in dict.fromkeys(name for line in lines for name in line) if name not in places]
            if len(places) + len(new) > MOST_COLUMNS:
                raise UserError(f"{self.results_dir / path}: with it, {experiment} has more than {MOST_COLUMNS} columns")
            for name in new:
                places[name] = len(places)
                self.database.execute(f'ALTER TABLE "{kind}s of {experiment}" ADD COLUMN c{places[name]}')
                self.database.execute("INSERT INTO columns VALUES (?, ?, ?, ?)", (experiment, kind, name, places[name]))

    def _insert(self, experiment: str, kind: str, keys: list[tuple], lines: list[dict]) -> None:
        """Adds lines with the same columns together."""
        places, alike = self._places[experiment, kind], {}
        for key, line in zip(keys, lines, strict=True):
            found = ("" if one is None and kind == "row" else value(one) for one in line.values())
            alike.setdefault(tuple(line), []).append((*key, *found))
        for names, found in alike.items():
            columns = ", ".join(["record", *(["number"] if kind == "row" else []), *(f"c{places[name]}" for name in names)])
            marks = ", ".join("?" * len(found[0]))
            self.database.executemany(f'INSERT INTO "{kind}s of {experiment}" ({columns}) VALUES ({marks})', found)


def file_of(results_dir: str, cache_dir: str) -> Path:
    """Where the index of a results folder is kept."""
    place = hashlib.sha256(as_bytes(os.path.realpath(results_dir))).hexdigest()[:12]
    return Path(cache_dir) / f"records-{place}.index"


def value(content) -> str | int | float | None:
    """A value of a record as the database has it."""
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, list):
        return SEPARATOR + "".join(f"{word(one)}{SEPARATOR}" for one in content)
    return readable(content) if isinstance(content, str) else content


def word(content) -> str:
    """A single value as a text."""
    found = value(content)
    return "" if found is None else str(found)


def _there(results_dir: Path, experiments: Iterable[str]) -> dict[str, tuple[str, str]]:
    """path below the results folder -> its experiment, and what the file is recognised by; sorted."""
    found = {}
    for experiment in experiments:
        with contextlib.suppress(OSError), os.scandir(results_dir / experiment) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    with contextlib.suppress(OSError):  # it was removed meanwhile
                        found[f"{experiment}/{entry.name}"] = experiment, files.identity(entry.stat())
    return dict(sorted(found.items()))


def _settings(experiment: Experiment, record: dict) -> dict:
    """A whole configuration: younger flags at their default."""
    whole, _ = record_library.settings_of(experiment.fields, record["config"], ())
    return {name: content for name, content in whole.items() if content is not dataclasses.MISSING}


def _reads(experiment: Experiment, record: dict) -> set[str]:
    """The data sets, files and networks that a record is of, and the folders of the networks."""
    config = record["config"]
    found = {readable(name) for name in record["inputs"]} | {readable(name) for name in record.get("outputs", {})}
    roles = [name for name, field in experiment.fields.items() if field.metadata["network"]]
    found |= {readable(config[name]) for name in roles if isinstance(config.get(name), str) and config[name]}
    found |= {readable(row[name]) for row in record["rows"] for name in experiment.columns.sets if row.get(name)}
    if isinstance(config.get("dataset"), str):
        found.add(readable(config["dataset"]))
    found |= {str(Path(name).parent) for name in found if Path(name).suffix in SUFFIXES}
    return found - {"", "."}


def _about(experiments: Mapping[str, Experiment]) -> str:
    """What an index is of, as a hash: the tables of the database, and what records are checked and completed by."""
    known = {
        name: (
            {field.name: "" if field.default is dataclasses.MISSING else repr(field.default) for field in fields},
            [sorted(kind) for kind in (experiment.columns.numbers, experiment.columns.words, experiment.columns.truths)],
        )
        for name, experiment in experiments.items()
        for fields in [experiment.fields.values()]
    }
    return hashlib.sha256(json.dumps([VERSION, TABLES, KEYS, known]).encode()).hexdigest()
