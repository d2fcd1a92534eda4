"""Probes by layer, gains by shift, accuracy by share of images and by rank, and more: figures from a record's rows.

Bars are 95 % intervals of a mean: Student's over seeds where there are several, else over the images of the one seed, in
which the noise of training is not. Every figure says which.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lib.plots import style
from lib.plots.recorded import Recorded

BEST, BASE, NEUTRAL = style.BLUE, style.VERMILION, style.FAINT
MOST_LINES = 6
ONE_SEED = "without the noise of training"


def figures(run: Recorded) -> dict[str, Figure]:
    """The figures that the rows are enough for, by suffix; of the measure that rules chose by."""
    network = run.config["model_path"]
    classes = run.facts.get("classes") or run.networks.get(network, {}).get("classes")
    return of_rows(run.rows, run.name(network), 1 / classes if classes else None)


def of_rows(rows: list[dict], title: str, chance: float | None) -> dict[str, Figure]:
    """The figures of rows.

    title     what their titles begin with: the network
    chance    the accuracy of a guess, a line in figures of accuracies, if it is known
    """
    measure = next((row["group"] for row in rows if row["probe"] == "gain"), None) or (
        "worst" if any((row["group"] or "").startswith("worst") for row in rows) else "all"
    )
    shown = [row for row in rows if row["network"] == "trained" and (row["group"] or "").partition(":")[0] == measure]
    rules = [row["selected_by"] for row in shown if row["selected_by"] not in (None, "none")]
    rule = rules[0] if rules else "none"
    named = f"{rule}, an upper bound" if rule == "oracle" else rule
    probes = [row for row in shown if row["probe"] == "probe" and row["selected_by"] == rule]
    what = {"worst": "worst-group accuracy", "adjusted": "adjusted average accuracy"}.get(measure, "accuracy")
    drawn = {}
    shares = {row["fraction"] for row in probes}
    reducers = list(dict.fromkeys(row["reduce"] for row in probes))
    for reduce in reducers:
        plain = [row for row in probes if row["rank"] is None and row["reduce"] == reduce]
        if len({row["layer"] for row in plain}) < 2:
            continue
        heads = [row for row in shown if row["probe"] == "head"]
        most = max(shares, key=lambda share: share or 0)
        about = f" from {100 * most:g} % of the images" if most else ""
        about += f" by {reduce}" if len(reducers) > 1 else ""
        suffix = f"-{reduce.replace(':', '')}" if len(reducers) > 1 else ""
        plain = [row for row in plain if row["fraction"] == most]
        drawn[f"layers{suffix}"] = by_layer(plain, heads, f"{title}: probes{about}, settings by {named}", what, chance)
        if len({_shift(row) for row in plain}) > MOST_LINES:
            drawn[f"shifts{suffix}"] = by_shift(plain, heads, f"{title}: probes{about}, settings by {named}", what)
    gains = [row for row in shown if row["probe"] == "gain" and row["selected_by"] == rule]
    if len({_shift(row) for row in gains}) > 1:
        drawn["gains"] = gain_bars(gains, f"{title}: layer against the last one, chosen by {named}")
    if len({row["rank"] for row in probes}) > 1:
        drawn["ranks"] = by_number(probes, "rank", f"{title}: probes of limited rank", what, chance)
    chosen = [row for row in gains if row["fraction"] is not None]
    if len(shares) > 1 and chosen:
        drawn["fractions"] = by_number(chosen, "fraction", f"{title}: layer chosen by {named}", what, chance)
    moved = [row for row in rows if row["probe"] == "sensitivity" and row["network"] == "trained"]
    if moved:
        drawn["sensitivity"] = sensitivity_by_layer(moved, f"{title}: displacement of test from training images")
    collapsed = [row for row in rows if row["probe"] == "collapse" and row["network"] == "trained"]
    if len({row["layer"] for row in collapsed}) > 1:
        drawn["collapse"] = collapse_by_layer(collapsed, f"{title}: neural collapse by depth")
    return drawn


def collapse_by_layer(rows: list[dict], title: str) -> Figure:
    """NC1 over the layers: the network's training images, and each OOD set (many are grey, with their mean)."""
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    figure = style.figure(max(6, 0.42 * len(layers) + 2.5), 4.6)
    axes = figure.add_subplot()

    def values(some: list[dict]) -> list[float]:
        return [float(np.mean(_known([row for row in some if row["layer"] == layer], "nc1"))) for layer in layers]

    axes.plot(
        values([row for row in rows if row["split"] == "train"]),
        marker="x",
        markersize=4,
        color="black",
        label="training images",
    )
    tested = [row for row in rows if row["split"] != "train"]
    shifts = list(dict.fromkeys(_shift(row) for row in tested))
    for number, shift in enumerate(shifts):
        few = len(shifts) <= MOST_LINES
        axes.plot(
            values([row for row in tested if _shift(row) == shift]),
            markersize=4,
            linewidth=1.5 if few else 0.7,
            label=shift if few else f"each of {len(shifts)} OOD sets" if number == 0 else None,
            **(style.line(number) if few else {"color": NEUTRAL}),
        )
    if len(shifts) > MOST_LINES:
        axes.plot(values(tested), color=BEST, marker="o", linewidth=2, label="their mean")
    style.name_x(axes, layers, 0.88 * figure.get_figwidth())
    axes.set(ylabel="NC1: variance within classes / between them", xlabel="layer, in order of execution", yscale="log")
    axes.grid(alpha=0.3)
    style.key_below(figure, axes.get_legend_handles_labels()[0])
    style.title(figure, title)
    return figure


