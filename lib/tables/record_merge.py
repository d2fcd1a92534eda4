"""The records of several results folders in one: `exec_tables.py merge`.

A union by content: what a record says of its run (settings, inputs, rows, but not clocks and machines) is its content. The
same content is one record, that of the run which began first; other content under the same name is a conflict: both are
kept, the latest under the name and the others as `<name>~<eight digits of the content>`. So it does not matter in which
order folders are merged, or how often. What lies beside a record (arrays, figures, documents) comes along under its name,
other files come along as they are. Of files beside one record that differ one is taken, which is named: arrays that can be
read before those that cannot, then the largest, since a file that was cut off is smaller, then that with the least SHA-256.

Everything is first written into a hidden folder of the target; a full disk changes nothing there. Then files are renamed
into their place, those beside a record before the record. A merge that is stopped goes on with the same command.
"""

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib.core import files, locks
from lib.core.errors import UsageError, UserError
from lib.core.registry import misspelt
from lib.core.text import readable
from lib.runs import records
from lib.runs.command_lines import Experiments
from lib.tables import rerun

DIGITS = 8  # of the content in the name of what has another one than the record of the name
STAGED = ".merge"  # the folder of the target with what is not yet in place


@dataclass
class Piece:
    """A record, or a file that belongs to none.

    folder     below the results folder: "probe"
    name       without the digits of a conflict and without suffix
    content    a hash: pieces of the same content are the same
    revision, started    of the record; of contents the greatest has the name
    whole      a hash of everything it says: of copies of one content that which began first counts, then the least hash
    beside     what follows the name in that of a file beside the record -> the file: "-map.png", "/layer.json"
    """

    folder: str
    name: str
    suffix: str
    path: Path
    content: str
    revision: int = 0
    started: str = ""
    whole: str = ""
    beside: dict[str, Path] = field(default_factory=dict)

    @property
    def is_record(self) -> bool:
        return bool(self.started)


@dataclass
class Folder:
    """What lies in a results folder; `broken` are sentences about the records that cannot be read, by folder and name.

    versions    file -> what it was recognised by before it was read
    """

    path: Path
    pieces: list[Piece] = field(default_factory=list)
    versions: dict[Path, str | None] = field(default_factory=dict)
    broken: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """What is put in its place together: file below the target -> the file whose content it shall have, a record last.

    aside        whether its name has digits
    differing    of files beside the record: the one that is taken -> those that are not the same
    """

    aside: bool
    record: Path | None
    files: dict[Path, Path]
    differing: dict[Path, list[Path]]


def merge(sources: list[Path], target: Path, experiments: Experiments) -> tuple[str, list[str]]:
    """Adds the records of other results folders to those of `target`; what was done, and sentences about what was left out.

    Raises `UserError` where a folder is none of records, where another merge into it goes on, and on a full disk.
    """
    for source in sources:
        _check(source, target)
    with locks.locked(target / ".merge.lock", f"another process merges into {target}; wait for it"):
        shutil.rmtree(target / STAGED, ignore_errors=True)  # of a merge that was killed
        there, others = scan(target, experiments), [scan(source, experiments) for source in sources]
        for other in others:
            if not other.broken and not any(piece.is_record for piece in other.pieces):
                raise UserError(f"{other.path}: holds no records{_inside(other.path)}")
        groups = _groups([there, *others])
        units = _wanted(groups, there)
        told = "\n".join([_told(groups, [there, *others], experiments), *_told_beside(units)])
        try:
            _place(units, there)
        finally:
            shutil.rmtree(target / STAGED, ignore_errors=True)
    return readable(told), [sentence for one in (there, *others) for sentence in one.broken.values()]


