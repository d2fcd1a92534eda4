"""Probes by layer, gains by shift, accuracy by share of images and by rank, and more: figures from a record's rows."""

from collections.abc import Iterable

import numpy as np
from matplotlib.figure import Figure

BEST, BASE, NEUTRAL = "#2a7f3f", "#b22222", "0.55"
COLOURS = ("#2a7f3f", "#e08a1e", "#3465a4", "#b22222", "#75507b", "#555753")
MOST_LINES = 6


def figures(rows: list[dict], title: str) -> dict[str, Figure]:
    """The figures that the rows are enough for, by suffix; of the measure that rules chose by."""
    measure = next((row["group"] for row in rows if row["probe"] == "gain"), None) or (
        "worst" if any((row["group"] or "").startswith("worst") for row in rows) else "all"
    )
    shown = [row for row in rows if row["network"] == "trained" and (row["group"] or "").partition(":")[0] == measure]
    rules = [row["selected_by"] for row in shown if row["selected_by"] not in (None, "none")]
    rule = rules[0] if rules else "none"
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
        drawn[f"layers{suffix}"] = by_layer(plain, heads, f"{title}\nprobes{about}, settings by {rule}", what)
        if len({_shift(row) for row in plain}) > MOST_LINES:
            drawn[f"shifts{suffix}"] = by_shift(plain, heads, f"{title}\nprobes{about}, settings by {rule}", what)
    gains = [row for row in shown if row["probe"] == "gain" and row["selected_by"] == rule]
    if len({_shift(row) for row in gains}) > 1:
        drawn["gains"] = gain_bars(gains, f"{title}\nlayer chosen by {rule} against the last one")
    if len({row["rank"] for row in probes}) > 1:
        drawn["ranks"] = by_number(probes, "rank", f"{title}\nprobes of limited rank", what)
    chosen = [row for row in gains if row["fraction"] is not None]
    if len(shares) > 1 and chosen:
        drawn["fractions"] = by_number(chosen, "fraction", f"{title}\nlayer chosen by {rule}", what)
    moved = [row for row in rows if row["probe"] == "sensitivity" and row["network"] == "trained"]
    if moved:
        drawn["sensitivity"] = sensitivity_by_layer(moved, f"{title}\ndisplacement of test from training images")
    collapsed = [row for row in rows if row["probe"] == "collapse" and row["network"] == "trained"]
    if len({row["layer"] for row in collapsed}) > 1:
        drawn["collapse"] = collapse_by_layer(collapsed, f"{title}\nneural collapse by depth")
    return drawn


