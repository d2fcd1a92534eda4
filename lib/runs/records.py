"""One record per run: configuration, inputs, environment, and the rows of results.

A record is `results/<experiment>/<run>.json`, written whole or not at all; arrays (`.npz`) and figures (`drawing`) lie
beside it under its name. The run's name follows from its configuration, so that a command finds its own record again.
Nothing here imports torch.
"""

import contextlib
import dataclasses
import datetime
import glob
import hashlib
import importlib
import importlib.metadata
import json
import math
import platform
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lib.core import distributed, files, locks, terminal, text_table
from lib.core.errors import UsageError, UserError
from lib.core.figures import FORMATS
from lib.core.registry import misspelt
from lib.core.text import as_bytes, readable
from lib.datasets import names
from lib.runs import network_facts
from lib.runs.cli import RunConfig, Settings
from lib.runs.columns import Columns

SCHEMA = 1
DISTRIBUTION = "representations"  # what the suite is called where it is installed
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "faiss-cpu", "faiss-gpu")


class Described(Protocol):
    """What a record is read as: an experiment, whose columns and settings are known."""

    @property
    def columns(self) -> Columns: ...

    def problem(self, settings: Mapping) -> str | None: ...


Row = dict[str, str | int | float | bool | None]


@dataclass
class Result:
    """What an experiment returns.

    rows       flat; accuracies and rates are fractions; None where a value does not exist
    arrays     name -> NumPy array, kept in the `.npz` beside the record
    seconds    stage -> seconds
    columns    the columns that are printed when the run is done; empty for all
    documents  name -> what JSON can hold, kept as `<run>/<name>.json`: the layouts of other codes
    facts      what figures need to know of the run as a whole, besides rows and arrays
    printed    which rows are printed at all; the record has every one
    always     of which rows a long table leaves none out when it is printed
    announced  which rows were printed as a message when they were made
    """

    rows: list[Row]
    arrays: dict = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    documents: dict = field(default_factory=dict)
    facts: Row = field(default_factory=dict)
    printed: Callable[[Row], object] = lambda row: True
    always: Callable[[Row], object] = lambda row: False
    announced: Callable[[Row], object] = lambda row: False

    def text(self, width: int | None = None, announced: bool = False) -> str:
        """The rows as an aligned table, without the middle of a long one and without rows that have no number in it.

        width      that the table keeps to, None for any
        announced  messages go to the same place: rows that were printed when they came are left out, unless `always` holds
        """
        chosen = [row for row in self.rows if self.printed(row)]
        shown = [
            row
            for row in chosen
            if any(not isinstance(row.get(column), str | bool | None) for column in self.columns or row)
        ] or chosen
        other, further = len(chosen) - len(shown), len(self.rows) - len(chosen)
        if announced:
            shown = [row for row in shown if self.always(row) or not self.announced(row)]
        found = text_table.text(shown, self.columns, text_table.LONGEST, self.always, width=width)
        found += f"\n{other} rows of other columns are in the record" if other else ""
        return found + (f"\n{further} more rows are in the record" if further else "")


@dataclass(frozen=True)
class Place:
    """Where a run's record lies."""

    experiment: str
    run: str
    path: Path

    @property
    def lock(self) -> Path:
        """What the process that makes the record holds."""
        return self.path.with_name(f".{self.run}.lock")

    def beside(self, suffix: str) -> Path:
        """A file beside the record: `<run><suffix>`."""
        return self.path.with_name(self.run + suffix)

    def figure(self, suffix: str, kind: str = "png") -> Path:
        """The figure with this suffix, beside the record."""
        return self.beside(f"-{readable(suffix)}.{kind}" if suffix else f".{kind}")


def place(config: RunConfig, experiment: str) -> Place:
    """The place of the record of an experiment with this configuration."""
    run = file_name(config.name) if config.name else run_name(config)
    return Place(experiment, run, Path(config.results_dir) / experiment / f"{run}.json")


