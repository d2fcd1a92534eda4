"""Measures of every layer of a network, in the style of the OOD-layers paper."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Patch

ABOVE, BELOW, FINAL, SCORE, BOUND = "#2a7f3f", "#e08a1e", "#b22222", "#4a6fa5", "#ffffff"


def layer_bars(rows: list[dict], scores: list[dict], final: str, title: str) -> Figure:
    """A bar per layer over [0, 1]; green where it is above the final layer's, hatched where it is inverted.

    A value below 0.5 is drawn as it is: the layer's energy is lower for outliers. Behind the layers a bar for each other
    score; one that looked at the test outliers' labels is left white. Rows have `layer`, `auroc`, `ci_low` and `ci_high`,
    the scores' also `label` and `upper_bound`.
    """
    names = [row["layer"] for row in rows] + [row["label"] for row in scores]
    places = np.arange(len(names)) + np.repeat([0, 0.8], [len(rows), len(scores)])
    values = np.array([row["auroc"] for row in rows + scores])
    around = np.array(
        [
            [0, 0] if row["ci_low"] is None else [row["auroc"] - row["ci_low"], row["ci_high"] - row["auroc"]]
            for row in rows + scores
        ]
    ).T
    reference = next(row["auroc"] for row in rows if row["layer"] == final)
    colours = [FINAL if row["layer"] == final else ABOVE if row["auroc"] > reference else BELOW for row in rows]
    colours += [BOUND if row["upper_bound"] else SCORE for row in scores]
    figure = Figure(figsize=(max(6.4, 0.26 * len(names) + 2), 6.2 if scores else 5.4), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.bar(places, values, 0.7, color=colours, yerr=np.maximum(around, 0), ecolor="0.3", capsize=1.5)
    for bar, value, row in zip(bars, values, rows + scores, strict=True):
        if row.get("upper_bound"):
            bar.set_edgecolor("0.2")
            bar.set_linestyle("--")
        elif value < 0.5:
            bar.set_hatch("////")
            bar.set_edgecolor("white")
    for place, value, high in zip(places, values, around[1], strict=True):
        axes.text(place, value + high + 0.012, f"{value:.2f}", rotation=90, fontsize=7, ha="center", va="bottom")
    reference_line = axes.axhline(reference, color=FINAL, linestyle=":", label=f"final layer {final}: {reference:.3f}")
    chance = axes.axhline(0.5, color="0.5", linewidth=0.8, label="chance; hatched bars below it are inverted")
    handles: list[Artist] = [reference_line, chance]
    handles += [
        Patch(color=colour, label=f"layers {where} the final one")
        for colour, where in ((ABOVE, "above"), (BELOW, "below"))
        if colour in colours
    ]
    if scores:
        handles.append(Patch(color=SCORE, label="other scores"))
    if any(row["upper_bound"] for row in scores):
        handles.append(Patch(facecolor=BOUND, edgecolor="0.2", linestyle="--", label="by the test labels: upper bound"))
    axes.set(ylim=(0, 1.13), ylabel="AUROC, 95 % interval", title=title)
    axes.set_xlim(-0.7, places[-1] + 0.7)
    axes.set_xticks(places, names, rotation=90, fontsize=7)
    axes.set_yticks(np.linspace(0, 1, 11))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def sign_table(layers: list[str], outliers: list[str], auroc: np.ndarray, certain: np.ndarray, title: str) -> Figure:
    """Raw AUROCs (L, sets) as colours about 0.5, which says where a layer's energy is lower for outliers.

    A dot where the 95 % interval holds 0.5 (`certain` is false): there is no sign to speak of.
    """
    figure = Figure(figsize=(max(5, 0.55 * len(outliers) + 4), max(3.6, 0.17 * len(layers) + 2)), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(auroc, cmap="RdBu_r", vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(~certain), strict=True):
        axes.plot(column, row, "o", color="0.3", markersize=2.5)
    axes.set_xticks(range(len(outliers)), outliers, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.set_title(f"{title}\nred: higher energy for outliers; dot: no sign", fontsize=9)
    figure.colorbar(drawn, ax=axes, label="AUROC, not turned round")
    return figure


def corruption_map(
    layers: list[str], kinds: list[str], severities: list[int], auroc: np.ndarray, two_sided: np.ndarray, title: str
) -> Figure:
    """AUROCs (L, kinds, severities) of every layer under every corruption, and the two-sided ones' mean over corruptions.

    The mean of raw AUROCs would hide that corruptions have opposite signs. NaN where a corruption was not looked at in
    that severity: it is left white.
    """
    wide = len(kinds) * len(severities)
    figure = Figure(figsize=(max(6, 0.095 * wide + 5.5), max(3.4, 0.17 * len(layers) + 2.2)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(max(wide / 12, 2), 2), sharey=True)
    drawn = left.imshow(
        auroc.reshape(len(layers), wide), cmap="RdBu_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )
    for place in range(1, len(kinds)):
        left.axvline(place * len(severities) - 0.5, color="white", linewidth=1)
    left.set_xticks((np.arange(len(kinds)) + 0.5) * len(severities) - 0.5, kinds, rotation=40, ha="right", fontsize=7)
    left.set_yticks(range(len(layers)), layers, fontsize=7)
    columns = (
        f"in each column severity {severities[0]} to {severities[-1]}"
        if len(severities) > 1
        else f"severity {severities[0]}"
    )
    figure.suptitle(f"{title}; {columns}", fontsize=9)
    places = np.arange(len(layers))
    for number, severity in enumerate(severities):
        shade = 0.75 * (1 - (number + 1) / len(severities))
        right.plot(np.nanmean(two_sided[:, :, number], 1), places, color=str(shade), label=f"severity {severity}")
    right.axvline(0.5, color=FINAL, linewidth=0.8, linestyle=":")
    right.set(xlabel="mean two-sided AUROC", xlim=(0, 1))
    right.legend(fontsize=7)
    figure.colorbar(drawn, ax=left, label="AUROC", shrink=0.8, location="left", pad=0.02)
    return figure


def exit_histogram(exits: list[str], inside: np.ndarray, outside: dict[str, np.ndarray], title: str) -> Figure:
    """The share of images (K + 1,) that leave at each exit, the last share those that are taken for in-distribution."""
    shares = {"in-distribution": inside, **outside}
    figure = Figure(figsize=(max(6, 0.55 * (len(exits) + 1) + 1.5), 4 + 0.1 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    width, places = 0.8 / len(shares), np.arange(len(exits) + 1)
    colours = ["0.55", "#b22222", "#e08a1e", "#4a6fa5", "#2a7f3f", "#8c5fa8", "#3a3a3a"]
    for number, (name, values) in enumerate(shares.items()):
        axes.bar(places + (number + 0.5) * width - 0.4, values, width, label=name, color=colours[number % len(colours)])
    axes.set_xticks(places, [*exits, "not flagged"], rotation=40, ha="right", fontsize=8)
    axes.set(ylabel="share of images", ylim=(0, 1.02))
    axes.set_title(title, fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure
