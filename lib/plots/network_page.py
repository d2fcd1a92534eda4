"""All measures of one network's layers: over depth, and how they go together."""

import numpy as np
from matplotlib.figure import Figure

from lib.plots import grid

MARKERS = "osD^vP*X"
# told apart also by colour-blind readers (Okabe and Ito 2008)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def network_page(
    layers: list[str],
    columns: dict[str, dict[str, float]],
    correlations: np.ndarray,
    title: str,
    marked: dict[str, list[str]] | None = None,
) -> Figure:
    """Every measure over depth, each on its own range, and below it the correlations of those that share enough layers.

    columns       measure -> layer -> value; measures without a value are left out
    correlations  (measures, measures) in the order of `columns`, NaN where there are too few layers
    marked        measure -> the layers that may be the best by it, with a ring
    """
    shown = {name: values for name, values in columns.items() if values}
    number = {name: place for place, name in enumerate(columns)}
    told = np.isfinite(correlations) & ~np.eye(len(columns), dtype=bool)
    paired = [name for name in shown if told[number[name]].any()]
    figure = Figure(figsize=(max(7.0, 0.42 * len(layers) + 3.2), 4.4 + (4.6 if paired else 0)), layout="constrained")
    grid.head(figure, title)
    axes = figure.subplots(2 if paired else 1, 1, squeeze=False)[:, 0]
    over = axes[0]
    for place, (name, values) in enumerate(shown.items()):
        low, high = min(values.values()), max(values.values())
        scaled = {layer: (value - low) / (high - low) if high > low else 0.5 for layer, value in values.items()}
        over.plot(
            [layers.index(layer) for layer in layers if layer in scaled],
            [scaled[layer] for layer in layers if layer in scaled],
            marker=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            linewidth=1,
            markersize=4,
            label=f"{name}: {low:.3g} to {high:.3g}",
        )
        ringed = [layer for layer in (marked or {}).get(name, ()) if layer in scaled]
        over.scatter(
            [layers.index(layer) for layer in ringed],
            [scaled[layer] for layer in ringed],
            s=70,
            facecolors="none",
            edgecolors=COLOURS[place % len(COLOURS)],
        )
    over.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=7)
    over.set_yticks((0, 1), ("its least", "its largest"))
    rings = "; ring: may be the best" if any((marked or {}).values()) else ""
    over.set(xlabel="layer, in order of execution", title=f"each measure over depth, on its own range{rings}")
    over.grid(axis="x", alpha=0.3)
    over.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    if paired:
        places = [number[name] for name in paired]
        below = axes[1]
        picked = correlations[np.ix_(places, places)]
        image = below.imshow(picked, cmap="RdBu_r", vmin=-1, vmax=1)
        figure.colorbar(image, ax=below, shrink=0.9)
        below.set_xticks(range(len(paired)), paired, rotation=40, ha="right", fontsize=7)
        below.set_yticks(range(len(paired)), paired, fontsize=7)
        below.set_title("Spearman's rank correlation over layers")
        for (row, column), value in np.ndenumerate(picked):
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.6 else "black"
                below.text(column, row, f"{value + 0.0:.2f}", ha="center", va="center", fontsize=7, color=colour)
    return figure
