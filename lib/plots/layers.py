"""Measures of every layer of a network, in the style of the OOD-layers paper."""

import numpy as np
from matplotlib.figure import Figure

ABOVE, BELOW, FINAL = "#2a7f3f", "#e08a1e", "#b22222"


def layer_bars(names: list[str], values: list[float], errors: list[float], final: str, title: str,
               label: str = "AUROC of the layer's energy") -> Figure:
    """A bar per layer over [0, 1]; green where it is above the final layer's, hatched where it is inverted.

    A value below 0.5 is drawn as it is: the layer's energy is lower for outliers.
    """
    figure = Figure(figsize=(max(6, 0.26 * len(names) + 2), 4.8), layout="constrained")
    axes = figure.add_subplot()
    reference = values[names.index(final)]
    places = np.arange(len(names))
    colours = [FINAL if name == final else ABOVE if value > reference else BELOW
               for name, value in zip(names, values, strict=True)]
    bars = axes.bar(places, values, 0.7, color=colours, yerr=np.array(errors) * 1.96, ecolor="0.3", capsize=1.5)
    for bar, value in zip(bars, values, strict=True):
        if value < 0.5:
            bar.set_hatch("////")
            bar.set_edgecolor("white")
        axes.text(bar.get_x() + bar.get_width() / 2, min(value + 0.02, 1.0), f"{value:.2f}", rotation=90, fontsize=7,
                  ha="center", va="bottom")
    axes.axhline(reference, color=FINAL, linestyle=":", label=f"final layer {final}: {reference:.3f}")
    axes.axhline(0.5, color="0.5", linewidth=0.8, label="chance; hatched bars below it are inverted")
    axes.set(ylim=(0, 1.12), ylabel=label, title=title)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_xticks(places, names, rotation=90, fontsize=7)
    axes.set_yticks(np.linspace(0, 1, 11))
    axes.legend(loc="lower left", fontsize=8, framealpha=0.9)
    return figure
