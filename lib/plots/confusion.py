"""Which classes are taken for which."""

import numpy as np
from matplotlib.figure import Figure


def confusion(counts: np.ndarray, classes: tuple[str, ...], title: str) -> Figure:
    """Counts (k, k) as shares of each true class (row), with the classes' names where they can be read."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(4.5, 0.42 * len(counts) + 2), 14)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    if len(counts) <= 30:
        axes.set_xticks(range(counts.shape[1]), classes[: counts.shape[1]], rotation=90)
        axes.set_yticks(range(len(counts)), classes[: len(counts)])
    if len(counts) <= 20:
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
