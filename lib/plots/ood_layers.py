"""Layers as detectors, in the style of the OOD-layers paper: bars, signs, corruptions, exits."""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lib.datasets.names import parse
from lib.plots import style
from lib.plots.recorded import Recorded

ALPHA = 0.05  # a layer is above or below the final one where Holm's adjusted p is less
ABOVE, SAME, BELOW, FINAL = style.BLUE, "0.8", style.ORANGE, "black"
BARS = 60  # more layers than so many are points
SEPARATE = 6  # more sets than so many are drawn together where they are corruptions of one set
FACTS = ("ood", "ood_split", "variant")  # what tells the outlier sets of rows apart


def figures(run: Recorded) -> dict[str, Figure]:
    """Bars for each OOD set, a map for each corrupted set, the signs of several sets, and the exits, by suffix."""
    drawn: dict[str, Figure] = {}
    rows, first = run.rows, run.rows[0]
    network, inside = run.name(run.config["model_path"]), _images(first, "id", "id_split", "")
    energy = [row for row in rows if row["score"] == "energy" and row.get("index") is not None and not row.get("members")]
    sets = _sets(run, energy)
    temperatures = list(dict.fromkeys(row["T"] for row in energy))
    final = max(energy, key=lambda row: row["execution_index"])["layer"]
    scores = [row for row in rows if _is_score(row)]
    plain = {other: key for other, key in sets.items() if key["corruption"] is None}
    for other, key in plain.items():
        title = f"{network}: {inside} (n = {first['n_id']}) against {_images(key, *FACTS)} (n = {key['n_ood']})"
        drawn[suffix(other) if len(sets) > 1 else ""] = layer_bars(
            {at: [row for row in energy if _about(key, row) and row["T"] == at] for at in temperatures},
            {at: [row for row in scores if _about(key, row) and row["T"] in (at, None)] for at in temperatures},
            final,
            title,
        )
    itself = (first["id"], first["id_split"])  # a set has no sign against itself
    signed = {other: key for other, key in plain.items() if (key["ood"], key["ood_split"]) != itself}
    for number, at in enumerate(temperatures):
        of_temperature, behind = [row for row in energy if row["T"] == at], f"-T{at:g}" if number else ""
        layers = list(dict.fromkeys(row["layer"] for row in of_temperature))
        if len(signed) > 1:
            table = [[row for row in of_temperature if _about(key, row)] for key in signed.values()]
            auroc, certain = (
                np.array([[row[measure] for row in part] for part in table]).T for measure in ("auroc", "sign_certain")
            )
            title = f"{network}: sign of every layer's energy (T = {at:g}) on outliers of {inside}"
            drawn[f"signs{behind}"] = sign_table(layers, [short(other) for other in signed], auroc, certain, title)
        for name in dict.fromkeys(key["ood"] for key in sets.values() if key["corruption"] is not None):
            about = f"{network}: energy (T = {at:g}) of {inside} against {name}"
            drawn[suffix(name) + behind] = _map([row for row in of_temperature if row["ood"] == name], layers, about)
    if "exit_layers" in run.arrays:
        outside = {other: run.arrays[f"exits_{other}"] for other in sets}
        leaving = next(row for row in reversed(rows) if row["score"] == "early exit")
        title = (
            f"{network}: where images of {inside} and outliers leave; false alarms calibrated to "
            f"{leaving['alpha']:g}, measured {leaving['false_alarms']:.3f}"
        )
        names = [str(name) for name in run.arrays["exit_layers"]]
        drawn["exits"] = exits(names, run.arrays["exits_id"], outside, sets, title)
    return drawn


