"""Trained stitches that other records hold: a grid takes them instead of training them again.

A stitch is trained alike wherever it stands in a grid, so that only what it is and how it is trained must agree: the
contents of both checkpoints and of the data, the settings, the kind of device.
"""

import json
from pathlib import Path

import numpy as np
import torch

from lib.core import files
from lib.core.errors import UserError
from lib.runs import cli, records
from lib.stitching.grid import Entry

# what grids may differ in: the networks are compared by content, a cell by its row
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
    "save",
}

Cell = tuple[str | int | None, ...]


def cell(row: dict) -> Cell:
    """What a row is about."""
    return tuple(row.get(name) for name in ("null", "front_layer", "end_layer", "type", "stitch_rank", "pinv_rank"))


def find(config) -> dict[Cell, tuple[Path, Path, int]]:
    """Cell -> a record, the file of its arrays and the number of the stitch there, of all records trained like `config`."""
    own = _method(cli.identity(config)), _contents(records.fingerprints(config), vars(config)), _device()
    found = {}
    for path in sorted((Path(config.results_dir) / "stitch").glob("*.json")):
        try:
            record = records.read(path)
        except UserError:
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
                    found.setdefault(cell(row), (path, path.with_name(record["arrays"]), row["stitch"]))
    return found


def load(entry: Entry, arrays: Path, number: int) -> bool:
    """Gives an entry's stitch the weights in a file; False, and nothing is changed, if they are not there whole."""
    try:
        with np.load(arrays) as stored:
            state = {name: torch.from_numpy(stored[f"{number}.{name}"]) for name in entry.stitch.state_dict()}
    except files.NO_ARRAYS:
        return False
    entry.stitch.load_state_dict(state)
    return True


def _method(config: dict, names: dict | None = None) -> str:
    """The settings that must agree, of those in `names`."""
    return json.dumps({name: config.get(name) for name in names or config if name not in FREE}, sort_keys=True)


def _contents(inputs: dict, config: dict) -> tuple:
    """The hashes of both checkpoints, and of what else was read."""
    paths = config["front_path"], config["end_path"]
    known = {name: found["sha256"] for name, found in inputs.items()}
    return tuple(known.get(path) for path in paths), {name: value for name, value in known.items() if name not in paths}


def _device() -> str | None:
    return records.environment().get("device")
