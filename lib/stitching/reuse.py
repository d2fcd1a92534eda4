"""Trained stitches that other records hold: a grid takes them instead of training them again.

A stitch is trained alike wherever it stands in a grid, so that only what it is and how it is trained must agree: the
contents of both checkpoints and of the data, the settings, the kind of device.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lib.core import files
from lib.core.errors import UserError
from lib.models import checkpoint_paths
from lib.runs import cli, records
from lib.runs.cli import RunConfig
from lib.stitching.grid import GridStitch

# what grids may differ in: the networks are compared by content, a stitch by its row
FREE = {
    "front_path",
    "end_path",
    "front_type",
    "end_type",
    "front_layer",
    "end_layer",
    "stitching_type",
    "directory",
    "front_stitch_rank",
    "front_pinv_rank",
    "null",
    "permutations",
    "save",
}


class StitchKey(NamedTuple):
    """Which stitch of a grid a row is about, in the words of the row."""

    null: str | None
    front_layer: str
    end_layer: str
    type: str
    stitch_rank: int | None
    pinv_rank: int | None


class TrainedStitch(NamedTuple):
    """A stitch in a record: the record, the file of its arrays, and the stitch's number there."""

    record: Path
    arrays: Path
    number: int


def key_of(row: dict) -> StitchKey:
    """The key of a row's stitch."""
    return StitchKey(
        row.get("null"),
        row["front_layer"],
        row["end_layer"],
        row["type"],
        row.get("stitch_rank"),
        row.get("pinv_rank"),
    )


def find(config: RunConfig) -> dict[StitchKey, TrainedStitch]:
    """The stitches of all other records that were trained like those of `config`, each the first of its key.

    The run's own record is none of them: where it lies there already, its process died behind it and it is made again.
    """
    mine = records.place(config, "stitch").path
    own = _method(cli.identity(config)), _contents(records.fingerprints(config), vars(config)), _device()
    trained: dict[StitchKey, TrainedStitch] = {}
    for path in sorted((Path(config.results_dir) / "stitch").glob("[!.]*.json")):
        if path == mine:
            continue
        try:
            record = records.read(path)
        except UserError:
            continue
        if records.revision(record) != config.revision:
            continue
        defaults = {name: value for name, value in cli.identity(type(config)()).items() if name not in record["config"]}
        theirs = (
            _method(defaults | record["config"], cli.identity(config)),
            _contents(record["inputs"], record["config"]),
            record["environment"].get("device"),
        )
        if theirs == own and "arrays" in record:
            for row in record["rows"]:
                if row["stitch"] is not None:
                    stitch = TrainedStitch(path, path.with_name(record["arrays"]), row["stitch"])
                    trained.setdefault(key_of(row), stitch)
    return trained


def load(entry: GridStitch, trained: TrainedStitch) -> bool:
    """Gives an entry's stitch the weights of another; False, and nothing is changed, if they are not there whole."""
    try:
        with np.load(trained.arrays) as arrays:
            state = {name: torch.from_numpy(arrays[f"{trained.number}.{name}"]) for name in entry.stitch.state_dict()}
    except files.NO_ARRAYS:
        return False
    entry.stitch.load_state_dict(state)
    return True


def _method(config: dict, names: dict | None = None) -> str:
    """The settings that must agree, of those in `names`."""
    return json.dumps({name: config.get(name) for name in names or config if name not in FREE}, sort_keys=True)


def _contents(inputs: dict, config: dict) -> tuple:
    """The hashes of both checkpoints and of their sidecars, and of what else was read."""
    both = config["front_path"], config["end_path"]
    paths = *both, *(str(checkpoint_paths.sidecar(path)) for path in both)
    hashes = {name: fingerprint["sha256"] for name, fingerprint in inputs.items()}
    return tuple(hashes.get(path) for path in paths), {name: value for name, value in hashes.items() if name not in paths}


def _device() -> str | None:
    return records.environment().get("device")
