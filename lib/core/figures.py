"""Figures as files. Results are saved before their figures are drawn, so that a failing figure is only a warning.

Names of classes, layers and files stand in figures as they are: nothing in a figure is read as mathematics or as TeX,
whatever the reader's Matplotlib is set to. What is drawn for the column of a paper has its width and text of 6 to 8 points.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.core import files
from lib.core.errors import Interrupted
from lib.core.text import readable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
WIDTHS = {"screen": 0.0, "single": 3.3, "double": 6.8}  # inches; 0: as wide as the content asks for
DPI = {"screen": 120, "single": 300, "double": 300}

# Matplotlib's settings that make a formula of a text
LITERAL: dict[Any, Any] = {"text.usetex": False, "text.parse_math": False, "axes.formatter.use_mathtext": False}
# fonts that journals take and editors can edit; the same figure is the same file
VECTOR: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "figure"}
SIZES: dict[str, dict[Any, Any]] = {
    "screen": {
        "font.size": 9,
        "figure.titlesize": 10,
        "figure.labelsize": 9,
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.title_fontsize": 8,
    },
    "paper": {
        "font.size": 7,
        "figure.titlesize": 8,
        "figure.labelsize": 7,
        "axes.titlesize": 7,
        "axes.labelsize": 7,
        "xtick.labelsize": 6,
        "ytick.labelsize": 6,
        "legend.fontsize": 6,
        "legend.title_fontsize": 6,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.0,
        "lines.markersize": 3,
    },
}
# without what differs between two runs of the same command
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}

_COLUMN: ContextVar[float] = ContextVar("column", default=0.0)


@contextlib.contextmanager
def literal(width: str = "screen") -> Generator[None]:
    """While figures are made and written: their texts are what they say, their sizes those of a column of WIDTHS."""
    import matplotlib

    before = _COLUMN.set(WIDTHS[width])
    try:
        with matplotlib.rc_context(LITERAL | VECTOR | SIZES["paper" if column() else "screen"]):
            yield
    finally:
        _COLUMN.reset(before)


def column() -> float:
    """The width in inches that figures made now must have; 0 where they are as wide as their content asks for."""
    return _COLUMN.get()


def write_all(
    draw: Callable[[], Mapping[str, "Figure"]], path_of: Callable[[str], Path], width: str = "screen"
) -> list[Path]:
    """Draws figures and writes each, as its path's suffix says. What fails is a warning; the paths of those written."""
    written = []
    with _kept_on(path_of(""), "no figure was drawn"), literal(width):
        for suffix, figure in draw().items():
            path = path_of(suffix)
            with _kept_on(path, f"{path} was not drawn"):
                write(path, figure, width)
                written.append(path)
    return written


def write(path: Path, figure: "Figure", width: str = "screen") -> None:
    """Writes a figure in the format of the path's suffix, with one warning for all that Matplotlib has to say of it."""
    picture, kind = io.BytesIO(), path.suffix.removeprefix(".")
    with literal(width), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _show_all_names(figure)
        figure.savefig(picture, format=kind, dpi=DPI[width], metadata=METADATA[kind])
    if said:
        more = f", and {len(said) - 1} more such things" if len(said) > 1 else ""
        warnings.warn(f"{path}: {' '.join(str(said[0].message).split())}{more}", stacklevel=2)
    files.write_atomically(path, lambda file: file.write(picture.getvalue()))


@contextlib.contextmanager
def _kept_on(path: Path, sentence: str) -> Generator[None]:
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:  # whatever fonts, settings and names do to a figure, the numbers are there
        reason = (str(error).strip().splitlines() or [""])[0]
        warnings.warn(f"{sentence}: {type(error).__name__}: {reason}", stacklevel=4)


def _show_all_names(figure: "Figure") -> None:
    """Makes every text of a figure one that fonts can be asked for."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            named = axis.get_major_formatter()
            if isinstance(named, FixedFormatter | FuncFormatter):  # labels, not numbers
                axis.set_major_formatter(lambda at, place, named=named: readable(named(at, place)))
    for text in figure.findobj(Text):
        text.set_text(readable(text.get_text()))
