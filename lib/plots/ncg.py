"""Nearest-category scores: beside their null rates, by distance, and against the level of a corruption."""

from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

NETWORKS = ("#2a5f9e", "#e08a1e")
NULLS: dict[str, tuple[str, Literal[":", "-", "--"]]] = {
    "chance": ("0.55", ":"),
    "majority": ("#b22222", "-"),
    "independence": ("#2a7f3f", "--"),
}


def scores(rows: list[dict], title: str) -> Figure:
    """A bar per network for every pair of images and space, with Wilson's interval; lines for the three null rates."""
    places = list(dict.fromkeys((row["data"], row["split"], row["space"]) for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(max(6.4, 1.5 * len(places) + 3), 4.8), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(models)
    for row in rows:
        which = models.index(row["model"])
        place = places.index((row["data"], row["split"], row["space"])) + (which - (len(models) - 1) / 2) * width
        error = [[row["ncg"] - row["ncg_low"]], [row["ncg_high"] - row["ncg"]]]
        axes.bar(place, row["ncg"], width * 0.92, color=NETWORKS[which], yerr=error, ecolor="0.2", capsize=3)
        axes.text(place, row["ncg_high"] + 0.015, f"{row['ncg']:.3f}", ha="center", va="bottom", fontsize=8)
        for null, (colour, style) in NULLS.items():
            axes.hlines(row[null], place - width * 0.46, place + width * 0.46, colour, style, linewidth=1.8)
    axes.set_xticks(range(len(places)), [f"{data}:{split}\n{space}" for data, split, space in places], fontsize=8)
    axes.set(ylim=(0, 1.12), ylabel="share answered like the nearest training example", title=title)
    axes.set_yticks(np.linspace(0, 1, 11))
    handles: list[Artist | BarContainer] = [
        axes.bar(0, 0, color=NETWORKS[which], label=model) for which, model in enumerate(models)
    ]
    handles += [axes.plot([], [], color=colour, linestyle=style, label=null)[0] for null, (colour, style) in NULLS.items()]
    figure.legend(handles=handles, fontsize=8, loc="outside lower center", ncols=3)
    return figure


def quintiles(rows: list[dict], title: str) -> Figure:
    """The score against the mean distance of each fifth of the images, a panel per space, with Wilson's intervals."""
    spaces = list(dict.fromkeys(row["space"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(5.2 * len(spaces) + 1, 4.4), layout="constrained")
    for axes, space in zip(figure.subplots(1, len(spaces), squeeze=False)[0], spaces, strict=True):
        lines = dict.fromkeys((row["model"], row["data"], row["split"]) for row in rows if row["space"] == space)
        for number, key in enumerate(lines):
            bins = [
                row
                for row in rows
                if row["space"] == space and (row["model"], row["data"], row["split"]) == key and row["n"]
            ]
            score = np.array([row["ncg"] for row in bins])
            error = np.abs(np.array([[row["ncg_low"], row["ncg_high"]] for row in bins]).T - score)
            axes.errorbar(
                [row["mean_distance"] for row in bins],
                score,
                error,
                color=NETWORKS[models.index(key[0])],
                marker="osD^v"[number % 5],
                linestyle="--" if key[2] == "test" else "-",
                capsize=3,
                label=f"{key[1]}:{key[2]}" + (f", {key[0]}" if len(models) > 1 else ""),
            )
        axes.set(ylim=(0, 1.05), xlabel=f"mean distance of the quintile, {space} space")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=2)
    figure.axes[0].set_ylabel("share answered like the nearest example")
    figure.suptitle(title, fontsize=10)
    return figure


def levels(rows: list[dict], title: str) -> Figure:
    """Score against the level, a line per corruption and a panel per space; and the accuracy, if it is known.

    Lines of a second network are dashed.
    """
    spaces, models = ([*dict.fromkeys(row[column] for row in rows)] for column in ("space", "model"))
    lines: dict[tuple[str, str], dict[str, list[tuple[int, dict]]]] = {}
    for row in rows:
        kind, _, level = row["variant"].rpartition("-")
        lines.setdefault((row["data"], kind), {}).setdefault(row["model"], []).append((int(level), row))
    several = len({data for data, _ in lines}) > 1
    panels = [(space, "ncg", f"score, {space} space") for space in spaces]
    if any(row["accuracy"] is not None for row in rows):
        panels.append((spaces[0], "accuracy", "accuracy"))
    figure = Figure(figsize=(4.2 * len(panels) + 2, 4.4), layout="constrained")
    colours = colormaps["tab20"]
    for axes, (space, measure, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, ((data, kind), by_model) in enumerate(lines.items()):
            name = f"{data}, {kind}" if several else kind
            for model, members in by_model.items():
                points = sorted((level, row[measure]) for level, row in members if row["space"] == space)
                style = {"linestyle": "-", "label": name} if model == models[0] else {"linestyle": "--"}
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colours(number % 20), **style)
        axes.set(ylim=(0, 1.05), xlabel="level", ylabel=label, xticks=range(1, 6))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right upper")
    figure.suptitle("\n".join([title, *(f"dashed: {model}" for model in models[1:])]), fontsize=10)
    return figure


def radii(arrays: dict[str, np.ndarray], models: list[str], title: str, space: str, unit: float) -> Figure:
    """Histograms on a logarithmic axis: distances of images to the training set, and radii at them and their neighbours.

    A row per set of images, a panel per network. Radii that no attack could find are lower bounds and left out.
    """
    keys = [
        name.removeprefix("radius_at_images_")
        for name in arrays
        if name.startswith("radius_at_images_") and not name.endswith("_against")
    ]
    label_of = {"pixel": "images in [0, 1]", "feature": "features as they are"}
    figure = Figure(figsize=(5.4 * len(models), 3.6 * len(keys)), layout="constrained")
    panels = figure.subplots(len(keys), len(models), squeeze=False)
    for key, row in zip(keys, panels, strict=True):
        distances = np.sqrt(arrays[f"squared_distances_{space}_{key}"]) / unit
        for axes, model, suffix in zip(row, models, ("", "_against"), strict=False):
            shown = {"distance of the images to the training set": distances}
            for at in ("neighbours", "images"):
                succeeded = arrays[f"found_at_{at}_{key}{suffix}"]
                shown[f"radius at {'their neighbours' if at == 'neighbours' else 'the images'}"] = arrays[
                    f"radius_at_{at}_{key}{suffix}"
                ][succeeded]
            whole = np.concatenate(list(shown.values()))
            whole = whole[whole > 0]
            bins = np.geomspace(whole.min(), whole.max() * 1.001, 40) if len(whole) else 10
            for (label, values), colour in zip(shown.items(), ("0.5", "#b22222", "#2a5f9e"), strict=True):
                if len(values):
                    axes.hist(
                        values,
                        bins,
                        weights=np.full(len(values), 1 / len(values)),
                        color=colour,
                        alpha=0.6,
                        label=f"{label}, mean {values.mean():.2f}",
                    )
            axes.set(xscale="log", xlabel=f"Euclidean distance, {label_of[space]}", title=f"{key}: {model}")
            for axis_ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
                axis_ticks(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))  # powers are formulas elsewhere
            axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
            axes.legend(fontsize=7, loc="upper left")
        row[0].set_ylabel("share")
    figure.suptitle(f"neighbours in {title}", fontsize=10)
    return figure
