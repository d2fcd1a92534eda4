"""Nearest-category scores: beside their null rates, by distance, and against the level of a corruption."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter
from scipy.special import stdtrit

from lib.plots import style
from lib.plots.recorded import Recorded

NETWORKS = ((style.SKY, ""), (style.ORANGE, "//"))  # colours and hatches
NULLS: dict[str, tuple[str, Any, str]] = {
    "chance": (style.BLACK, ":", "one of the classes by chance"),
    "majority": (style.BLACK, "-.", "always the most frequent nearest class"),
    "independence": (style.BLACK, "--", "answers independent of the neighbours"),
}
FEW = 6  # corruptions that have a colour each; of more only the outermost are named
WILSON = "95 % intervals over images (Wilson's)"
PIXELS = 255  # of a distance of 1 between images in [0, 1], as the arrays of pixel space have it


def figures(run: Recorded) -> dict[str, Figure]:
    """Scores, scores by distance, scores over levels of corruptions, and distances to the boundary, where there are any."""
    models = run.names(dict.fromkeys(row["model"] for row in run.rows))
    rows = [{**row, "model": models[row["model"]]} for row in run.rows]
    seen = f"the nearest of {rows[0]['n_train']} training images of {rows[0]['train']}"
    title = f"{' and '.join(models.values())}: answers like {seen}"
    shown = [row for row in rows if not row["variant"]]
    whole, drawn = [row for row in shown if row["subset"] == "all"], {}
    if whole:
        fifths = [row for row in shown if row["subset"].startswith("quintile")]
        drawn = {"": scores(whole, title), "quintiles": quintiles(fifths, title)}
    cells = [row for row in rows if row["variant"] and row["subset"] == "all"]
    if cells:
        drawn["corruptions"] = levels(cells, title)
    measured_in = next((row["space"] for row in rows if row["subset"] == "radius"), None)
    if measured_in:
        unit = PIXELS if measured_in == "pixel" else 1
        drawn["radius"] = radii(run.arrays, list(models.values()), f"neighbours in {rows[0]['train']}", measured_in, unit)
    return drawn


def scores(rows: list[dict], title: str) -> Figure:
    """A bar per network for every pair of images and space, with Wilson's interval; lines for the three null rates."""
    places = list(dict.fromkeys((row["data"], row["split"], row["space"]) for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = style.figure(max(6.4, 1.5 * len(places) + 3), 4.8)
    axes = figure.add_subplot()
    width = 0.8 / len(models)
    for row in rows:
        which = models.index(row["model"])
        place = places.index((row["data"], row["split"], row["space"])) + (which - (len(models) - 1) / 2) * width
        error = [[row["ncg"] - row["ncg_low"]], [row["ncg_high"] - row["ncg"]]]
        colour, hatch = NETWORKS[which]
        axes.bar(place, row["ncg"], width * 0.92, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
        axes.errorbar(place, row["ncg"], error, ecolor=style.INK, capsize=3)
        axes.text(place, row["ncg_high"] + 0.015, f"{row['ncg']:.3f}", ha="center", va="bottom", fontsize=style.small() + 1)
        for null, (colour, dashes, _) in NULLS.items():
            axes.hlines(row[null], place - width * 0.46, place + width * 0.46, colour, dashes, linewidth=1.8)
    sizes = {(row["data"], row["split"], row["space"]): row["n"] for row in rows}
    axes.set_xticks(
        range(len(places)),
        [f"{data}:{split}\nn = {sizes[data, split, space]}, {space} space" for data, split, space in places],
    )
    axes.set(ylim=(0, 1.12), ylabel="share answered like the nearest training image")
    axes.set_yticks(np.linspace(0, 1, 11))
    handles: list[Artist | BarContainer] = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=f"{model}, {WILSON}")
        for model, (colour, hatch) in zip(models, NETWORKS, strict=False)
    ]
    style.key_below(figure, handles + _null_key(NULLS), most=2)
    style.title(figure, title)
    return figure


def _null_key(nulls: Mapping[str, tuple[str, Any, str]]) -> list[Artist | BarContainer]:
    return [
        Line2D([], [], color=colour, linestyle=dashes, label=f"{null}: {meaning}")
        for null, (colour, dashes, meaning) in nulls.items()
    ]


def quintiles(rows: list[dict], title: str) -> Figure:
    """The score against the mean distance of each fifth of the images, a panel per space, with Wilson's intervals."""
    spaces = list(dict.fromkeys(row["space"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, panels = style.panels(len(spaces), (5.2, 3.6), least=3.0, extra=1.2)
    lines = {key: style.line(number) for number, key in enumerate(dict.fromkeys(map(_of_line, rows)))}
    for axes, space in zip(panels, spaces, strict=True):
        for key, drawn in lines.items():
            bins = [row for row in rows if row["space"] == space and _of_line(row) == key and row["n"]]
            score = np.array([row["ncg"] for row in bins])
            error = np.abs(np.array([[row["ncg_low"], row["ncg_high"]] for row in bins]).T - score)
            axes.errorbar([row["mean_distance"] for row in bins], score, error, capsize=3, **drawn)
        unit = "images in [0, 1]" if space == "pixel" else "features as they are"
        axes.set(ylim=(0, 1.05), xlabel=f"mean Euclidean distance of a fifth, {space} space ({unit})")
    handles = [
        Line2D([], [], label=f"{data}:{split}" + (f", {model}" if len(models) > 1 else ""), **drawn)
        for (model, data, split), drawn in lines.items()
    ]
    style.key_below(figure, handles, title=f"fifths of the images by distance, {WILSON}")
    panels[0].set_ylabel("share answered like the nearest")
    style.title(figure, title)
    return figure


def _of_line(row: dict) -> tuple[str, str, str]:
    return row["model"], row["data"], row["split"]


def levels(rows: list[dict], title: str) -> Figure:
    """Score against the level: a panel per network and space, and one of the accuracy, if it is known.

    Up to FEW corruptions have a colour each, and Wilson's intervals. Of more every one is a grey line; those that score
    highest and lowest at the highest level are named, and black is the mean over all, with Student's interval over them.
    """
    spaces, models = ([*dict.fromkeys(row[column] for row in rows)] for column in ("space", "model"))
    measures = [(space, "ncg", f"score, {space} space") for space in spaces]
    if any(row["accuracy"] is not None for row in rows):
        measures.append((spaces[0], "accuracy", "accuracy"))
    several = len({row["data"] for row in rows}) > 1
    figure, panels = style.panels(len(models) * len(measures), (4.4, 3.4), most=len(measures), least=2.2, extra=1.4)
    places = [(model, *measure) for model in models for measure in measures]
    key: dict[str, Artist | BarContainer] = {}
    for axes, (model, space, measure, label) in zip(panels, places, strict=True):
        lines: dict[str, list[tuple[int, dict]]] = {}
        for row in rows:
            if (row["model"], row["space"]) == (model, space) and row[measure] is not None:
                kind, _, level = row["variant"].rpartition("-")
                lines.setdefault(f"{row['data']}, {kind}" if several else kind, []).append((int(level), row))
        lines = {name: sorted(members, key=lambda member: member[0]) for name, members in lines.items()}
        key |= (_each if len(lines) <= FEW else _together)(axes, lines, measure)
        if measure == "ncg":
            key |= _nulls(axes, lines)
        axes.set(ylim=(0, 1.05), xlabel="level of the corruption", ylabel=label, xticks=range(1, 6))
        axes.set_xlim(0.8, 5.3 if len(lines) <= FEW else 7.2)  # room for names at the ends of lines
        if len(models) > 1:
            axes.set_title(model)
    style.key_below(figure, list(key.values()), most=3)
    style.title(figure, title)
    return figure


def _each(axes: Axes, lines: dict[str, list[tuple[int, dict]]], measure: str) -> dict[str, Artist | BarContainer]:
    """A line per corruption, with intervals of the score."""
    key: dict[str, Artist | BarContainer] = {}
    for number, (name, members) in enumerate(lines.items()):
        values = np.array([row[measure] for _, row in members])
        around = None
        if measure == "ncg":
            around = np.abs(np.array([[row["ncg_low"], row["ncg_high"]] for _, row in members]).T - values)
        axes.errorbar([level for level, _ in members], values, around, capsize=2, markersize=4, **style.line(number))
        key[name] = Line2D([], [], label=name, **style.line(number))
    if measure == "ncg":
        key["intervals"] = Line2D([], [], color=style.INK, marker="|", linestyle="", label=WILSON)
    return key


def _together(axes: Axes, lines: dict[str, list[tuple[int, dict]]], measure: str) -> dict[str, Artist | BarContainer]:
    """Grey lines, names at the ends of the outermost, and the mean over corruptions of every level that all have."""
    last = {name: members[-1][1][measure] for name, members in lines.items()}
    order = sorted(last, key=lambda name: last[name])
    named = [*order[:2], *order[-2:]]
    for name, members in lines.items():
        bold = name in named
        axes.plot(
            [level for level, _ in members],
            [row[measure] for _, row in members],
            color="0.35" if bold else "0.7",
            linewidth=1.1 if bold else 0.6,
            zorder=2 if bold else 1,
        )
    bottom = -np.inf
    for name in named:  # names that would lie on one another move up
        height = max(last[name], bottom + 0.055)
        axes.text(lines[name][-1][0] + 0.15, height, name, fontsize=style.small(), va="center")
        bottom = height
    shared = sorted(set.intersection(*({level for level, _ in members} for members in lines.values())))
    cells = [[row[measure] for members in lines.values() for at, row in members if at == level] for level in shared]
    reach = stdtrit(len(lines) - 1, 0.975) * np.std(cells, 1, ddof=1) / len(lines) ** 0.5
    axes.errorbar(shared, np.mean(cells, 1), reach, color="black", marker="o", linewidth=2, capsize=3, zorder=3)
    what = f"mean of {len(lines)} corruptions, 95 % interval over them (Student's)"
    return {
        "each": Line2D([], [], color="0.7", label="each corruption; named: the highest and lowest"),
        "mean": Line2D([], [], color="black", marker="o", linewidth=2, label=what),
    }


def _nulls(axes: Axes, lines: dict[str, list[tuple[int, dict]]]) -> dict[str, Artist | BarContainer]:
    """The null rates at every level, the mean over corruptions."""
    found = sorted({level for members in lines.values() for level, _ in members})
    for null, (colour, dashes, _) in NULLS.items():
        rates = [np.mean([row[null] for members in lines.values() for at, row in members if at == level]) for level in found]
        axes.plot(found, rates, color=colour, linestyle=dashes, linewidth=1.2)
    return {str(handle.get_label()): handle for handle in _null_key(NULLS)}


def radii(arrays: Mapping[str, np.ndarray], models: list[str], title: str, space: str, unit: float) -> Figure:
    """Histograms on a logarithmic axis: distances of images to the training set, and radii at them and their neighbours.

    A row per set of images, a panel per network. Radii that no attack could find are lower bounds and left out.
    """
    keys = [
        name.removeprefix("radius_at_images_")
        for name in arrays
        if name.startswith("radius_at_images_") and not name.endswith("_against")
    ]
    label_of = {"pixel": "images in [0, 1]", "feature": "features as they are"}
    figure, panels = style.panels(len(keys) * len(models), (5.4, 3.6), most=len(models), least=3.0)
    for number, axes in enumerate(panels):
        key, which = keys[number // len(models)], number % len(models)
        suffix = "_against" * which
        shown = {"distance of the images to the training set": np.sqrt(arrays[f"squared_distances_{space}_{key}"]) / unit}
        for at in ("neighbours", "images"):
            succeeded = arrays[f"found_at_{at}_{key}{suffix}"]
            shown[f"radius at {'their neighbours' if at == 'neighbours' else 'the images'}"] = arrays[
                f"radius_at_{at}_{key}{suffix}"
            ][succeeded]
        whole = np.concatenate(list(shown.values()))
        whole = whole[whole > 0]
        bins = np.geomspace(whole.min(), whole.max() * 1.001, 40) if len(whole) else np.arange(11)
        colours = (("0.6", "-"), (style.VERMILION, "--"), (style.BLUE, "-"))
        for (label, values), (colour, dashes) in zip(shown.items(), colours, strict=True):
            if len(values):
                axes.hist(
                    values,
                    bins.tolist(),
                    weights=np.full(len(values), 1 / len(values)),
                    histtype="stepfilled",
                    facecolor=(colour, 0.35),
                    edgecolor=colour,
                    linestyle=dashes,
                    label=f"{label}, mean {values.mean():.2f}",
                )
        axes.set(xscale="log", xlabel=f"Euclidean distance, {label_of[space]}", title=f"{key}: {models[which]}")
        for axis_ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            axis_ticks(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))  # powers are formulas elsewhere
        axes.set_ylim(top=1.45 * axes.get_ylim()[1])  # room for the legend
        axes.legend(loc="upper left")
        axes.set_ylabel("share of the images")
    style.title(figure, title)
    return figure
