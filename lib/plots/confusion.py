"""Which classes are taken for which."""

import numpy as np
from matplotlib.figure import Figure

from lib.core.errors import UserError
from lib.plots import style
from lib.plots.recorded import Recorded

NAMED, NUMBERED = 30, 20  # classes whose names are shown, and whose cells have their numbers
MOST, CONFUSED = 100, 30  # classes that are drawn, and how many of more


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

    A class without images is grey. Of more than `MOST` classes those are drawn that are confused most, and what is taken for
    any other is a last column.
    """
    sums = counts.sum(1, keepdims=True)
    shares = np.where(sums > 0, 100 * counts / np.maximum(sums, 1), np.nan)
    predicted, true = classes[: counts.shape[1]], classes[: len(counts)]
    if len(counts) > MOST:
        chosen = most_confused(np.nan_to_num(shares), CONFUSED)
        within = shares[np.ix_(chosen, chosen)]
        shares = np.column_stack([within, 100 - within.sum(1)])
        true = tuple(classes[number] for number in chosen)
        predicted = (*true, "any other")
        title += f"; the {CONFUSED} of {len(counts)} classes that are confused most"
    side = min(max(4.5, 0.42 * len(shares) + 2), 14)
    figure = style.figure(side + 0.6, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, shrink=0.8, label="images of the true class, in %")
    if len(shares) <= NAMED:
        style.name_x(axes, predicted, 0.75 * figure.get_figwidth())
        style.name_y(axes, true, 0.75 * figure.get_figheight())
    if len(shares) <= NUMBERED:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                colour = style.on(image, share)
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=style.small(), color=colour)
    axes.set(xlabel="predicted class", ylabel="true class")
    style.key_below(figure, style.missing_key(axes, shares))
    style.title(figure, title)
    return figure


def most_confused(shares: np.ndarray, most: int) -> list[int]:
    """The classes of the largest shares (k, k) off the diagonal, `most` of them, ascending; ties in the order of classes."""
    wrong = shares - np.diag(shares.diagonal())
    pairs = np.stack(np.unravel_index(np.argsort(-wrong, axis=None, kind="stable"), wrong.shape), 1)
    return sorted(list(dict.fromkeys(pairs.flatten().tolist()))[:most])
