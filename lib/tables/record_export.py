"""Rows of records as one file: CSV, or Parquet where pyarrow is installed. `exec_tables.py export`.

A line per row: the columns of the rows in their order, `run.experiment`, `run.record` (its path) and the like, then a column
`config.<setting>` for every setting. A list, the value of a flag that takes several, is JSON. Every digit is kept.
"""

import csv
import importlib
import io
import itertools
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from lib.core import files
from lib.core.errors import UsageError, UserError
from lib.core.text import readable
from lib.runs import records
from lib.tables import record_index, record_queries
from lib.tables.record_index import Index
from lib.tables.record_queries import Query

SUFFIXES = (".csv", ".parquet")
OF_RUN = ("experiment", "record", "started", "revision", "commit", "command")
AT_ONCE = 10_000  # lines that are in memory together


def export(index: Index, query: Query, target: Path) -> str:
    """Writes the rows that fit, and says how many; raises `UserError` where there are none."""
    chosen = list(record_queries.fitting(index, query))
    if not chosen:
        raise UserError(f"no rows of records under {index.results_dir}/ fit; {target} is not written")
    kinds = _kinds(_lines(index, chosen))
    write = {".csv": _csv, ".parquet": _parquet}[target.suffix]
    count = sum(len(numbers) for _, _, numbers in chosen)
    files.write_atomically(target, lambda file: write(file, kinds, _lines(index, chosen)))
    return f"{target}: {count} rows of {len(chosen)} records, {len(kinds)} columns"


def check(target: Path) -> None:
    """Raises `UsageError` for another suffix, and `UserError` where Parquet cannot be written."""
    if target.suffix not in SUFFIXES:
        raise UsageError(f"export {target}: the file ends in {' or '.join(SUFFIXES)}")
    if target.suffix == ".parquet":
        _pyarrow()


def _pyarrow(module: str = "pyarrow"):
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install pyarrow; a .csv needs nothing") from None


def _lines(index: Index, chosen: list[tuple[str, str, list[int]]]) -> Iterator[dict]:
    for experiment, path, numbers in chosen:
        record = index.read(path, experiment)
        run = {
            "run.experiment": experiment,
            "run.record": readable(str(index.results_dir / path)),
            "run.started": record["started"],
            "run.revision": records.revision(record),
            "run.commit": record["environment"].get("commit"),
            "run.command": readable(shlex.join(["python", *record["command"]])),
        }
        settings = {f"config.{name}": _plain(value) for name, value in record["config"].items()}
        for number in numbers:
            yield {name: _plain(value) for name, value in record["rows"][number].items()} | run | settings


def _plain(value):
    """A value as one cell."""
    if isinstance(value, list):
        return readable(json.dumps(value, ensure_ascii=False))
    return readable(value) if isinstance(value, str) else value


def _kinds(lines: Iterator[dict]) -> dict[str, type]:
    """Column -> the kind that all its values have: bool, int, float, or str for anything; those of rows come first."""
    found: dict[str, set[type]] = {}
    for line in lines:
        for name, value in line.items():
            found.setdefault(name, set()).add(type(value))
    order = sorted(found, key=lambda name: (name.startswith("config."), name.startswith("run.")))
    return {name: _kind(found[name] - {type(None)}) for name in order}


def _kind(kinds: set[type]) -> type:
    if len(kinds) == 1:
        return kinds.pop()
    return float if kinds == {int, float} else str


def _csv(file, kinds: dict[str, type], lines: Iterator[dict]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.DictWriter(text, list(kinds), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in line.items()} for line in lines)
    text.detach()


def _parquet(file, kinds: dict[str, type], lines: Iterator[dict]) -> None:
    pyarrow, parquet = _pyarrow(), _pyarrow("pyarrow.parquet")
    types: dict[type, object] = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types.get(kind, pyarrow.string())) for name, kind in kinds.items()])
    with parquet.ParquetWriter(file, schema) as writer:
        for part in _parts(lines):
            made = [
                pyarrow.array([_as(line.get(name), kind) for line in part], schema.field(name).type)
                for name, kind in kinds.items()
            ]
            writer.write_table(pyarrow.Table.from_arrays(made, schema=schema))


def _as(value, kind: type):
    return value if value is None else record_index.word(value) if kind is str else kind(value)


def _parts(lines: Iterator[dict]) -> Iterator[list[dict]]:
    while part := list(itertools.islice(lines, AT_ONCE)):
        yield part
