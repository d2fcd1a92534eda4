"""Grids of layers against layers."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle


def heat_maps(
    panels: dict[str, np.ndarray],
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
    """A heat map (rows, columns) per panel; cells that were not measured (NaN) stay grey.

    limits: panel -> the values at the ends of its colours; by default those of the panel. Bright is alike: the panels in
    `distances` have their colours turned round; in those of `centred` the middle is light and both ends are dark.
    by_chance: panel -> truths (rows, columns); these cells are hatched.
    """
    limits = limits or {}
    across = len(panels) if len(panels) < 4 else 2 if len(panels) == 4 else 3
    down = math.ceil(len(panels) / across)
    size = [max(3.6, 0.42 * count + 1.9) for count in (len(columns), len(rows))]
    figure = Figure(figsize=(across * size[0], down * size[1] + 0.4), layout="constrained")
    head(figure, title)
    for number, (name, values) in enumerate(panels.items()):
        axes = figure.add_subplot(down, across, number + 1)
        axes.set_facecolor("0.85")
        low, high = limits.get(name, (None, None))
        colours = "viridis_r" if name in distances else "RdBu_r" if name in centred else "viridis"
        image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
        figure.colorbar(image, ax=axes, shrink=0.9)
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
        axes.set(xlabel=column_label, ylabel=row_label, title=name)
        for row, column in np.argwhere((by_chance or {}).get(name, np.zeros((0, 0), bool))):
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="///", edgecolor="0.6", linewidth=0))
        if max(values.shape) <= 12:
            for row, column in np.ndindex(*values.shape):
                value = values[row, column]
                if np.isfinite(value):
                    level = float(np.asarray(image.norm(value)))
                    shade = 1 - level if name in distances else level
                    shade = 1 - abs(2 * shade - 1) if name in centred else shade
                    axes.text(
                        column,
                        row,
                        f"{round(value, 2) + 0.0:.2f}",
                        ha="center",
                        va="center",
                        fontsize=6,
                        color="black" if shade > 0.55 else "white",
                    )
    return figure


def matrix(rows: list[dict], row_key: str, column_key: str, names: Sequence[list[str]], value: str) -> np.ndarray:
    """The values of a column of a record's rows as an array of those names; NaN where there is none."""
    values = np.full((len(names[0]), len(names[1])), np.nan)
    for row in rows:
        if row.get(value) is not None:
            values[names[0].index(row[row_key]), names[1].index(row[column_key])] = row[value]
    return values


def head(figure: Figure, title: str) -> None:
    """The title over the whole figure, in as many lines as its width asks for."""
    figure.suptitle("\n".join(textwrap.wrap(title, int(11 * figure.get_figwidth()))), fontsize=10)
