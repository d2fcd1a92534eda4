"""What all figures share: sizes, colours, lines, panels, names along an axis, words of a title.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart; lines differ in their markers and dashes,
too, and bars in their brightness, so that figures can be read in grey.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from lib.core import figures

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = "osD^vP*X"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (4, 1, 1, 1)), (0, (1, 1)), (0, (6, 1, 1, 1, 1, 1)))
GREY, FAINT, INK = "0.55", "0.8", "0.2"  # one line of many; what says little; error bars
MISSING = "0.82"  # a cell that was not measured
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
TALLEST = 9.0  # inches that a page has for a figure
LEADING = 1.25  # from a line of letters to the next, as a multiple of their size
TITLE = 0.35  # inches of a title of two lines in a column


def line(number: int, **changes: Any) -> dict[str, Any]:
    """How the line of this number is drawn; the first seven differ in colour, and in marker and dashes besides."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        **changes,
    }


def figure(width: float, height: float, in_column: float = 0.0) -> Figure:
    """An empty figure of this size in inches, or as wide as the column.

    in_column  its height there without the key; by default of the same shape, and what a title needs more
    """
    column = figures.column()
    if column:
        height = min(in_column or max(height * column / width, 0.65 * column) + TITLE, TALLEST)
    return Figure(figsize=(column or width, height), layout="constrained")


def across(count: int, least: float, most: int) -> int:
    """How many of so many panels stand side by side: at most so many, each at least so wide where the width is given."""
    column = figures.column()
    fitting = min(most, max(1, int(column / least))) if column else most
    lines = math.ceil(count / max(1, min(fitting, count)))
    return math.ceil(count / lines)


def panels(
    count: int, size: tuple[float, float], *, most: int = 3, least: float = 1.6, extra: float = 0.8, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, line by line; those of a last line that is not full stand in its middle: no place is empty.

    size   of a panel on the screen, in inches; `extra` inches of height are for title and key
    most   side by side; each is at least `least` inches wide in a column of a paper
    share  whether all panels have the axes of the first
    """
    wide = across(count, least, most)
    lines = math.ceil(count / wide)
    made = figure(size[0] * wide + 0.3, size[1] * lines + extra)
    if figures.column():  # panels keep their shape
        made.set_figheight(min(figures.column() / wide * size[1] / size[0] * lines + TITLE, TALLEST))
    grid = made.add_gridspec(lines, 2 * wide)
    drawn: list[Axes] = []
    for number in range(count):
        row, column = divmod(number, wide)
        shift = wide - (count - row * wide) if row == lines - 1 else 0
        place = grid[row, 2 * column + shift : 2 * column + shift + 2]
        first = drawn[0] if share and drawn else None
        drawn.append(made.add_subplot(place, sharex=first, sharey=first))
    return made, drawn


def label(drawn: Sequence[Axes], x: str, y: str) -> None:
    """The labels of panels that show the same: the vertical one at the first of each line."""
    lines = set()
    for axes in drawn:
        axes.set_xlabel(x)
        place = axes.get_subplotspec()
        if place and place.rowspan.start not in lines:
            lines.add(place.rowspan.start)
            axes.set_ylabel(y)


def title(made: Figure, text: str, note: str = "") -> None:
    """The title over the whole figure, in as many lines as its width asks for, and a note below it."""
    letters = max(20, int(72 * _width(made) / (0.54 * _points("figure.titlesize"))))
    made.suptitle("\n".join(part for words in (text, note) for part in textwrap.wrap(words, letters)))
    if figures.column():
        for axes in made.axes:
            axes.xaxis.label.set_wrap(True)
            axes.yaxis.label.set_wrap(True)


def _width(made: Figure) -> float:
    return float(made.get_figwidth())


def _points(setting: str) -> float:
    settings: dict[Any, Any] = dict(rcParams)
    size = settings[setting]
    return float(size if isinstance(size, int | float) else settings["font.size"])  # some are words, as "medium"


def name_x(axes: Axes, names: Sequence[str], inches: float, places: Sequence[float] | None = None) -> None:
    """Names along the horizontal axis, upright where they are long; where not all fit, every second, third, ... one."""
    places = range(len(names)) if places is None else places
    size = _points("xtick.labelsize")
    longest = max(map(len, names), default=0)
    room = 72 * inches / max(len(names), 1)  # points for each
    flat = longest * 0.62 * size < room
    step = 1 if flat else max(1, math.ceil(LEADING * size / room))
    axes.set_xticks(list(places)[::step], list(names)[::step], rotation=0 if flat else 90)


def name_y(axes: Axes, names: Sequence[str], inches: float) -> None:
    """Names along the vertical axis; where not all fit, every second, third, ... one."""
    step = max(1, math.ceil(LEADING * _points("ytick.labelsize") * len(names) / (72 * inches)))
    axes.set_yticks(range(0, len(names), step), list(names)[::step])


def inches(axes: Axes) -> float:
    """The width of the figure that a panel is in."""
    root = axes.get_figure(root=True)
    return _width(root) if root else 0.0


def small() -> float:
    """The size of letters inside of cells and bars, in points."""
    return _points("xtick.labelsize") - 1


def on(image: AxesImage, value: float) -> str:
    """The colour of letters on the colour that an image has for the value: black on bright ones, white on dark ones."""
    red, green, blue, _ = np.ravel(image.to_rgba(np.array([value])))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def write_cells(axes: Axes, image: AxesImage, values: np.ndarray, form: str = ".2f") -> None:
    """Writes every value that is a number into its cell."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = format(round(float(value), 6) + 0.0, form)
            text = text.removeprefix("-") if float(text) == 0 else text
            axes.text(column, row, text, ha="center", va="center", fontsize=small(), color=on(image, value))


def missing_key(axes: Axes, values: np.ndarray) -> list[Patch]:
    """Makes cells that were not measured (NaN) grey; their entry of a key, where there are any."""
    axes.set_facecolor(MISSING)
    return [Patch(facecolor=MISSING, label="not measured")] if np.isnan(values).any() else []


def key_below(made: Figure, handles: Sequence[Any], most: int = 4, **about: Any) -> None:
    """A key below the panels."""
    if handles:
        longest = max(len(str(handle.get_label())) for handle in handles)
        fitting = int(_width(made) * 72 / ((longest + 6) * 0.53 * _points("legend.fontsize")))
        columns = max(1, min(most, fitting, len(handles)))
        if figures.column():  # what it covers there is not taken from the panels
            lines = math.ceil(len(handles) / columns) + bool(about.get("title")) + 1
            made.set_figheight(min(made.get_figheight() + lines * 1.4 * _points("legend.fontsize") / 72, TALLEST))
        made.legend(handles=list(handles), loc="outside lower center", ncols=columns, **about)
