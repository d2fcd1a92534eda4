"""Figures of stitched representations under detectors: heat maps of a grid, histograms of the energies."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from lib.plots import grid, style
from lib.plots.recorded import Recorded

BINS = 50
SHOWN = (0.2, 99.8)  # percentiles between which a panel's axis runs


MEASURES = {
    "accuracy": "accuracy",
    "AUROC": "auroc",
    "two-sided AUROC": "auroc_two_sided",
    "AUPR": "aupr_in",
    "FPR at 95 % TPR": "fpr95",
}
GRID = ("front", "end", "method", "seed")


def figures(run: Recorded) -> dict[str, Figure]:
    """Those of every grid, behind its number where there are several."""
    grids: list[list[dict]] = []
    for row in run.rows:
        last = grids[-1][-1] if grids else {}
        if any(last.get(name) != row[name] for name in GRID) or (last["kind"], row["kind"]) == ("sanity", "stitched"):
            grids.append([])
        grids[-1].append(row)
    drawn = {}
    for number, rows in enumerate(grids):
        first = rows[0]
        networks = run.pair(first["front"], first["end"], "into")
        title = f"{networks} ({first['method']}): {first['n']} images of {first['data']}:{first['split']}"
        for name, figure in of_grid(rows, run.arrays, title).items():
            drawn["-".join(part for part in (str(number) * (len(grids) > 1), name) if part)] = figure
    return drawn


def of_grid(rows: list[dict], arrays: Mapping[str, np.ndarray], title: str) -> dict[str, Figure]:
    """By suffix, for each pair of ranks: the measures as heat maps, where there is more than a cell, and the histograms."""
    by_suffix = {}
    stitched = [row for row in rows if row["kind"] == "stitched"]
    layers = [list(dict.fromkeys(row[f"{side}_layer"] for row in stitched)) for side in ("front", "end")]
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
    the in-distribution images. The colours of front layers run from dark, the first, to bright; other sets are dotted.
    """
    figure, places = style.panels(len(panels), (4.4, 3.0), extra=1.4)
    fronts = list(dict.fromkeys(front for stitched in panels.values() for front in stitched))
    colours = dict(zip(fronts, colormaps[style.SEQUENTIAL](np.linspace(0, 0.9, len(fronts))), strict=True))
    lines: dict[str, Artist] = {}
    for axes, (end, stitched) in zip(places, panels.items(), strict=True):
        curves = {
            f"stitched from {front}": (values, {"color": colours[front], "linestyle": style.DASHES[place % 3]})
            for place, (front, values) in enumerate(stitched.items())
        }
        others = {f"{name}, not stitched": values for name, values in sanity.get(end, {}).items()}
        curves |= {
            name: (values, {"color": style.COLOURS[1 + number % 6], "linestyle": ":"})
            for number, (name, values) in enumerate(others.items())
        }
        low, high = np.percentile(np.concatenate([native[end], *(values for values, _ in curves.values())]), SHOWN)
        edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
        heights, _ = np.histogram(native[end], edges, density=True)
        lines.setdefault("the layer's own, in distribution", axes.stairs(heights, edges, fill=True, color="0.8"))
        highest = tallest = heights.max()
        for label, (values, style_) in curves.items():
            heights, _ = np.histogram(values, edges, density=True)
            lines.setdefault(label, axes.stairs(heights, edges, linewidth=1.2, **style_))
            highest = max(highest, heights.max())
            tallest = tallest if label in others else max(tallest, heights.max())
        axes.set(title=f"end layer {end}", xlabel="energy (higher: outlier)", ylim=(0, 1.1 * min(highest, 4 * tallest)))
        axes.set_ylabel("density")
    for label, artist in lines.items():
        artist.set_label(label)
    style.key_below(figure, list(lines.values()))
    style.title(figure, title)
    return figure
