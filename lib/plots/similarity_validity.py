"""How dissimilar indices call representations, against what probes say of them."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.plots import style


def scatter(panels: dict[str, list[tuple[str, float, float]]], title: str) -> Figure:
    """A panel per index: (reference layer, gap between probing accuracies, dissimilarity), a colour per reference layer.

    An index that sees what the probes see puts its points along a rising line.
    """
    figure, places = style.panels(len(panels), (4.0, 3.2), extra=1.3)
    layers = list(dict.fromkeys(layer for points in panels.values() for layer, _, _ in points))
    drawn = {layer: style.line(number, linestyle="") for number, layer in enumerate(layers)}
    for axes, (name, points) in zip(places, panels.items(), strict=True):
        for layer in layers:
            chosen = [(gap, distance) for other, gap, distance in points if other == layer]
            if chosen:
                axes.plot(*zip(*chosen, strict=True), markersize=3.5, alpha=0.8, **drawn[layer])
        axes.set_title(name)
    style.label(places, "gap between the probes' accuracies", "dissimilarity")
    key = [Line2D([], [], markersize=5, label=layer, **drawn[layer]) for layer in layers]
    style.key_below(figure, key, most=6, title="reference layer")
    style.title(figure, title)
    return figure
