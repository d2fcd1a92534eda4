"""How dissimilar indices call representations, against what probes say of them."""

import math

from matplotlib.figure import Figure


def scatter(panels: dict[str, list[tuple[str, float, float]]], title: str) -> Figure:
    """A panel per index: (reference layer, gap between probing accuracies, dissimilarity), a colour per reference layer.

    An index that sees what the probes see puts its points along a rising line.
    """
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(4 * across + 1.4, 3.3 * down + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    layers = list(dict.fromkeys(layer for points in panels.values() for layer, _, _ in points))
    colours = {layer: f"C{number % 10}" for number, layer in enumerate(layers)}
    drawn = {}
    for number, (name, points) in enumerate(panels.items()):
        axes = figure.add_subplot(down, across, number + 1)
        for layer in layers:
            chosen = [(gap, distance) for other, gap, distance in points if other == layer]
            if chosen:
                drawn[layer] = axes.scatter(*zip(*chosen, strict=True), s=12, color=colours[layer], alpha=0.8)
        axes.set_title(name, fontsize=9)
        axes.set(xlabel="gap between probing accuracies", ylabel="dissimilarity")
    figure.legend(drawn.values(), drawn, loc="outside right upper", fontsize=7, title="reference", title_fontsize=7)
    return figure
