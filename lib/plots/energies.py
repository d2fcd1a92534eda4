"""Figures of stitched representations under detectors: heat maps of a grid, histograms of the energies."""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from lib.plots import grid

BINS = 50
SHOWN = (0.2, 99.8)  # percentiles between which a panel's axis runs


MEASURES = {
    "accuracy": "accuracy",
    "AUROC": "auroc",
    "two-sided AUROC": "auroc_two_sided",
    "AUPR": "aupr_in",
    "FPR95": "fpr95",
}


def figures(
    rows: list[dict], arrays: dict[str, np.ndarray], layers: tuple[list[str], list[str]], title: str
) -> dict[str, Figure]:
    """By suffix, for each pair of ranks: the measures as heat maps, where there is more than a cell, and the histograms.

    The rows are those of one grid; `layers` are its front and its end layers.
    """
    by_suffix = {}
    stitched = [row for row in rows if row["kind"] == "stitched"]
    for ranks in dict.fromkeys((row["stitch_rank"], row["pinv_rank"]) for row in stitched):
        chosen = [row for row in stitched if (row["stitch_rank"], row["pinv_rank"]) == ranks]
        shown = [str(rank or "full") for rank in ranks]
        suffix, heading = "", title
        if ranks != (None, None):
            suffix, heading = f"ranks-{'-'.join(shown)}", f"{title}, ranks {' and '.join(shown)}"
        if len(chosen) > 1:
            panels = {
                name: grid.matrix(chosen, "front_layer", "end_layer", layers, measure) for name, measure in MEASURES.items()
            }
            by_suffix[suffix] = grid.heat_maps(
                panels,
                layers[0],
                layers[1],
                "front layer",
                "end layer",
                heading,
                dict.fromkeys(panels, (0.0, 1.0)),
                centred=("AUROC", "two-sided AUROC", "AUPR"),
            )
        ends = [end for end in layers[1] if any(row["end_layer"] == end and row["energies"] for row in chosen)]

        def of(end: str, rows: list[dict], name: str) -> dict[str, np.ndarray]:
            return {row[name]: arrays[row["energies"]] for row in rows if row["end_layer"] == end and row["energies"]}

        native = {row["end_layer"]: arrays[row["id_energies"]] for row in chosen if row["id_energies"]}
        if ends:
            by_suffix[f"{suffix}-energies".lstrip("-")] = histograms(
                {end: of(end, chosen, "front_layer") for end in ends},
                {end: of(end, [row for row in rows if row["kind"] == "sanity"], "data") for end in ends},
                native,
                heading,
            )
    return by_suffix


def histograms(
    panels: dict[str, dict[str, np.ndarray]],
    sanity: dict[str, dict[str, np.ndarray]],
    native: dict[str, np.ndarray],
    title: str,
) -> Figure:
    """A panel per end layer: densities of the energies (n,) of its own representations, of stitched ones, of other sets.

    The vertical axis is made for the first two; what is narrower is cut off above.

    panels: end layer -> front layer -> energies; sanity: end layer -> data set -> energies; native: end layer -> energies of
    the in-distribution images. The colours of front layers run from dark, the first, to bright.
    """
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(max(7, 4.4 * across), 1.4 + 3.0 * down), layout="constrained")
    grid.head(figure, title)
    fronts = list(dict.fromkeys(front for stitched in panels.values() for front in stitched))
    colours = dict(zip(fronts, colormaps["viridis"](np.linspace(0, 0.9, len(fronts))), strict=True))
    lines: dict[str, Artist] = {}
    for number, (end, stitched) in enumerate(panels.items()):
        axes = figure.add_subplot(down, across, number + 1)
        curves = {f"from {front}": (values, {"color": colours[front]}) for front, values in stitched.items()}
        others = sanity.get(end, {})
        curves |= {
            name: (values, {"color": f"C{3 + number}", "linestyle": ":"})
            for number, (name, values) in enumerate(others.items())
        }
        low, high = np.percentile(np.concatenate([native[end], *(values for values, _ in curves.values())]), SHOWN)
        edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
        heights, _ = np.histogram(native[end], edges, density=True)
        lines.setdefault("its own", axes.stairs(heights, edges, fill=True, color="0.8"))
        highest = tallest = heights.max()
        for label, (values, style) in curves.items():
            heights, _ = np.histogram(values, edges, density=True)
            lines.setdefault(label, axes.stairs(heights, edges, linewidth=1.2, **style))
            highest = max(highest, heights.max())
            tallest = tallest if label in others else max(tallest, heights.max())
        axes.set(title=end, xlabel="energy", ylabel="density", ylim=(0, 1.1 * min(highest, 4 * tallest)))
        axes.title.set_fontsize(9)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=min(len(lines), 5), fontsize=8)
    return figure
