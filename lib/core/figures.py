"""Figures as files. Results are saved before their figures are drawn, so that a failing figure is only a warning.

Names of classes, layers and files stand in figures as they are: nothing in a figure is read as mathematics or as TeX,
whatever the reader's Matplotlib is set to.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.core import files
from lib.core.errors import Interrupted
from lib.core.text import readable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Matplotlib's settings that make a formula of a text
LITERAL: dict[Any, bool] = {"text.usetex": False, "text.parse_math": False, "axes.formatter.use_mathtext": False}


@contextlib.contextmanager
def literal() -> Generator[None]:
    """While figures are made and written: their texts are what they say."""
    import matplotlib

    with matplotlib.rc_context(LITERAL):
        yield


def write_all(draw: Callable[[], Mapping[str, "Figure"]], path_of: Callable[[str], Path]) -> None:
    """Draws figures and writes each as PNG. What fails is a warning, and leaves no figure of an earlier run."""
    with _kept_on(path_of(""), "no figure was drawn"), literal():
        for suffix, figure in draw().items():
            path = path_of(suffix)
            with _kept_on(path, f"{path} was not drawn"):
                write(path, figure)


def write(path: Path, figure: "Figure") -> None:
    """Writes a figure as PNG, with one warning for all that Matplotlib has to say of it."""
    picture = io.BytesIO()
    with literal(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _show_all_names(figure)
        figure.savefig(picture, format="png", dpi=120)
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
        path.unlink(missing_ok=True)
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