def layer_bars(layers: dict[float, list[dict]], scores: dict[float, list[dict]], final: str, title: str) -> Figure:
    """A panel per temperature: a bar per layer over [0, 1] with its 95 % interval, a point where there are many layers.

    Blue where a layer is above the final one, orange where it is below, by Holm's p; light grey where that is not told. A
    value below 0.5 is drawn as it is: the layer's energy is lower for outliers. Behind the layers are the other scores,
    white, with a dashed edge where the labels of the test outliers were used.

    layers  temperature -> rows with `layer`, `auroc`, `ci_low`, `ci_high`, `vs_final`, `p_holm`
    scores  temperature -> rows with `score`, `layer`, `auroc`, `ci_low`, `ci_high`
    """
    first = next(iter(layers))
    others = list(dict.fromkeys(_label(row) for of_temperature in scores.values() for row in of_temperature))
    names = [row["layer"] for row in layers[first]] + others
    everywhere = np.arange(len(names)) + np.repeat([0, 0.8], [len(layers[first]), len(others)])
    many = len(names) > BARS
    width = min(max(6.4, (0.26 if not many else 0.11) * len(names) + 2), 17)
    figure = style.figure(width, (3.4 if len(layers) == 1 else 2.4) * len(layers) + 2.0, 1.4 * len(layers) + 1.1)
    panels = figure.subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
    seen: set[str] = set()
    inches = 0.9 * figure.get_figwidth()
    for axes, (temperature, rows) in zip(panels, layers.items(), strict=True):
        both = [*rows, *scores[temperature]]
        stands = [*range(len(rows)), *(len(rows) + others.index(_label(row)) for row in scores[temperature])]
        places = everywhere[stands]
        values = np.array([row["auroc"] for row in both])
        reference = next(row["auroc"] for row in rows if row["layer"] == final)
        kinds = [_compared(row, final) for row in rows]
        kinds += ["bound" if row["score"] == "oracle" else "score" for row in scores[temperature]]
        seen |= set(kinds)
        (_draw_points if many else _draw_bars)(axes, places, values, kinds, _around(both))
        if not many and 72 * inches / (everywhere[-1] + 1.4) > style.small() + 1:
            _write_values(axes, places, values, kinds)
        axes.axhline(reference, color="black", linestyle=(0, (4, 3)), linewidth=0.9, zorder=0.5)
        axes.axhline(0.5, color=style.GREY, linestyle=":", linewidth=1.2, zorder=0.5)
        axes.set(ylim=(0, 1.05), xlim=(-0.7, everywhere[-1] + 0.7), ylabel=f"AUROC of the energy\n(T = {temperature:g})")
        axes.set_yticks(np.linspace(0, 1, 6))
    style.name_x(panels[-1], names, inches, everywhere)
    style.key_below(figure, _key(seen, final, many), most=3)
    style.title(figure, title)
    return figure


def _compared(row: dict, final: str) -> str:
    if row["layer"] == final:
        return "final"
    if row.get("p_holm") is None or row["p_holm"] >= ALPHA:
        return "same"
    return "above" if row["vs_final"] > 0 else "below"


COLOURS = {"above": ABOVE, "same": SAME, "below": BELOW, "final": FINAL, "score": "white", "bound": "white"}
POINTS = {"above": "^", "same": "o", "below": "v", "final": "s", "score": "D", "bound": "P"}


def _around(rows: list[dict]) -> np.ndarray:
    """How far intervals reach below and above (2, n); 0 where there is none."""
    values = np.array([row["auroc"] for row in rows])
    low, high = (np.array([row[end] for row in rows], dtype=float) for end in ("ci_low", "ci_high"))
    return np.nan_to_num(np.maximum([values - low, high - values], 0))


def _draw_bars(axes: Axes, places: np.ndarray, values: np.ndarray, kinds: list[str], around: np.ndarray) -> None:
    edges = [style.INK if kind in ("score", "bound", "same") else COLOURS[kind] for kind in kinds]
    colours = [COLOURS[kind] for kind in kinds]
    bars = axes.bar(places, values, 0.74, color=colours, edgecolor=edges, linewidth=0.6)
    for bar, kind in zip(bars, kinds, strict=True):
        bar.set(gid=kind, linestyle="--" if kind == "bound" else "-")
    room = 72 * 0.9 * style.inches(axes) / len(places)  # points for each
    drawn: dict[str, Any] = {"elinewidth": 0.9, "capsize": 1.5} if room > 8 else {"elinewidth": 0.5, "capsize": 0}
    axes.errorbar(places, values, around, fmt="none", ecolor="0.35", **drawn)


def _draw_points(axes: Axes, places: np.ndarray, values: np.ndarray, kinds: list[str], around: np.ndarray) -> None:
    for kind in dict.fromkeys(kinds):
        chosen = np.array([other == kind for other in kinds])
        axes.errorbar(
            places[chosen],
            values[chosen],
            around[:, chosen],
            fmt=POINTS[kind],
            color=COLOURS[kind],
            markeredgecolor=style.INK,
            markeredgewidth=0.4,
            markersize=4,
            ecolor=style.GREY,
            elinewidth=0.6,
            gid=kind,
        )


