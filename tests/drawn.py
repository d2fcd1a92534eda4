"""Figures of what an experiment's function returned, or of a record, as its script draws them."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from lib.core import figures
from lib.experiments import EXPERIMENTS
from lib.plots.recorded import Recorded
from lib.runs import drawing, records
from lib.runs.cli import RunConfig
from lib.runs.records import Result


def of(name: str, config: RunConfig, result: Result, width: str = "screen") -> Mapping[str, Figure]:
    """The figures of a result of the experiment `name`, by suffix."""
    with figures.literal(width):
        return drawing.of_result(config, result, EXPERIMENTS[name])


def of_record(path: Path, width: str = "screen") -> Mapping[str, Figure]:
    """The figures of a record, by suffix."""
    record = records.read(path)
    with drawing._arrays(records.Place(record["experiment"], path.stem, path), record) as arrays, figures.literal(width):
        run = Recorded(record["config"], record["rows"], arrays, record["networks"], record["facts"])
        return EXPERIMENTS[record["experiment"]].figures(run)


def words(figure: Figure) -> str:
    """Every text of a figure: title, labels, keys, what is written into it."""
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_text())