def sensitivity_by_layer(rows: list[dict], title: str) -> Figure:
    """S and TVD over the layers: a line per group, or per shift where there is one group; dashed is TVD's null."""
    figure, panels = style.panels(2, (5.5, 3.5), most=2, least=3.0, extra=1.1)
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    key = "group" if len(groups) > 1 else "variant"
    lines = list(dict.fromkeys(row[key] or row["data"] for row in rows))
    columns = (("s", "S (pairwise distances)"), ("tvd", "TVD, mean over units"))
    few = len(lines) <= MOST_LINES
    for axes, (column, label) in zip(panels, columns, strict=True):
        for number, line in enumerate(lines):
            of_line = [row for row in rows if (row[key] or row["data"]) == line]
            cells = [[row for row in of_line if row["layer"] == layer] for layer in layers]
            drawn = style.line(number, linestyle="-") if few else dict[str, Any](color=NEUTRAL, linewidth=0.7)
            name = line if few else f"each of {len(lines)} shifts" if number == 0 else None
            axes.plot([np.mean([row[column] for row in cell]) for cell in cells], markersize=4, label=name, **drawn)
            if column == "tvd":
                axes.plot(
                    [np.mean([row["tvd_null"] for row in cell]) for cell in cells],
                    linestyle="--",
                    color=drawn["color"],
                    linewidth=0.8,
                )
        axes.axhline(0, color="0.2", linewidth=0.8)
        style.name_x(axes, layers, 0.88 * figure.get_figwidth() / style.across(2, 3.0, 2))
        axes.set(ylabel=label, xlabel="layer, in order of execution")
        axes.grid(alpha=0.3)
    null = Line2D([], [], color=style.GREY, linestyle="--", linewidth=0.8, label="TVD without a shift")
    style.key_below(figure, [*panels[0].get_legend_handles_labels()[0], null])
    style.title(figure, title)
    return figure


def by_shift(rows: list[dict], heads: list[dict], title: str, what: str) -> Figure:
    """A cell per shift and layer: accuracy, give or take its 95 % interval; last the network's own head."""
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shifts = list(dict.fromkeys(_shift(row) for row in rows))
    columns = layers + (["head"] if heads else [])
    figure = style.figure(max(6, 0.75 * len(columns) + 3), 0.32 * len(shifts) + 2.4)
    axes = figure.add_subplot()

    def cell(shift: str, column: str) -> list[dict]:
        of_column = heads if column == "head" else [row for row in rows if row["layer"] == column]
        return [row for row in of_column if _shift(row) == shift]

    lines = [_means([cell(shift, column) for column in columns]) for shift in shifts]
    values = np.array([accuracies for accuracies, _ in lines])
    image = axes.imshow(100 * values, aspect="auto", cmap=style.SEQUENTIAL)
    wide = 72 * 0.65 * figure.get_figwidth() / len(columns)  # points of a cell
    for y, (accuracies, reaches) in enumerate(lines):
        for x, (accuracy, reach) in enumerate(zip(accuracies, reaches, strict=True)):
            told = f"{100 * accuracy:.1f}" + (f" \u00b1 {100 * reach:.1f}" if wide > 6.5 * style.small() else "")
            if np.isfinite(accuracy) and wide > 2.6 * style.small():
                colour = style.on(image, 100 * accuracy)
                axes.text(x, y, told, ha="center", va="center", fontsize=style.small(), color=colour)
    style.name_x(axes, columns, 0.65 * figure.get_figwidth())
    style.name_y(axes, shifts, 0.75 * figure.get_figheight())
    bars = over(rows)
    axes.set(xlabel="layer, in order of execution" + (f"\n\u00b1: {bars}" if bars and wide > 6.5 * style.small() else ""))
    figure.colorbar(image, label=f"{what}, in %")
    style.key_below(figure, style.missing_key(axes, values))
    style.title(figure, title)
    return figure