def run_name(config: RunConfig) -> str:
    """Labelled values, then eight digits that differ for every other configuration.

    Values at their default do not enter the digits, so that a new flag leaves the names of old records as they are.
    """
    labelled = sorted(
        (item for item in _identity_fields(config) if item.metadata["label"]),
        key=lambda item: item.metadata["label"] != "{}",
    )  # words first, then the seed
    labels = [_slug(item.metadata["label"].format(_label(getattr(config, item.name)))) for item in labelled]
    changed = {
        item.name: getattr(config, item.name)
        for item in _identity_fields(config)
        if getattr(config, item.name) != item.default
    }
    digits = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([label for label in labels if label] + [digits])[-150:].lstrip("-.")


def finished(where: Place, config: RunConfig) -> bool:
    """Whether the record is there and still holds: same configuration, unchanged inputs, outputs not lost.

    Raises `UserError` for a record that cannot be trusted or belongs to another configuration: it is not replaced
    unasked.
    """
    if not where.path.exists():
        return False
    try:
        record = read(where.path)
    except UserError as error:
        raise UserError(f"{error}; --overwrite replaces it, --name keeps both") from None
    differing = [
        item.name
        for item in _identity_fields(config)
        if _plain(getattr(config, item.name)) != record["config"].get(item.name, _plain(item.default))
    ]
    if differing:
        raise UserError(
            f"{where.path} is the record of another configuration (it differs in {', '.join(differing)}); "
            "another --name keeps both, --overwrite replaces it"
        )
    if (made := revision(record)) != config.revision:
        if made > config.revision:
            raise UserError(f"{where.path} is of a newer version of the suite; --name keeps both, --overwrite replaces it")
        print(f"{where.path} is of an earlier version of the method; running again", file=sys.stderr)
        return False
    lost = [path for path in config.outputs() if not path.exists()]
    names, now = comparable(config, record["inputs"]), fingerprints(config, missing_ok=True)
    changed = [name for name, known in now.items() if name in names and known != record["inputs"].get(name)]
    left = record.get("outputs", {})
    changed += [name for name, known in _outputs(config).items() if name in left and known != left[name]]
    if lost or changed:
        reason = f"{lost[0]} is gone" if lost else f"{changed[0]} has changed since"
        print(f"{where.path} no longer holds: {reason}; running again", file=sys.stderr)
    return not lost and not changed


def revision(record: Mapping) -> int:
    """The version of the method that a record was made by; records of before there were such numbers are of the first."""
    return record.get("revision", 1)


class Reading(Settings, Protocol):
    """The flags of a run that reads files."""

    @property
    def cache_dir(self) -> str: ...

    def inputs(self) -> dict[str, list[Path]]: ...

    def implied(self) -> dict[str, list[Path]]: ...


def fingerprints(config: Reading, missing_ok: bool = False) -> dict[str, dict]:
    """The hash and size of everything the run reads, by name."""
    found, known = {}, {}  # corrupted versions of a set are of the same files
    for name, paths in {**config.implied(), **config.inputs()}.items():
        if missing_ok and not all(path.exists() for path in paths):
            continue
        if tuple(paths) not in known:
            known[tuple(paths)] = files.fingerprint(paths, Path(config.cache_dir))
        found[name] = known[tuple(paths)]
    return found


def comparable(config: Reading, kept: Iterable[str]) -> set[str]:
    """The files by which an earlier run can be compared, that kept the hashes of some.

    Of files which the command does not name it says nothing where its version hashed none.
    """
    return {*config.inputs(), *kept}


def _outputs(config: RunConfig) -> dict[str, dict]:
    """The hash and size of what the run leaves beside its record."""
    return {str(path): files.fingerprint([path], Path(config.cache_dir)) for path in config.outputs() if path.exists()}


def under_way(config: RunConfig) -> str:
    """What an interrupted run and the one that continues it agree in, as a text: settings, inputs, version of the method."""
    settings = {item.name: getattr(config, item.name) for item in _identity_fields(config)}
    about = {"config": settings, "inputs": fingerprints(config)}
    later = {"revision": config.revision} if config.revision > 1 else {}
    return json.dumps(about | later, sort_keys=True)