def collapse_by_layer(rows: list[dict], title: str) -> Figure:
    """NC1 over the layers: the network's training images, and each OOD set (many are grey, with their mean)."""
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    figure = Figure(figsize=(max(6, 0.42 * len(layers) + 2.5), 4.6), layout="constrained")
    axes = figure.add_subplot()

    def values(some: list[dict]) -> list[float]:
        return [float(np.mean(_known([row for row in some if row["layer"] == layer], "nc1"))) for layer in layers]

    axes.plot(
        values([row for row in rows if row["split"] == "train"]),
        marker="o",
        markersize=4,
        color="0.2",
        label="training images",
    )
    tested = [row for row in rows if row["split"] != "train"]
    shifts = list(dict.fromkeys(_shift(row) for row in tested))
    for number, shift in enumerate(shifts):
        few = len(shifts) <= MOST_LINES
        axes.plot(
            values([row for row in tested if _shift(row) == shift]),
            marker="o" if few else None,
            markersize=4,
            color=COLOURS[number] if few else NEUTRAL,
            linewidth=1.5 if few else 0.7,
            label=shift if few else f"each of {len(shifts)} OOD sets" if number == 0 else None,
        )
    if len(shifts) > MOST_LINES:
        axes.plot(values(tested), color=BEST, marker="o", linewidth=2, label="their mean")
    axes.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=8)
    axes.set(ylabel="NC1: within classes / between them", xlabel="layer, in order of execution", title=title, yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def sensitivity_by_layer(rows: list[dict], title: str) -> Figure:
    """S and TVD over the layers: a line per group, or per shift where there is one group; dashed is TVD's null."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    key = "group" if len(groups) > 1 else "variant"
    lines = list(dict.fromkeys(row[key] or row["data"] for row in rows))
    columns = (("s", "S (pairwise distances)"), ("tvd", "TVD, mean over units"))
    for axes, (column, label) in zip(figure.subplots(1, 2), columns, strict=True):
        for number, line in enumerate(lines):
            of_line = [row for row in rows if (row[key] or row["data"]) == line]
            cells = [[row for row in of_line if row["layer"] == layer] for layer in layers]
            few = len(lines) <= MOST_LINES
            colour = COLOURS[number] if few else NEUTRAL
            axes.plot(
                [np.mean([row[column] for row in cell]) for cell in cells],
                marker="o",
                markersize=4,
                color=colour,
                linewidth=1.5 if few else 0.7,
                label=line if few else None,
            )
            if column == "tvd":
                axes.plot(
                    [np.mean([row["tvd_null"] for row in cell]) for cell in cells],
                    linestyle="--",
                    color=colour,
                    linewidth=0.8,
                    label="without a shift" if number == 0 else None,
                )
        axes.axhline(0, color="0.2", linewidth=0.8)
        axes.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=8)
        axes.set(ylabel=label)
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def by_shift(rows: list[dict], heads: list[dict], title: str, what: str) -> Figure:
    """A cell per shift and layer: accuracy and its standard error; last the network's own head."""
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shifts = list(dict.fromkeys(_shift(row) for row in rows))
    columns = layers + (["head"] if heads else [])
    figure = Figure(figsize=(max(6, 0.75 * len(columns) + 3), 0.32 * len(shifts) + 2), layout="constrained")
    axes = figure.add_subplot()

    def cell(shift: str, column: str) -> list[dict]:
        of_column = heads if column == "head" else [row for row in rows if row["layer"] == column]
        return [row for row in of_column if _shift(row) == shift]

    lines = [_means([cell(shift, column) for column in columns]) for shift in shifts]
    values = np.array([accuracies for accuracies, _ in lines])
    image = axes.imshow(values, aspect="auto", cmap="viridis")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for y, (accuracies, errors) in enumerate(lines):
        for x, (accuracy, error) in enumerate(zip(accuracies, errors, strict=True)):
            axes.text(
                x,
                y,
                f"{100 * accuracy:.1f} \u00b1 {100 * error:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if accuracy > middle else "white",
            )
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(shifts)), shifts, fontsize=8)
    axes.set(xlabel="layer, in order of execution; in %, with standard errors")
    figure.colorbar(image, label=what)
    figure.suptitle(title, fontsize=11)
    return figure