def _write_values(axes: Axes, places: np.ndarray, values: np.ndarray, kinds: list[str]) -> None:
    """Every value at the foot of its bar, where no line passes; above a bar that is too low for it."""
    for place, value, kind in zip(places, values, kinds, strict=True):
        inside = value > 0.2
        colour = "white" if inside and kind in ("above", "final") else "black"
        letters: dict[str, Any] = {"rotation": 90, "fontsize": style.small(), "ha": "center", "va": "bottom"}
        if not inside:
            letters["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
        axes.text(place, 0.02 if inside else value + 0.06, f"{value:.2f}", color=colour, **letters)


def _key(seen: set[str], final: str, many: bool) -> list[Artist]:
    words = {
        "above": f"above the final layer (Holm's p < {ALPHA:g})",
        "below": f"below the final layer (Holm's p < {ALPHA:g})",
        "same": "not told from the final layer",
        "final": f"final layer, {final}",
        "score": "other scores",
        "bound": "by the test labels: an upper bound",
    }
    key: list[Artist] = []
    for kind, label in words.items():
        if kind in seen and many:
            drawn: dict[str, Any] = {"marker": POINTS[kind], "color": COLOURS[kind], "markeredgecolor": style.INK}
            key.append(Line2D([], [], linestyle="", label=label, **drawn))
        elif kind in seen:
            dashes = "--" if kind == "bound" else "-"
            key.append(Patch(facecolor=COLOURS[kind], edgecolor=style.INK, linewidth=0.6, linestyle=dashes, label=label))
    key.append(Line2D([], [], color="black", linestyle=(0, (4, 3)), linewidth=0.9, label="AUROC of the final layer"))
    key.append(Line2D([], [], color=style.GREY, linestyle=":", label="chance; below: outliers have lower energy"))
    key.append(Line2D([], [], color="0.35", marker="|", markersize=9, linestyle="", label="95 % intervals over images"))
    return key


def sign_table(layers: list[str], outliers: list[str], auroc: np.ndarray, certain: np.ndarray, title: str) -> Figure:
    """Raw AUROCs (L, sets) as colours about 0.5, which says where a layer's energy is lower for outliers.

    Plus and minus where the 95 % interval leaves out 0.5 (`certain`); elsewhere there is no sign to speak of.
    """
    figure = style.figure(max(5, 0.55 * len(outliers) + 4), max(3.9, 0.17 * len(layers) + 2.3))
    axes = figure.add_subplot()
    drawn = axes.imshow(auroc, cmap=style.DIVERGING, vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(certain), strict=True):
        sign = "+" if auroc[row, column] > 0.5 else "\u2212"
        colour = style.on(drawn, auroc[row, column])
        axes.text(column, row, sign, ha="center", va="center_baseline", fontsize=style.small(), color=colour)
    style.name_x(axes, outliers, 0.6 * figure.get_figwidth())
    style.name_y(axes, layers, 0.7 * figure.get_figheight())
    axes.set(xlabel="outliers", ylabel="layer, in order of execution")
    figure.colorbar(drawn, ax=axes, label="AUROC (0.5 is chance)")
    style.title(figure, title, "+ energy higher for outliers, \u2212 lower; no sign: the 95 % interval holds 0.5")
    return figure


def _map(rows: list[dict], layers: list[str], title: str) -> Figure:
    kinds, severities = list(dict.fromkeys(row["corruption"] for row in rows)), sorted({row["severity"] for row in rows})
    values = {(row["layer"], row["corruption"], row["severity"]): row for row in rows}

    def grid(measure: str) -> np.ndarray:
        return np.array(
            [
                [[values.get((layer, kind, severity), {}).get(measure, np.nan) for severity in severities] for kind in kinds]
                for layer in layers
            ],
            dtype=float,
        )

    return corruption_map(layers, kinds, severities, grid("auroc"), grid("auroc_two_sided"), title)


def corruption_map(
    layers: list[str], kinds: list[str], severities: list[int], auroc: np.ndarray, two_sided: np.ndarray, title: str
) -> Figure:
    """AUROCs (L, kinds, severities) of every layer under every corruption, and the two-sided ones' mean over corruptions.

    The mean of raw AUROCs would hide that corruptions have opposite signs. NaN where a corruption was not looked at in
    that severity: it is grey, and the means are over the corruptions that were looked at in every severity.
    """
    wide = len(kinds) * len(severities)
    every = ~np.isnan(two_sided).any(axis=(0, 2))
    figure = style.figure(max(6.5, 0.095 * wide + 5.5), max(3.9, 0.17 * len(layers) + 2.6))
    if every.any():
        left, right = figure.subplots(1, 2, width_ratios=(max(wide / 12, 2), 2), sharey=True)
    else:
        left, right = figure.subplots(), None
    cells = auroc.reshape(len(layers), wide)
    drawn = left.imshow(cells, cmap=style.DIVERGING, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for place in range(1, len(kinds)):
        left.axvline(place * len(severities) - 0.5, color="white", linewidth=1)
    left.set_xticks((np.arange(len(kinds)) + 0.5) * len(severities) - 0.5, kinds, rotation=90)
    style.name_y(left, layers, 0.65 * figure.get_figheight())
    left.set_xlabel("corruption")
    places = np.arange(len(layers))
    if right is not None:
        for number, severity in enumerate(severities):
            mean = two_sided[:, every, number].mean(1)
            right.plot(mean, places, markersize=3, label=f"severity {severity}", **style.line(number))
        right.axvline(0.5, color=style.GREY, linewidth=1.2, linestyle=":", label="chance")
        some = f"mean over {every.sum()} corruption{'s' if every.sum() > 1 else ''}"
        some += "" if every.all() else "\nthat have every severity"
        right.set(xlabel=f"two-sided AUROC,\n{some}", xlim=(0, 1))
        right.legend(loc="best")
    figure.colorbar(drawn, ax=left, label="AUROC (red: outliers have the higher energy)", location="left", pad=0.02)
    style.key_below(figure, style.missing_key(left, cells))
    columns = "columns of a corruption: severity" if len(severities) > 1 else "severity"
    style.title(figure, f"{title}; {columns} {', '.join(map(str, severities))}")
    return figure


def exits(
    layers: list[str], inside: np.ndarray, outside: dict[str, np.ndarray], sets: dict[str, dict], title: str
) -> Figure:
    """The histogram of the exits (n,) at which images left, len(layers) where they did not."""

    def shares(parts: list[np.ndarray]) -> np.ndarray:
        left = np.concatenate(parts)
        return np.bincount(left, minlength=len(layers) + 1) / len(left)

    together: dict[str, list[np.ndarray]] = {}
    for other, left in outside.items():
        corrupted = len(outside) > SEPARATE and sets[other]["corruption"] is not None
        together.setdefault(
            f"{sets[other]['ood']}, severity {sets[other]['severity']}" if corrupted else short(other), []
        ).append(left)
    return exit_histogram(layers, shares([inside]), {name: shares(parts) for name, parts in together.items()}, title)


HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "++", "oo")


def exit_histogram(names: list[str], inside: np.ndarray, outside: dict[str, np.ndarray], title: str) -> Figure:
    """The share of images (K + 1,) that leave at each exit, the last share those that are taken for in-distribution."""
    shares = {"in-distribution": inside, **outside}
    figure = style.figure(max(6, 0.55 * (len(names) + 1) + 1.5), 4 + 0.1 * len(shares))
    axes = figure.add_subplot()
    width, places = 0.8 / len(shares), np.arange(len(names) + 1)
    colours = ("0.6", *style.COLOURS)
    for number, (name, values) in enumerate(shares.items()):
        colour, hatch = colours[number % len(colours)], HATCHES[number % len(HATCHES)]
        at = places + (number + 0.5) * width - 0.4
        axes.bar(at, values, width, label=name, facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0)
    style.name_x(axes, [*names, "not flagged"], 0.88 * figure.get_figwidth())
    axes.set(xlabel="exit at which an image is flagged as an outlier", ylabel="share of the images", ylim=(0, 1.02))
    style.key_below(figure, axes.get_legend_handles_labels()[0], most=3)
    style.title(figure, title)
    return figure


def suffix(name: str) -> str:
    """A data set's name as part of a file's name."""
    last = short(name) if "=" in name else name  # of a path only its end
    return "".join(letter if letter.isalnum() else "-" for letter in last).strip("-")


def short(name: str) -> str:
    """A data set's name in a figure: of a path its last part."""
    return parse(name).label if "=" in name else name


def _sets(run: Recorded, energy: list[dict]) -> dict[str, dict]:
    """The outlier sets as they were asked for -> what their rows say of them."""
    found: dict[tuple, dict] = {}
    for row in energy:
        found.setdefault(tuple(row[name] for name in FACTS), row)
    # energies of every set are in the arrays under its name, those of the in-distribution images first
    named = [name.removeprefix("energies_") for name in run.arrays if name.startswith("energies_")]
    asked = [name for name in named if name not in ("fit", "id", "jigsaw") and not name.startswith("validation ")]
    if len(asked) != len(found):
        asked = [_images(row, *FACTS) for row in found.values()]
    return dict(zip(asked, found.values(), strict=True))


def _images(row: dict, name: str, split: str, variant: str) -> str:
    """Images in a title: `cifar10-c:test (fog-3)`."""
    return f"{short(str(row[name]))}:{row[split]}" + (f" ({row[variant]})" if variant and row.get(variant) else "")


def _about(key: dict, row: dict) -> bool:
    return all(row.get(name) == key[name] for name in FACTS)


def _is_score(row: dict) -> bool:
    """Whether a row is of a score other than a layer's energy, of all test images and a fixed way."""
    return row.get("index") is None and row["score"] != "early exit" and "chosen_on" not in row


def _label(row: dict) -> str:
    """A score's name beneath its bar."""
    return "oracle layer" if row["score"] == "oracle" else row["score"].replace(", chosen by", " by")