def write(
    where: Place, config: RunConfig, result: Result, *, command: list[str], started: float, inputs: dict[str, dict]
) -> dict:
    """Writes arrays, then the record, whose presence says that all is there. Returns the record.

    inputs   the fingerprints of what the run reads, from before it began

    Raises `UserError`, and writes nothing, where a file is another one now: which of both was read is not known.
    """
    import numpy as np

    now = fingerprints(config)
    if changed := [name for name in inputs.keys() | now.keys() if inputs.get(name) != now.get(name)]:
        raise UserError(
            f"{min(changed)} was changed while the run read it; no record was written, the same command runs again"
        )
    record = {
        "schema": SCHEMA,
        "experiment": where.experiment,
        "revision": config.revision,
        "config": plain_settings(config),
        "command": command,
        "inputs": inputs,
        "environment": environment(),
        "started": datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat(timespec="seconds"),
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
        "rows": plain_rows(result),
    }
    record["facts"] = {name: _plain(value) for name, value in result.facts.items()}
    record["networks"] = network_facts.read(type(config), record["config"], record["rows"])
    record["tolerance"] = tolerance(record)
    record["outputs"] = _outputs(config)
    if result.arrays:
        arrays = {readable(name): array for name, array in result.arrays.items()}
        record["arrays"] = where.beside(".npz").name
        files.write_atomically(where.beside(".npz"), lambda file: np.savez(file, **arrays))
    for name, document in result.documents.items():
        files.write_json(where.path.with_suffix("") / f"{_hyphenated(name)}.json", document)
    problem = _problem(record, config.columns)
    if problem:
        raise ValueError(f"the {where.experiment} experiment made an invalid record: {problem}")
    files.write_json(where.path, record)
    return record


def plain_settings(config: RunConfig) -> dict[str, Any]:
    """The values of all fields, as a record has them."""
    return {item.name: _plain(getattr(config, item.name)) for item in dataclasses.fields(config)}


def plain_rows(result: Result) -> list[Row]:
    """The rows as a record has them: numbers of any library as Python's, undefined numbers as None."""
    return [{key: _plain(value) for key, value in row.items()} for row in result.rows]


def read(path: Path, experiment: Described | None = None) -> dict:
    """The record at `path`.

    Raises `UserError` for what is missing, truncated, of another schema or not a record, and for values that are of another
    kind than the experiment's settings and columns.
    """
    try:
        record = files.read_json(path, parse_constant=_refuse)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}{misspelt(path)}") from None
    except ValueError:
        raise UserError(f"{path}: not a whole record") from None
    problem = _problem(record, experiment.columns if experiment else None)
    problem = problem or (experiment.problem(record["config"]) if experiment else None)
    if problem:
        raise UserError(f"{path}: not a valid record: {problem}")
    return record


def records(
    results_dir: str | Path, experiments: Mapping[str, Described], broken: list[str] | None = None
) -> Iterator[tuple[Path, dict]]:
    """Every record of these experiments under a results folder, in the order of experiments and names.

    One that cannot be read raises `UserError`, or is left out and what is wrong with it appended to `broken`.
    """
    for name, experiment in experiments.items():
        for path in sorted((Path(results_dir) / name).glob("[!.]*.json")):
            try:
                yield path, read(path, experiment)
            except UserError as error:
                if broken is None:
                    raise
                broken.append(str(error))


