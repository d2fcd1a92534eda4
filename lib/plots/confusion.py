"""Which classes are taken for which."""

import numpy as np
from matplotlib.figure import Figure

MOST = 100  # classes that are drawn
CONFUSED = 30  # of more


def confusion(counts: np.ndarray, classes: tuple[str, ...], title: str) -> Figure:
    """Counts (k, k) as shares of each true class (row), with the classes' names where they can be read.

    Of more than `MOST` classes those that are confused most, and what is taken for any other in a last column.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = classes, classes[: shares.shape[1]]
    if len(counts) > MOST:
        chosen = most_confused(shares, CONFUSED)
        others = 1 - shares[np.ix_(chosen, chosen)].sum(1) - (counts[chosen].sum(1) == 0)
        title += f"\nthe {CONFUSED} of {len(counts)} classes that are confused most"
        shares = np.column_stack([shares[np.ix_(chosen, chosen)], others])
        rows = tuple(classes[number] for number in chosen)
        names = rows, (*rows, "any other")
    side = min(max(4.5, 0.42 * len(shares) + 2), 14)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    if len(shares) <= 30:
        axes.set_xticks(range(shares.shape[1]), names[1], rotation=90)
        axes.set_yticks(range(len(shares)), names[0])
    if len(shares) <= 20:
        for row, column in np.ndindex(*shares.shape):
            share = shares[row, column]
            if round(100 * share):
                axes.text(
                    column,
                    row,
                    f"{100 * share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if share > 0.5 else "black",
                )
    axes.set(xlabel="prediction", ylabel="true class")
    figure.suptitle(title, fontsize=10)
    return figure


def most_confused(shares: np.ndarray, most: int) -> list[int]:
    """The classes of the largest shares (k, k) off the diagonal, `most` of them, ascending; ties in the order of classes."""
    wrong = shares - np.diag(shares.diagonal())
    pairs = np.stack(np.unravel_index(np.argsort(-wrong, axis=None, kind="stable"), wrong.shape), 1)
    return sorted(list(dict.fromkeys(pairs.flatten().tolist()))[:most])