def by_layer(rows: list[dict], heads: list[dict], title: str, what: str, chance: float | None) -> Figure:
    """A line per shift over the layers, with 95 % intervals; many shifts are grey, with that of their mean over them.

    Dashed is the network's own head, from its rows, dotted is chance.
    """
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shifts = list(dict.fromkeys(_shift(row) for row in rows))
    figure = style.figure(max(6, 0.42 * len(layers) + 2.5), 4.6)
    axes = figure.add_subplot()
    x = np.arange(len(layers))

    def draw_head(some: list[dict], colour: str, label: str | None) -> None:
        accuracies = _known(some, "accuracy")
        if accuracies:
            axes.axhline(float(np.mean(accuracies)), linestyle="--", linewidth=0.9, color=colour)
        if accuracies and label:
            axes.plot([], [], linestyle="--", linewidth=0.9, color=style.INK, label=label)

    for number, shift in enumerate(shifts):
        values, reaches = _means(
            [[row for row in rows if row["layer"] == layer and _shift(row) == shift] for layer in layers]
        )
        if len(shifts) <= MOST_LINES:
            drawn = style.line(number, linestyle="-")
            axes.errorbar(x, values, reaches, markersize=4, capsize=2, label=shift, **drawn)
            draw_head(
                [row for row in heads if _shift(row) == shift],
                drawn["color"],
                "the network's own head, on the same images" if number == 0 else None,
            )
        else:
            axes.plot(
                x,
                values,
                color=NEUTRAL,
                linewidth=0.7,
                label=f"each of {len(shifts)} OOD sets" if number == 0 else None,
            )
    if len(shifts) > MOST_LINES:
        values, reaches = _means([[row for row in rows if row["layer"] == layer] for layer in layers])
        axes.errorbar(x, values, reaches, color=BEST, marker="o", linewidth=2, capsize=2, label="their mean")
        draw_head(heads, BASE, "the network's own head, mean")
    style.name_x(axes, layers, 0.88 * figure.get_figwidth())
    axes.set(ylabel=what, xlabel="layer, in order of execution")
    _accuracies(figure, axes, rows, chance)
    style.title(figure, title)
    return figure


def gain_bars(rows: list[dict], title: str) -> Figure:
    """A bar per shift, best first: metric of the chosen layer less that of the last one, with its interval."""
    parts = [row for row in rows if row["variant"] != "mean"]
    share = parts[-1]["fraction"]
    parts = sorted((row for row in parts if row["fraction"] == share), key=lambda row: row["gain"])
    figure = style.figure(7.2, max(3.0, 0.3 * len(parts) + 1.8))
    axes = figure.add_subplot()
    y, values = np.arange(len(parts)), np.array([row["gain"] for row in parts])
    intervals = np.array([[row["gain"] - row["gain_low"], row["gain_high"] - row["gain"]] for row in parts]).T
    colours = [BEST if row["gain_low"] > 0 else BASE if row["gain_high"] < 0 else NEUTRAL for row in parts]
    axes.barh(y, 100 * values, color=colours, xerr=100 * np.maximum(intervals, 0), ecolor=style.INK, capsize=2)
    style.name_y(axes, [f"{_shift(row)}  ({_shortened(row['layer'])})" for row in parts], 0.75 * figure.get_figheight())
    axes.axvline(0, color=style.INK, linewidth=0.8)
    middle = 100 * float(np.median(values))
    median = axes.axvline(middle, color="black", linestyle=":", label=f"median {middle:+.2f}")
    axes.set(xlabel=f"gain of accuracy in percentage points\n{_over_gains(parts)}")
    told = {BEST: "above 0", BASE: "below 0", NEUTRAL: "interval holds 0"}
    key = [Patch(color=colour, label=word) for colour, word in told.items() if colour in colours]
    style.key_below(figure, [*key, median])
    style.title(figure, title)
    return figure