def _check(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise UserError(f"{source}: there is no such folder{misspelt(source)}")
    one, other = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise UsageError(f"merge {source}: it is the folder that is merged into, {target}, or one lies in the other")


def _inside(folder: Path) -> str:
    below = folder / "results"
    return (
        f"; did you mean {below}?" if below.is_dir() else "; a results folder has folders such as eval, with records in them"
    )


def scan(folder: Path, experiments: Experiments) -> Folder:
    """Everything in a results folder that is not hidden, without broken records and what lies beside them."""
    found = Folder(folder)
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if files.is_litter(entry.name):
            continue
        if entry.is_dir():
            _scan_experiment(found, entry, experiments)
        elif entry.is_file():
            found.versions[entry] = _version(entry)
            found.pieces.append(_other(folder, entry))
    return found


def _scan_experiment(found: Folder, folder: Path, experiments: Experiments) -> None:
    runs: dict[str, Piece | None] = {}  # the name of a record -> what it is; None where it is broken
    entries = [entry for entry in sorted(folder.iterdir()) if not files.is_litter(entry.name)]
    for entry in entries:
        if entry.suffix == ".json":
            version = _version(entry)
            try:
                runs[entry.stem] = _record(folder, entry, experiments)
                found.versions[entry] = version
            except UserError as error:
                if folder.name in experiments:  # elsewhere it is a file as any other
                    runs[entry.stem] = None
                    found.broken[folder.name, entry.stem] = str(error)
    found.pieces += filter(None, runs.values())
    for entry in entries:
        if entry.suffix == ".json" and entry.stem in runs:
            continue
        owner = _owner(entry.name, runs)
        for below in [f"/{name}" for name in files.below(entry)] if entry.is_dir() else [""]:
            path = Path(f"{entry}{below}")
            if not path.is_file() or owner and runs[owner] is None:
                continue
            found.versions[path] = _version(path)
            if not owner:
                found.pieces.append(_other(found.path, path))
            elif (piece := runs[owner]) is not None:
                piece.beside[entry.name.removeprefix(owner) + below] = path


def _owner(name: str, runs: Mapping[str, object]) -> str:
    """The record that a file lies beside: the longest name that its own is, or goes on from with "." or "-"; "" for none."""
    while name and name not in runs:
        name = name[: max(name.rfind("."), name.rfind("-"), 0)]
    return name


def _record(folder: Path, path: Path, experiments: Experiments) -> Piece:
    """A record. Raises `UserError` where it is none."""
    record = records.read(path, experiments.get(folder.name))
    whole = _hash({key: value for key, value in record.items() if key != "arrays"})  # their name follows from the record's
    content = _hash(_content(record, experiments))
    return Piece(
        folder.name, _base(path.stem, content), ".json", path, content, records.revision(record), record["started"], whole
    )


def _content(record: dict, experiments: Experiments) -> dict:
    """What a record says of its run, in whatever folders, on whatever machine and at whatever time it was made."""
    known = experiments[record["experiment"]].fields if record["experiment"] in experiments else {}
    where = [name for name, item in known.items() if not item.metadata["identity"]]
    return {
        "experiment": record["experiment"],
        "revision": records.revision(record),
        "config": {name: value for name, value in record["config"].items() if name not in where},
        "inputs": record["inputs"],
        "outputs": record.get("outputs", {}),
        "rows": [{name: value for name, value in row.items() if name not in rerun.OWN} for row in record["rows"]],
    }


def _other(root: Path, path: Path) -> Piece:
    """A file that belongs to no record."""
    content = files.sha256(path)
    folder = str(path.parent.relative_to(root))
    return Piece(folder, _base(path.stem, content), path.suffix, path, content, whole=content)


def _base(name: str, content: str) -> str:
    """The name without the digits of this content."""
    base, _, digits = name.rpartition("~")
    return base if base and digits == content[:DIGITS] else name


def _hash(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


Group = list[list[Piece]]  # what has one name: the copies of each content, the contents and the copies in their order


def _groups(folders: list[Folder]) -> dict[tuple[str, str, str], Group]:
    """The pieces by folder, name and suffix; the first content has the name, the first copy is taken."""
    found: dict[tuple[str, str, str], dict[str, list[Piece]]] = {}
    for piece in (piece for folder in folders for piece in folder.pieces):
        found.setdefault((piece.folder, piece.name, piece.suffix), {}).setdefault(piece.content, []).append(piece)
    groups = {}
    for key, contents in found.items():
        copies = [sorted(group, key=lambda piece: (piece.started, piece.whole)) for group in contents.values()]
        groups[key] = sorted(copies, key=lambda group: (group[0].revision, group[0].started, group[0].content), reverse=True)
    return groups


def _wanted(groups: Mapping[tuple[str, str, str], Group], there: Folder) -> list[Unit]:
    """What the target shall hold. A name that a broken record of the target has is given to no other."""
    units, taken = [], set()
    for (folder, name, suffix), group in sorted(groups.items(), key=lambda item: not item[1][0][0].is_record):
        for number, copies in enumerate(group):
            first, place = copies[0], there.path / folder
            stem, aside = name, f"{name}~{first.content[:DIGITS]}"
            if number or (folder, name) in there.broken and suffix == ".json" or place / f"{name}{suffix}" in taken:
                stem = aside
            beside: dict[str, list[Path]] = {}
            for behind, path in ((behind, path) for piece in copies for behind, path in piece.beside.items()):
                beside.setdefault(behind, []).append(path)
            preferred = {behind: _preferred(paths) for behind, paths in beside.items()}
            wanted = {Path(f"{place / stem}{behind}"): chosen for behind, (chosen, _) in preferred.items()}
            differing = {chosen: others for chosen, others in preferred.values() if others}
            path = place / f"{stem}{suffix}"
            taken |= {path, *wanted}
            units.append(Unit(stem == aside, path if first.is_record else None, wanted | {path: first.path}, differing))
    return units


def _preferred(paths: list[Path]) -> tuple[Path, list[Path]]:
    """Of files that may differ the one that counts, of equal ones the first; and those that are not the same."""
    hashes = {path: files.sha256(path) for path in paths} if len(paths) > 1 else {}
    if len(set(hashes.values())) < 2:
        return paths[0], []
    chosen = min(paths, key=lambda path: (not _is_whole(path), -path.stat().st_size, hashes[path]))
    return chosen, [path for path in paths if hashes[path] != hashes[chosen]]


def _is_whole(path: Path) -> bool:
    """Whether arrays can be read; of other files nobody can tell."""
    if path.suffix != ".npz":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except files.NO_ARRAYS:
        return False


def _place(units: list[Unit], there: Folder) -> None:
    """Brings the target to what it shall hold: what has a name now is in its new place before another takes the name."""
    staged = there.path / STAGED
    changed = [unit for unit in units if any(path != source for path, source in unit.files.items())]
    copies: dict[Path, Path] = {}
    try:
        staged.mkdir(parents=True, exist_ok=True)
        for path, source in (item for unit in changed for item in unit.files.items()):
            if path != source:
                copies[path] = staged / str(len(copies))
                _copy(source, copies[path], path.name)
        os.sync()
        for unit in sorted(changed, key=lambda unit: not unit.aside):
            _place_unit(unit, copies, there)
        for path in there.versions.keys() - {path for unit in units for path in unit.files}:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {there.path}: {error.strerror or error}") from None


def _place_unit(unit: Unit, copies: Mapping[Path, Path], there: Folder) -> None:
    """Files beside a record come before it; a record that is replaced is away meanwhile."""
    record = unit.record
    with records.locked(records.Place(record.parent.name, record.stem, record)) if record else contextlib.nullcontext():
        for path in unit.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            if _version(path) != there.versions.get(path):
                raise UserError(f"{path} was changed while it was merged; the same command goes on")
        if record and record in copies:
            record.unlink(missing_ok=True)
        for path in unit.files:
            if path in copies:
                os.replace(copies[path], path)


def _version(path: Path) -> str | None:
    """What a file is recognised by; None where there is none."""
    try:
        return files.identity(path.stat())
    except OSError:
        return None


def _copy(source: Path, copy: Path, name: str) -> None:
    """Copies a file with its times; a record that has another name now names its arrays anew."""
    if source.suffix == ".json" and source.name != name:
        record = files.read_json(source)
        if isinstance(record, dict) and record.get("arrays") == f"{source.stem}.npz":
            files.write_json(copy, record | {"arrays": f"{Path(name).stem}.npz"})
            shutil.copystat(source, copy)
            return
    shutil.copy2(source, copy)


def _told(groups: Mapping[tuple[str, str, str], Group], folders: list[Folder], experiments: Experiments) -> str:
    """How many records there are, and every conflict by name."""
    there = folders[0]
    contents = [copies for group in groups.values() for copies in group if copies[0].is_record]
    before = sum(any(piece.path.is_relative_to(there.path) for piece in copies) for copies in contents)
    conflicts = [group for group in groups.values() if len(group) > 1]
    lines = [f"{there.path}: {len(contents) - before} records are new, {before} were there, {len(conflicts)} conflicts"]
    for group in conflicts:
        first = group[0][0]
        lines.append(f"conflict: {there.path / first.folder / first.name}{first.suffix} is that of {first.path}")
        for copies in group[1:]:
            piece = copies[0]
            name = f"{piece.name}~{piece.content[:DIGITS]}{piece.suffix}"
            lines.append(f"  {name} is that of {piece.path}{_difference(first, piece, experiments)}")
    return "\n".join(lines)


def _told_beside(units: list[Unit]) -> list[str]:
    """A line for each file beside a record of which there are different ones."""
    return [
        f"{chosen} is taken, which is not the same as {', '.join(map(str, others))}"
        for unit in units
        for chosen, others in unit.differing.items()
    ]


def _difference(one: Piece, other: Piece, experiments: Experiments) -> str:
    """What two records of one name do not agree in, as the end of a sentence."""
    if not one.is_record:
        return ""
    known = experiments.get(one.folder)
    first, second = (records.read(piece.path, known) for piece in (one, other))
    parts = [_content(record, experiments) for record in (first, second)]
    told = []
    for part in ("config", "inputs", "outputs"):
        mine, others = parts[0][part], parts[1][part]
        differing = [name for name in dict.fromkeys([*mine, *others]) if mine.get(name) != others.get(name)]
        told += [f"{part} {', '.join(differing)}"] if differing else []
    if parts[0]["revision"] != parts[1]["revision"]:
        told.append("revision")
    tolerance = min(map(records.tolerance, (first, second)))
    rows = rerun.differences(first["rows"], second["rows"], tolerance)
    if rows:
        told.append(rows[0] + (f" and {len(rows) - 1} more" if len(rows) > 1 else ""))
    elif not told:
        return f": they agree within {tolerance:g}"
    return f": they differ in {'; '.join(told)}"
