"""Figures of finished runs, from their records alone: after a run, and again in another format. Free of torch."""

import contextlib
import warnings
import zipfile
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.core import figures
from lib.core.errors import UserError
from lib.core.text import readable
from lib.plots.recorded import Recorded
from lib.runs import network_facts, records
from lib.runs.cli import RunConfig
from lib.runs.command_lines import Experiment, Experiments
from lib.runs.records import Place, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(place: Place, record: Mapping[str, Any], experiment: Experiment, kind: str, width: str) -> list[Path]:
    """Draws the figures of a record beside it, in the format `kind`; a figure that fails is a warning. Their paths."""
    with _arrays(place, record) as arrays:
        known = record.get("networks")
        if known is None:
            known = network_facts.read(experiment.configuration, record["config"], record["rows"])
        run = Recorded(record["config"], record["rows"], arrays, known, record.get("facts", {}))
        return figures.write_all(lambda: experiment.figures(run), lambda suffix: place.figure(suffix, kind), width)


def draw_anew(place: Place, record: Mapping[str, Any], experiment: Experiment, kind: str, width: str) -> list[Path]:
    """Draws the figures of a record that was just written; those of the one before, of any format, are gone."""
    for old in records.figures(place):
        with contextlib.suppress(OSError):
            old.unlink()
    return draw(place, record, experiment, kind, width)


def redraw(paths: Iterable[str | Path], experiments: Experiments, kind: str, width: str) -> list[Path]:
    """Draws the figures of records, and of folders of them, again, each beside its record.

    Raises `UserError` for a file that is no record of ours; in a folder it is left out with a warning.
    """
    drawn = []
    for given in map(Path, paths):
        for path in [given] if not given.is_dir() else _records_in(given):
            try:
                record = records.read(path)
                if record["experiment"] not in experiments:
                    raise UserError(f"{path}: the record of an experiment {record['experiment']}, which the suite has not")
                experiment = experiments[record["experiment"]]
                records.read(path, experiment)
                drawn += draw(Place(record["experiment"], path.stem, path), record, experiment, kind, width)
            except UserError as error:
                if path == given:
                    raise
                warnings.warn(f"{error}; left out", stacklevel=2)
    return drawn


def _records_in(folder: Path) -> list[Path]:
    """The records in a folder of one experiment, or in the folders in it."""
    return sorted(folder.glob("[!.]*.json")) or sorted(folder.glob("*/[!.]*.json"))


def of_result(config: RunConfig, result: Result, experiment: Experiment) -> Mapping[str, "Figure"]:
    """The figures of what an experiment's function returned, "" or a suffix -> figure, without a record."""
    settings, rows = records.plain_settings(config), records.plain_rows(result)
    arrays = {readable(name): array for name, array in result.arrays.items()}
    networks = network_facts.read(type(config), settings, rows)
    return experiment.figures(Recorded(settings, rows, arrays, networks, result.facts))


@contextlib.contextmanager
def _arrays(place: Place, record: Mapping[str, Any]) -> Generator[Mapping[str, Any]]:
    """The record's arrays by name, read one by one as they are asked for; none where it has none."""
    import numpy as np

    if not record.get("arrays"):
        yield {}
        return
    path = place.path.with_name(Path(record["arrays"]).name)
    try:
        arrays = np.load(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: the arrays of {place.path.name} cannot be read: {error}") from None
    with arrays:
        yield arrays
