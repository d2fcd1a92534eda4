"""The stitches that records of `exec_stitch.py` hold, gathered into grids of front layers against end layers.

A grid holds the stitches of two networks that were made in the same way, whether in one run or in many. Reading needs no
torch; `restore` makes a stitch from its weights again.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lib.core import files
from lib.core.errors import UserError
from lib.runs import command_lines, input_files, network_flags, records
from lib.runs.cli import RunConfig
from lib.runs.command_lines import Experiments

if TYPE_CHECKING:
    from lib.stitching.layer import Shape, Stitch


LISTED = ("front_layer", "end_layer", "front_stitch_rank", "front_pinv_rank")  # what the rows of one record differ in
NO_METHOD = {"directory", "mod_only_stitch", "save", "null", "sender", "permutations"}


class GridCell(NamedTuple):
    """Where a stitch stands in a grid: its layers, and the ranks to which its source is limited, if it is."""

    front: str
    end: str
    stitch_rank: int | None
    pinv_rank: int | None

    @property
    def ranks(self) -> tuple[int | None, int | None]:
        """Both ranks."""
        return self.stitch_rank, self.pinv_rank


@dataclass(frozen=True)
class Stored:
    """A row of a record, and the file with the weights of its stitch, which are the arrays `<row["stitch"]>.<name>`."""

    record: Path
    row: dict
    config: dict
    arrays: Path | None


@dataclass(frozen=True)
class Grid:
    """Stitches of the same networks, made in the same way: the settings are those of its first record."""

    record: Path
    config: dict
    networks: tuple[str, str]  # the SHA-256 of the front and of the end network
    cells: dict[GridCell, Stored]

    @property
    def method(self) -> str:
        """How the stitches were made, in a few words."""
        epochs = self.config["epochs"]
        return f"{self.config['init']}, {epochs} epoch{'' if epochs == 1 else 's'}"

    def front_layers(self) -> list[str]:
        """The layers of the front network, in the order of the records."""
        return list(dict.fromkeys(cell.front for cell in self.cells))

    def end_layers(self) -> list[str]:
        """The layers of the end network, in the order of the records."""
        return list(dict.fromkeys(cell.end for cell in self.cells))

    def ranks(self) -> list[tuple[int | None, int | None]]:
        """The pairs of ranks that there are."""
        return list(dict.fromkeys(cell.ranks for cell in self.cells))

    def missing(self) -> list[GridCell]:
        """The cells whose stitch was not made, or not kept; ranks that are too wide for a layer do not count."""
        own = {
            front: list(dict.fromkeys(cell.ranks for cell in self.cells if cell.front == front))
            for front in self.front_layers()
        }
        whole = [GridCell(front, end, *ranks) for front in own for end in self.end_layers() for ranks in own[front]]
        return [cell for cell in whole if cell not in self.cells or self.cells[cell].row["stitch"] is None]

    def command_for(self, experiments: Experiments, front: str, ends: list[str]) -> str:
        """The command that makes the stitches of a front layer with some end layers."""
        return command(
            experiments, "stitch", self.config | {"front_layer": front, "end_layer": ",".join(ends), "save": True}
        )


def read(config: RunConfig, paths: tuple[str, ...], revision: int) -> list[Grid]:
    """The grids in records, of this revision of their method, and folders of records.

    Raises `UserError` for what is no whole record of `exec_stitch.py`, for a folder with a run that was not finished, for
    stitches of a checkpoint that has changed since, and for those of an earlier revision.
    """
    grids: dict[str, Grid] = {}
    for path in _records(paths):
        record = records.read(path)
        if record["experiment"] != "stitch":
            raise UserError(f"{path}: the record of an experiment {record['experiment']}, not of exec_stitch.py")
        if records.revision(record) < revision:
            raise UserError(
                f"{path}: its stitches are of an earlier version of the method; exec_tables.py --rerun {path} makes them "
                "again"
            )
        arrays = path.with_name(record["arrays"]) if "arrays" in record else None
        if arrays is not None and not arrays.exists():
            raise UserError(f"{path}: its weights {arrays.name} are gone; exec_tables.py --rerun {path} makes them again")
        front, end = (_unchanged(config, path, record, record["config"][name]) for name in ("front_path", "end_path"))
        networks = front, end
        grid = grids.setdefault(_method(record["config"], networks), Grid(path, record["config"], networks, {}))
        for row in record["rows"]:
            if row.get("null") or row.get("missing"):  # a baseline, or a pair that no stitch joins
                continue
            cell = GridCell(row["front_layer"], row["end_layer"], row["stitch_rank"], row["pinv_rank"])
            earlier = grid.cells.get(cell)
            if earlier is None or earlier.row["stitch"] is None:
                grid.cells[cell] = Stored(path, row, record["config"], arrays)
    return list(grids.values())


def restore(stored: Stored, source: "Shape", target: "Shape") -> "Stitch":
    """The stitch between activations of these shapes. Raises `UserError` for weights that cannot be read or do not fit."""
    if stored.arrays is None:
        raise UserError(f"{stored.record}: it holds no weights; exec_tables.py --rerun {stored.record} makes them")
    import numpy as np
    import torch

    from lib.stitching import layer

    config, number = stored.config, f"{stored.row['stitch']}."
    made = layer.Stitch(
        stored.row["type"],
        source,
        target,
        upsample=config["upsample"],
        to_class_token=config["c2t_cls"],
        from_class=config["t2c_cls"],
        norm=config["stitch_norm"],
    )
    try:
        with np.load(stored.arrays) as arrays:
            state = {
                name.removeprefix(number): torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith(number)
            }
        if "limit.basis" in state:
            made.limit = layer.RankLimit(state["limit.mean"], state["limit.basis"])
        made.load_state_dict(state)
    except files.NO_ARRAYS:
        raise UserError(
            f"{stored.arrays}: not the whole weights of {stored.record}; exec_tables.py --rerun {stored.record} "
            "makes them again"
        ) from None
    return made


def _records(paths: tuple[str, ...]) -> list[Path]:
    files_of_records = []
    for path in map(Path, paths):
        if not path.is_dir():
            files_of_records.append(path)
            continue
        inside = sorted(path.glob("[!.]*.json"))
        if not inside:
            raise UserError(f"{path}: a folder without records; exec_stitch.py writes them, by default into results/stitch")
        for arrays in sorted(path.glob("[!.]*.npz")):
            if arrays.with_suffix(".json") not in inside:
                raise UserError(
                    f"{arrays} has no record: its run was not finished; run its command again, or remove the file"
                )
        files_of_records += inside
    return list(dict.fromkeys(files_of_records))


def _unchanged(config: RunConfig, path: Path, record: dict, checkpoint: str) -> str:
    """The hash of a checkpoint; raises `UserError` if it is not the one that the record was made from."""
    file = input_files.locate(config, checkpoint)
    if not file.exists():
        raise UserError(f"{path}: its checkpoint {checkpoint} is gone")
    sha256 = files.fingerprint([file], Path(config.cache_dir))["sha256"]
    if sha256 != record["inputs"].get(checkpoint, {}).get("sha256"):
        raise UserError(
            f"{path}: {checkpoint} has changed since its stitches were made; exec_tables.py --rerun {path} makes them again"
        )
    return sha256


def _method(config: dict, networks: tuple[str, str]) -> str:
    """What two stitches share that belong to one grid."""
    where = {field.name for field in dataclasses.fields(network_flags.CheckpointsConfig) if not field.metadata["identity"]}
    ignored = where | NO_METHOD | {"front_path", "end_path", *LISTED}
    return json.dumps([networks, {name: value for name, value in config.items() if name not in ignored}], sort_keys=True)


def command(experiments: Experiments, name: str, config: dict) -> str:
    """The command line of a run like the one with this configuration, with a record of its own."""
    kept = experiments[name].fields.keys() - {"name", "overwrite", "plan", "quiet", "debug", "list_layers", "resume"}
    return command_lines.command(experiments, name, {key: value for key, value in config.items() if key in kept})
