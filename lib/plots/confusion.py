"""Which classes are taken for which."""

import numpy as np
from matplotlib.figure import Figure

from lib.core.errors import UserError
from lib.plots import style
from lib.plots.recorded import Recorded

NAMED, NUMBERED = 30, 20  # classes whose names are shown, and whose cells have their numbers


def figures(run: Recorded) -> dict[str, Figure]:
    """A matrix for every data set of an evaluation."""
    drawn = {}
    wholes = [row for row in run.rows if row["subset"] == "all"]
    for whole in wholes:
        same = [row for row in run.rows if all(row[name] == whole[name] for name in ("data", "split", "variant"))]
        classes = tuple(row["subset"].removeprefix("class:") for row in same if row["subset"].startswith("class:"))
        key = f"{whole['data']}-{whole['split']}" + (f"-{whole['variant']}" if whole["variant"] else "")
        if f"confusion_{key}" not in run.arrays:
            raise UserError("the record is of an earlier version, without the counts; --overwrite measures again")
        images = f"{whole['data']}:{whole['split']}" + (f" ({whole['variant']})" if whole["variant"] else "")
        title = f"{run.name(run.config['model_path'])} on {images}"
        if whole["accuracy"] is not None:
            title += f": accuracy {100 * whole['accuracy']:.1f} % of {whole['n']} images"
        drawn[key if len(wholes) > 1 else ""] = confusion(run.arrays[f"confusion_{key}"], classes, title)
    return drawn


def confusion(counts: np.ndarray, classes: tuple[str, ...], title: str) -> Figure:
    """Counts (k, m) as percentages of each true class (row), with the classes' names where they can be read.

    A class without images is grey.
    """
    sums = counts.sum(1, keepdims=True)
    shares = np.where(sums > 0, 100 * counts / np.maximum(sums, 1), np.nan)
    side = min(max(4.5, 0.42 * len(counts) + 2), 14)
    figure = style.figure(side + 0.6, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, shrink=0.8, label="images of the true class, in %")
    if len(counts) <= NAMED:
        style.name_x(axes, classes[: counts.shape[1]], 0.75 * figure.get_figwidth())
        style.name_y(axes, classes[: len(counts)], 0.75 * figure.get_figheight())
    if len(counts) <= NUMBERED:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                colour = style.on(image, share)
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=style.small(), color=colour)
    axes.set(xlabel="predicted class", ylabel="true class")
    style.key_below(figure, style.missing_key(axes, shares))
    style.title(figure, title)
    return figure
