"""Grids of layers against layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from lib.plots import style

NUMBERED = 12  # layers of which every cell has its number
HATCHED: dict[str, Any] = {"hatch": "///", "edgecolor": "0.6", "linewidth": 0}
CERTAIN = 0.05  # p_best up to which layers are taken to be more alike than by chance
CHANCE = f"no more alike than by chance (p_best above {CERTAIN})"


def heat_maps(
    panels: Mapping[str, np.ndarray],
    rows: list[str],
    columns: list[str],
    row_label: str,
    column_label: str,
    title: str,
    limits: Mapping[str, tuple[float, float]] | None = None,
    distances: tuple[str, ...] = (),
    centred: tuple[str, ...] = (),
    by_chance: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """A heat map (rows, columns) per panel; cells that were not measured (NaN) are grey.

    limits: panel -> the values at the ends of its colours; by default those of the panel. Bright is alike: the panels in
    `distances` have their colours turned round; in those of `centred` the middle is light and both ends are dark.
    by_chance: panel -> truths (rows, columns); these cells are hatched.
    """
    limits = limits or {}
    wide, high = (max(3.4, (0.42 if count <= NUMBERED else 0.2) * count + 1.9) for count in (len(columns), len(rows)))
    figure, places = style.panels(len(panels), (wide, high), least=2.1)
    missing: list[Patch] = []
    for axes, (name, values) in zip(places, panels.items(), strict=True):
        missing = style.missing_key(axes, values) or missing
        low, top = limits.get(name, (None, None))
        colours = f"{style.SEQUENTIAL}_r" if name in distances else style.DIVERGING if name in centred else style.SEQUENTIAL
        image = axes.imshow(values, cmap=colours, vmin=low, vmax=top, aspect="auto")
        figure.colorbar(image, ax=axes, shrink=0.9)
        style.name_x(axes, columns, 0.6 * figure.get_figwidth() / style.across(len(panels), 2.1, 3))
        style.name_y(axes, rows, 0.6 * high * figure.get_figheight() / (high + 0.8))
        axes.set_title(name)
        for row, column in np.argwhere((by_chance or {}).get(name, np.zeros((0, 0), bool))):
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, **HATCHED))
        if max(values.shape) <= NUMBERED:
            style.write_cells(axes, image, values)
    style.label(places, column_label, row_label)
    hatched = any(cells.any() for cells in (by_chance or {}).values())
    style.key_below(figure, missing + [Patch(facecolor="none", label=CHANCE, **HATCHED)] * hatched)
    style.title(figure, title)
    return figure


def matrix(rows: list[dict], row_key: str, column_key: str, names: Sequence[list[str]], value: str) -> np.ndarray:
    """The values of a column of a record's rows as an array of those names; NaN where there is none."""
    values = np.full((len(names[0]), len(names[1])), np.nan)
    for row in rows:
        if row.get(value) is not None:
            values[names[0].index(row[row_key]), names[1].index(row[column_key])] = row[value]
    return values