def frame(*places: str | Path) -> Any:
    """The rows of records as a pandas DataFrame, a line per row: `frame("results/probe")`.

    places    records, and folders of them

    The columns are those of the rows in their order, then `record`, its path, and for every setting of its configuration
    `config.<setting>`, a list for one of several values. Columns that only some of the records have are missing in others.
    Raises `UserError` for what is no record, and where pandas, an optional package, is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        raise UserError("records.frame needs pandas: pip install pandas") from None
    paths = [
        path for place in map(Path, places) for path in (sorted(place.glob("[!.]*.json")) if place.is_dir() else [place])
    ]
    lines, settings = [], {}
    for path in paths:
        record = read(path)
        about = {f"config.{name}": value for name, value in record["config"].items()}
        settings |= dict.fromkeys(about)
        lines += [{**row, "record": str(path), **about} for row in record["rows"]]
    columns = dict.fromkeys(name for line in lines for name in line if name not in settings and name != "record")
    return pandas.DataFrame(lines, columns=[*columns, "record", *settings])


def figures(where: Place, kind: str = "*") -> list[Path]:
    """The figures of this format that lie beside the record: `<run>.png`, `<run>-<suffix>.png`.

    What lies beside a longer name, `<run>-b.json`, is that record's.
    """
    folder, run = where.path.parent, glob.escape(where.run)
    others = [path.stem for path in folder.glob(f"{run}?*.json")]
    return sorted(
        path
        for path in [*folder.glob(f"{run}.{kind}"), *folder.glob(f"{run}-*.{kind}")]
        if path.suffix.removeprefix(".") in FORMATS
        and not any(path.stem == other or path.stem.startswith(other + "-") for other in others)
    )


@contextlib.contextmanager
def locked(where: Place) -> Generator[None]:
    """Keeps a second process from making the same record at the same time."""
    with locks.locked(where.lock, f"another process is making {where.path}; wait for it, or give this run a --name"):
        yield


def tolerance(record: dict) -> float:
    """By how much the numbers of a repeated run may differ: what the record states, at most what its device allows.

    Sums in another order move results on a CPU by rounding, on a GPU also through training.
    """
    environment = record["environment"]
    allowed = 1e-6 if environment.get("device", "cpu") == "cpu" else 1e-4 if environment.get("deterministic") else 1e-2
    return min(record.get("tolerance", allowed), allowed)


def plan(where: Place, config: RunConfig) -> str:
    """What the command would do, as lines of text."""
    there = "is there already" if where.path.exists() else "would be written"
    values = {item.name: (getattr(config, item.name), item.default) for item in _identity_fields(config)}
    other = {name: pair for name, pair in values.items() if pair[0] != pair[1]}
    lines = [f"experiment: {where.experiment}"]
    lines += [f"record:     {where.path} ({there})"] if config.repeatable() else []
    said = [f"{name} = {_said(value)}{_instead(default)}" for name, (value, default) in other.items()]
    lines += [f"{'' if number else 'settings:':12}{words}" for number, words in enumerate(said)]
    lines += [f"reads:      {name}" for name in config.inputs()]
    lines += [f"writes:     {path}" for path in config.outputs()]
    lines += config.work()
    defaults = [f"{name}={_said(value)}" for name, (value, _) in values.items() if name not in other]
    lines.append(f"as default: {', '.join(defaults)}")
    return "\n".join(terminal.wrapped(line, terminal.width(), " " * 12) for line in lines)


def _said(value) -> str:
    """A setting as --plan shows it."""
    if isinstance(value, tuple) and value:
        return " ".join(map(str, value))
    return "none" if value in ("", None, ()) else str(value)


def _instead(default) -> str:
    """The default that a setting replaces, where there is one."""
    return "" if default is dataclasses.MISSING or default in ("", None, ()) else f" (default: {_said(default)})"


def environment() -> dict:
    """The software and hardware of this process."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    system = " ".join((platform.system(), platform.machine(), *platform.libc_ver()))  # no kernel, which names a machine
    found = {"python": platform.python_version(), "system": system, **versions, **_code()}
    torch = sys.modules.get("torch")
    if torch is not None:
        found["device"] = torch.cuda.get_device_name() if torch.cuda.is_initialized() else "cpu"
        found["threads"] = torch.get_num_threads()
        found["processes"] = distributed.world()
        found["deterministic"] = torch.are_deterministic_algorithms_enabled()
    return found