def by_layer(rows: list[dict], heads: list[dict], title: str, what: str) -> Figure:
    """A line per shift over the layers, with 95% intervals; many shifts are grey, with that of their mean over them.

    Dashed is the network's own head, from its rows.
    """
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shifts = list(dict.fromkeys(_shift(row) for row in rows))
    figure = Figure(figsize=(max(6, 0.42 * len(layers) + 2.5), 4.6), layout="constrained")
    axes = figure.add_subplot()
    x, means = np.arange(len(layers)), []

    def draw_head(some: list[dict], colour: str, label: str | None) -> None:
        accuracies = _known(some, "accuracy")
        if accuracies:
            axes.axhline(float(np.mean(accuracies)), linestyle="--", linewidth=0.9, color=colour, label=label)

    for number, shift in enumerate(shifts):
        values, errors = _means(
            [[row for row in rows if row["layer"] == layer and _shift(row) == shift] for layer in layers]
        )
        means.append(values)
        if len(shifts) <= MOST_LINES:
            axes.errorbar(x, values, 1.96 * errors, marker="o", markersize=4, capsize=2, label=shift, color=COLOURS[number])
            draw_head(
                [row for row in heads if _shift(row) == shift],
                COLOURS[number],
                "the network's own head" if number == 0 else None,
            )
        else:
            axes.plot(
                x,
                values,
                color=NEUTRAL,
                linewidth=0.7,
                alpha=0.7,
                label=f"each of {len(shifts)} OOD sets" if number == 0 else None,
            )
    if len(shifts) > MOST_LINES:
        seeds = sorted({row["seed"] for row in rows if row["seed"] is not None})
        by_seed = [
            [
                np.mean(_known([row for row in rows if row["layer"] == layer and row["seed"] == seed], "accuracy"))
                for layer in layers
            ]
            for seed in seeds
        ]
        reach = 1.96 * np.std(by_seed, 0, ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else None
        axes.errorbar(
            x,
            np.mean(means, 0),
            reach,
            color=BEST,
            marker="o",
            linewidth=2,
            capsize=2,
            label="their mean" + (", 95% interval over seeds" if reach is not None else ""),
        )
        draw_head(heads, BASE, "the network's own head, mean")
    axes.set_xticks(x, layers, rotation=60, ha="right", fontsize=8)
    axes.set(ylabel=what, xlabel="layer, in order of execution", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def gain_bars(rows: list[dict], title: str) -> Figure:
    """A bar per shift, best first: metric of the chosen layer less that of the last one, with the bootstrap's interval."""
    parts = [row for row in rows if row["variant"] != "mean"]
    share = parts[-1]["fraction"]
    parts = sorted((row for row in parts if row["fraction"] == share), key=lambda row: row["gain"])
    figure = Figure(figsize=(7.2, max(2.6, 0.3 * len(parts) + 1.4)), layout="constrained")
    axes = figure.add_subplot()
    y, values = np.arange(len(parts)), np.array([row["gain"] for row in parts])
    intervals = np.array([[row["gain"] - row["gain_low"], row["gain_high"] - row["gain"]] for row in parts]).T
    colours = [BEST if row["gain_low"] > 0 else BASE if row["gain_high"] < 0 else NEUTRAL for row in parts]
    axes.barh(y, 100 * values, color=colours, xerr=100 * np.maximum(intervals, 0), ecolor="0.2", capsize=2)
    axes.set_yticks(y, [f"{_shift(row)}  ({_shortened(row['layer'])})" for row in parts], fontsize=8)
    axes.axvline(0, color="0.2", linewidth=0.8)
    axes.axvline(100 * float(np.median(values)), color=BEST, linestyle=":", label=f"median {100 * np.median(values):+.2f}")
    axes.set(xlabel="percentage points, 95% intervals; grey: they hold 0")
    axes.legend(fontsize=8, loc="lower right")
    figure.suptitle(title, fontsize=11)
    return figure


def by_number(rows: list[dict], column: str, title: str, what: str) -> Figure:
    """A line per layer (or per shift, where layers are chosen) over a logarithmic number, with 95% intervals."""
    key = "layer" if column == "rank" else "variant"
    rows = [row for row in rows if row[column] is not None]
    if column == "fraction":
        rows = [row for row in rows if row["variant"] == "mean"] or rows
    numbers = sorted({row[column] for row in rows})
    lines = list(dict.fromkeys(row[key] or row["data"] for row in rows))
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for number, line in enumerate(lines[:MOST_LINES]):
        values, errors = _means(
            [[row for row in rows if (row[key] or row["data"]) == line and row[column] == at] for at in numbers]
        )
        name = line if column == "rank" else f"chosen layer, {line}"
        axes.errorbar(numbers, values, 1.96 * errors, marker="o", markersize=4, capsize=2, label=name, color=COLOURS[number])
        if column == "fraction":
            base = [
                np.mean([row["baseline"] for row in rows if (row[key] or row["data"]) == line and row[column] == at])
                for at in numbers
            ]
            axes.plot(numbers, base, color=COLOURS[number], linestyle="--", marker="x", label=f"last layer, {line}")
    axes.set_xscale("symlog" if min(numbers) == 0 else "log", base=2)
    axes.set_xticks(numbers, [f"{at:g}" for at in numbers])
    axes.set(xlabel=column if column == "rank" else "share of the OOD images learnt from", ylabel=what, title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _shift(row: dict) -> str:
    return row["variant"] or f"{row['data']}:{row['split']}"


def _shortened(layers: str, most: int = 2) -> str:
    """The layers that seeds chose, the first of them by name."""
    names = layers.split()
    return " ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _known(rows: list[dict], column: str) -> list[float]:
    """The values of a column, where there are any."""
    return [row[column] for row in rows if row[column] is not None]


def _means(cells: Iterable[list[dict]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean accuracy of each cell's rows over seeds, and its standard error: between seeds, or of the one seed."""
    values, errors = [], []
    for rows in cells:
        accuracies = _known(rows, "accuracy")
        values.append(np.mean(accuracies) if accuracies else np.nan)
        single = rows[0].get("se") if rows else None
        errors.append(np.std(accuracies, ddof=1) / len(accuracies) ** 0.5 if len(accuracies) > 1 else single or 0.0)
    return np.array(values), np.array(errors)