def by_number(rows: list[dict], column: str, title: str, what: str, chance: float | None) -> Figure:
    """A line per layer (or per shift, where layers are chosen) over a logarithmic number, with 95 % intervals."""
    key = "layer" if column == "rank" else "variant"
    rows = [row for row in rows if row[column] is not None]
    if column == "fraction":
        rows = [row for row in rows if row["variant"] == "mean"] or rows
    numbers = sorted({row[column] for row in rows})
    lines = list(dict.fromkeys(row[key] or row["data"] for row in rows))
    figure = style.figure(6.4, 4.4)
    axes = figure.add_subplot()
    for number, line in enumerate(lines[:MOST_LINES]):
        values, reaches = _means(
            [[row for row in rows if (row[key] or row["data"]) == line and row[column] == at] for at in numbers]
        )
        name = line if column == "rank" else f"chosen layer, {line}"
        drawn = style.line(number, linestyle="-")
        axes.errorbar(numbers, values, reaches, markersize=4, capsize=2, label=name, **drawn)
        if column == "fraction":
            base = [
                np.mean([row["baseline"] for row in rows if (row[key] or row["data"]) == line and row[column] == at])
                for at in numbers
            ]
            axes.plot(numbers, base, color=drawn["color"], linestyle="--", marker="x", label=f"last layer, {line}")
    axes.set_xscale("symlog" if min(numbers) == 0 else "log", base=2)
    axes.set_xticks(numbers, [f"{at:g}" for at in numbers])
    axes.set(xlabel=column if column == "rank" else "share of the OOD images learnt from", ylabel=what)
    _accuracies(figure, axes, rows, chance)
    style.title(figure, title)
    return figure


def over(rows: list[dict]) -> str:
    """What the bars of rows of accuracies are over: seeds, or images where there is one seed; "" where there are none."""
    seeds = max([len(_distinct(rows)), *map(_seeds, rows)])
    if seeds > 1:
        return f"95 % intervals (Student's) over {seeds} seeds"
    return f"95 % intervals over images, {ONE_SEED}" if _known(rows, "se") else ""


def _over_gains(rows: list[dict]) -> str:
    """What the intervals of rows on gains are over."""
    one = rows[0]["n_seeds"] == 1
    return f"95 % intervals over {rows[0]['over']}" + (f", {ONE_SEED}" if one else f" ({rows[0]['n_seeds']} seeds)")


def _accuracies(figure: Figure, axes: Axes, rows: list[dict], chance: float | None) -> None:
    """What every figure of accuracies has: the line of chance, a legend that says what bars are, no room beyond [0, 1]."""
    if chance is not None:
        axes.axhline(chance, linestyle=":", color="0.4", label="chance")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high, 1.02))
    axes.grid(alpha=0.3)
    bars = over(rows)
    style.key_below(figure, axes.get_legend_handles_labels()[0], most=3, title=f"bars: {bars}" if bars else None)


def _shift(row: dict) -> str:
    return row["variant"] or f"{row['data']}:{row['split']}"


def _shortened(layers: str, most: int = 2) -> str:
    """The layers that seeds chose, the first of them by name."""
    names = layers.split()
    return " ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _known(rows: list[dict], column: str) -> list[float]:
    """The values of a column, where there are any."""
    return [row[column] for row in rows if row[column] is not None]


def _seeds(row: dict) -> int:
    """Over how many seeds a row is itself."""
    return row.get("n_seeds") or 1


def _means(cells: Iterable[list[dict]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean accuracy of each cell's rows, and how far its 95 % interval reaches to either side; 0 where nobody knows.

    Rows of one seed, of several data sets, are joined first. That of one seed has at most the mean of its rows' errors.
    """
    values, reaches = [], []
    for rows in cells:
        known = [row for row in rows if row["accuracy"] is not None]
        by_seed = [np.mean(_known([row for row in known if row["seed"] == seed], "accuracy")) for seed in _distinct(known)]
        values.append(np.mean(by_seed) if by_seed else np.nan)
        if len(by_seed) > 1:
            seeds, error = len(by_seed), np.std(by_seed, ddof=1) / len(by_seed) ** 0.5
        else:
            errors = _known(known, "se")
            seeds, error = max(map(_seeds, known), default=1), np.mean(errors) if len(errors) == len(known) > 0 else 0.0
        reaches.append(_quantile(seeds) * error)
    return np.array(values), np.array(reaches)


def _distinct(rows: list[dict]) -> list:
    return list(dict.fromkeys(row["seed"] for row in rows))


def _quantile(seeds: int) -> float:
    """By how many standard errors a 95 % interval reaches: Student's over seeds, the normal one over the images of one."""
    from scipy.special import stdtrit

    return 1.96 if seeds == 1 else float(stdtrit(seeds - 1, 0.975))