def _code() -> dict[str, str | None]:
    """Which code this is: the commit of the suite's checkout, "+" where files were changed since; else its version."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if Path(git("rev-parse", "--show-toplevel")).resolve() == root:  # none that merely holds an installation
            changed = git("status", "--porcelain", "--untracked-files=no")
            return {"commit": git("rev-parse", "HEAD") + ("+" if changed else "")}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return {"commit": None, "version": importlib.metadata.version(DISTRIBUTION)}
    return {"commit": None}


def _identity_fields(config: RunConfig) -> list:
    return [item for item in dataclasses.fields(config) if item.metadata.get("identity", True)]


SPELT_OUT = 3  # values of a list that a record's name may hold; of a longer one it holds the first and the number


def _label(value) -> str:
    if isinstance(value, tuple):
        rest = f"+{len(value) - 1}more" if len(value) > SPELT_OUT else ""
        return "+".join(_label(item) for item in (value[:1] if rest else value)) + rest
    text = str(value if value is not None else "")
    if text.partition("=")[0] in names.LOCATED:
        return names.parse(text).label
    if Path(text).suffix == ".json":
        return Path(text).stem
    if Path(text).suffix in (".pt", ".pth", ".tar", ".safetensors"):
        return "-".join(Path(text).with_suffix("").parts[-2:])
    return text


def file_name(text: str) -> str:
    """The name of a record as its file can have it.

    Raises `UsageError` where nothing is left, where the file would be hidden, and where the name is too long.
    """
    name = _hyphenated(text)
    if not any(unicodedata.category(sign)[0] in "LN" for sign in name):
        raise UsageError(f"--name {readable(text)}: has no letter or digit")
    if name.startswith("."):
        raise UsageError(f"--name {readable(text)}: a file of this name would be hidden; begin with another sign")
    if len(as_bytes(name)) > LONGEST:
        raise UsageError(f"--name {readable(text)[:20]}...: longer than the {LONGEST} bytes that file names have room for")
    return name


LONGEST = 200  # bytes of a name, to which suffixes are added


def _hyphenated(text: str) -> str:
    """Letters and digits of any script stay; what else stands between them becomes a hyphen."""
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(sign if unicodedata.category(sign)[0] in "LMN" or sign in "._+-" else " " for sign in composed)
    return "-".join(kept.split()).strip("-")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-")


def _plain(value):
    """The value as JSON has it: numbers of any library as Python's, undefined numbers as null."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _problem(record, columns: Columns | None = None) -> str | None:
    """What is wrong with the form of a record, or with the kinds of its values; None if nothing is."""
    if not isinstance(record, dict) or "schema" not in record:
        return "it has no schema"
    if record["schema"] != SCHEMA:
        return f"its schema is {record['schema']}, this suite's is {SCHEMA}"
    if not isinstance(record.get("revision", 1), int):
        return "revision is of the wrong kind"
    if not _is_number(stated := record.get("tolerance", 0.0)) or stated < 0:
        return "tolerance is of the wrong kind"
    forms = {
        "experiment": str,
        "config": dict,
        "command": list,
        "inputs": dict,
        "environment": dict,
        "started": str,
        "seconds": dict,
        "rows": list,
    }
    for key, kind in forms.items():
        if not isinstance(record.get(key), kind):
            return f"{key} is missing or of the wrong kind"
    if not all(isinstance(word, str) for word in record["command"]):
        return "command is not all words"
    if not all(map(_is_number, record["seconds"].values())):
        return "seconds are not all numbers"
    for name, setting in record["config"].items():
        if not all(map(_is_value, setting if isinstance(setting, list) else [setting])):
            return f"setting {name} is not one value or a list of them"
    for key in ("outputs", "facts", "networks"):
        if not isinstance(record.get(key, {}), dict):
            return f"{key} is of the wrong kind"
    if not all(isinstance(known, dict) for known in record.get("networks", {}).values()):
        return "networks are not all described"
    for name, known in {**record["inputs"], **record.get("outputs", {})}.items():
        if not isinstance(known, dict) or [type(known.get(key)) for key in ("sha256", "bytes")] != [str, int]:
            return f"file {name} has no hash and size"
    for number, row in enumerate(record["rows"]):
        if not isinstance(row, dict):
            return f"row {number} is no dictionary"
        for key, value in row.items():
            if not _is_value(value):
                return f"{key} of row {number} is not one value, or no finite number"
        if columns is not None and (wrong := columns.problem(row)):
            return f"{wrong[0]} of row {number} is {wrong[1]}"
    return None


LARGEST = 2**63  # whole numbers of more bits are none of ours


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_value(value) -> bool:
    return isinstance(value, str | bool | None) or (isinstance(value, float) and math.isfinite(value)) or _is_number(value)


def _refuse(constant: str):
    raise ValueError(f"{constant} is no number that a record may have")
