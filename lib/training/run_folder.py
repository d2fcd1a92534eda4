"""The folder of a training run, models/<dir>/: which run owns it, its files, and where the run continues.

run.json      the configuration that the folder belongs to, and the hashes of the files that its run reads
init.pt       what the run started from
model_<e>.pt  the epochs that were asked for, and the last one
best.pt       the first of the epochs with the highest validation accuracy
resume.pt     network, optimiser, rows and position; replaced behind every epoch, and when the run is stopped
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import ClassVar, Protocol

from lib.core import files
from lib.core.errors import UserError
from lib.runs import cli, records, revisions


class InFolder(records.Reading, Protocol):
    """The flags of a run with a folder of its own under `--models-dir`."""

    revision: ClassVar[int]

    @property
    def models_dir(self) -> str: ...

    @property
    def directory(self) -> str: ...

    @property
    def overwrite(self) -> bool: ...

    @property
    def resume(self) -> bool: ...


def folder(config: InFolder) -> Path:
    """The folder of the run's checkpoints: `-dir a` and `-dir models/a` are the same."""
    given = Path(config.directory)
    root = Path(config.models_dir)
    return given if given.is_relative_to(root) else root / given


def claim(directory: Path, config: InFolder) -> None:
    """Makes the folder this configuration's; raises `UserError` if it holds another one's run, or one that read other files.

    What an earlier version of the method has left of the same run is cleared: the run begins again. Only the process that
    holds the folder's lock may claim it: half-written files in it are those of killed ones.
    """
    wanted = _as_json(cli.identity(config))
    reads = {name: known["sha256"] for name, known in records.fingerprints(config, missing_ok=True).items()}
    marker = directory / "run.json"
    for path in directory.glob(".*.tmp"):
        path.unlink()
    if config.overwrite:
        clear(directory)
    if marker.exists() and any(directory.rglob("[!.]*.pt")):  # else that run failed before its first step
        there = revisions.of_folder(marker)
        made, read = there.pop("revision", 1), there.pop("inputs", {})
        # A flag younger than the folder had its default there.
        defaults = {
            item.name: item.default
            for item in dataclasses.fields(config)
            if item.name in wanted and item.default is not dataclasses.MISSING
        }
        there = _as_json(defaults) | there
        keys = [key for key in sorted(wanted.keys() | there.keys()) if wanted.get(key) != there.get(key)]
        if keys:
            differences = ", ".join(f"{key} {there.get(key)} there, {wanted.get(key)} here" for key in keys)
            raise UserError(
                f"-dir {config.directory}: {directory} holds another run ({differences}); choose another "
                "-dir, or --overwrite it"
            )
        if made > config.revision:
            raise UserError(
                f"-dir {config.directory}: {directory} is of a newer version of the suite; choose another -dir, or "
                "--overwrite it"
            )
        if made < config.revision:
            print(f"{directory} is of an earlier version of the method; beginning again", file=sys.stderr)
            clear(directory)
        elif config.resume:
            names = records.comparable(config, read)
            if read != (now := {name: content for name, content in reads.items() if name in names}):
                _refuse_other_files(config, directory, read, now)
    elif any(directory.glob("[!.]*.pt")):
        raise UserError(
            f"-dir {config.directory}: {directory} holds checkpoints of unknown origin; choose another -dir, "
            "or --overwrite them"
        )
    if not config.resume:
        clear(directory)
    files.write_json(marker, wanted | {"revision": config.revision, "inputs": reads})


def _refuse_other_files(config: InFolder, directory: Path, read: dict[str, str], reads: dict[str, str]) -> None:
    changed = min(name for name in read.keys() | reads.keys() if read.get(name) != reads.get(name))
    if not read:
        raise UserError(
            f"-dir {config.directory}: {directory} was begun by an earlier version, which kept no hash of {changed}; choose "
            "another -dir, or --overwrite begins again"
        )
    raise UserError(
        f"-dir {config.directory}: {directory} was begun with other contents of {changed}; restore it, or --overwrite "
        "begins again"
    )


def clear(directory: Path) -> None:
    """Removes what a run left there."""
    for pattern in ("init", "model_*", "ft_model_*", "best", "resume", "run"):
        for path in (*directory.glob(f"{pattern}.pt"), *directory.glob(f"{pattern}.json")):
            path.unlink()


def _as_json(value):
    """What reading the value back from a JSON file gives: lists for tuples."""
    return json.loads(json.dumps(value))
