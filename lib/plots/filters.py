"""Orientation of filters by layer and epoch, and what re-initialising layers costs."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.metrics.filter_projections import null_band

INITIAL, TRAINED, NULL = "#9aa5b1", "#2060a0", "#f2d9a0"
PANELS = 24  # more layers than this are shown evenly thinned


def figures(rows: list[dict], arrays: dict[str, np.ndarray], normalized: bool) -> dict[str, Figure]:
    """Distributions of the projections, masses with their null bands, and, where known, distances from the start."""
    by_layer = [row for row in rows if row["layer"] != "net"]
    drawn = {"": distributions(by_layer, arrays, normalized)}
    epochs = {row["epoch"] for row in by_layer}
    drawn["mass"] = mass_by_epoch(by_layer) if len(epochs) > 1 and None not in epochs else mass_by_layer(by_layer)
    if any(row["l2_distance"] is not None and row["epoch"] != 0 for row in by_layer):
        drawn["distance"] = distance_by_layer(by_layer)
    return drawn


def distributions(rows: list[dict], arrays: dict[str, np.ndarray], normalized: bool) -> Figure:
    """Per layer the projections of the first epoch (left half) and of the last (right half), all runs together.

    Cosines are drawn times sqrt(D), so that random filters are standard normal in every layer.
    """
    names, labels = _layers(rows)
    epochs = sorted({row["epoch"] for row in rows}, key=_order)
    shown = [epochs[0], epochs[-1]] if len(epochs) > 1 else epochs
    figure = Figure(figsize=(max(6.5, 0.55 * len(names) + 2), 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color="0.4", linewidth=0.8)
    for epoch, colour, side in zip(shown, (INITIAL, TRAINED), ("low", "high"), strict=False):
        side = side if len(shown) > 1 else "both"
        for place, name in enumerate(names):
            values = np.concatenate(
                [_values(arrays, row, normalized) for row in rows if row["layer"] == name and row["epoch"] == epoch]
            )
            if len(values) > 1 and values.std() > 0:
                bodies = axes.violinplot([values], [place], widths=0.9, showextrema=False, side=side)["bodies"]
                for body in bodies:  # ty: ignore[not-iterable] matplotlib's stubs have one collection in place of a list
                    body.set(facecolor=colour, alpha=0.85)
            axes.hlines(
                np.median(values) if len(values) else 0,
                place - 0.45 * (side != "high"),
                place + 0.45 * (side != "low"),
                color="black",
                linewidth=0.9,
            )
        axes.fill_between([], [], color=colour, label=f"epoch {epoch}" if epoch is not None else "epoch unknown")
    axes.set_xticks(range(len(names)), labels, rotation=90 if len(names) > 12 else 0, fontsize=8)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set(
        xlabel="layer (stage.block)",
        title="projections of filters on the all-ones direction",
        ylabel="cosine × √D (random filters: N(0, 1))" if normalized else "sum of a filter's weights",
    )
    axes.legend(fontsize=8)
    return figure


def mass_by_epoch(rows: list[dict]) -> Figure:
    """A panel per layer: the mass of every run against the epoch, and where 95 % of unbiased layers lie."""
    names, labels = _layers(rows)
    chosen = sorted(set(np.linspace(0, len(names) - 1, min(len(names), PANELS)).round().astype(int)))
    columns = min(4, len(chosen))
    lines = -(-len(chosen) // columns)
    figure = Figure(figsize=(2.9 * columns + 0.6, 2.1 * lines + 0.9), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for panel in panels.flat[len(chosen) :]:
        panel.set_axis_off()
    for panel, place in zip(panels.flat, chosen, strict=False):
        own = [row for row in rows if row["layer"] == names[place]]
        panel.axhspan(*null_band(own[0]["counted"]), color=NULL)
        panel.axhline(0.5, color="0.5", linewidth=0.8)
        runs: dict[str, list[dict]] = {}
        for row in own:
            runs.setdefault(_run(row), []).append(row)
        for number, members in enumerate(runs.values()):
            members = sorted(members, key=lambda row: row["epoch"])
            masses = [row["mass"] for row in members]
            errors = [
                [row["mass"] - row["mass_low"] for row in members],
                [row["mass_high"] - row["mass"] for row in members],
            ]
            panel.errorbar(
                [row["epoch"] + 0.06 * number for row in members],
                masses,
                errors,
                marker="o",
                markersize=3,
                linewidth=1.2,
                elinewidth=0.5,
                color=f"C{number % 10}",
            )
        panel.set_title(f"{labels[place]}   {names[place]}, N = {own[0]['filters']}", fontsize=8)
        panel.set_ylim(-0.02, 1.02)
        panel.tick_params(labelsize=7)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    for panel in panels.flat[max(0, len(chosen) - columns) : len(chosen)]:  # also where the grid ends above the last line
        panel.tick_params(labelbottom=True)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("mass P(X ≤ 0)", fontsize=9)
    left_out = "" if len(chosen) == len(names) else f" ({len(chosen)} of {len(names)} layers)"
    figure.suptitle(
        f"share of filters that point away from the all-ones direction{left_out}\n"
        "bars: exact 95 % intervals; band: 95 % of layers without orientation; a colour per run",
        fontsize=9,
    )
    return figure


def mass_by_layer(rows: list[dict]) -> Figure:
    """The masses of one epoch, a point per set of weights, on each layer's null band."""
    names, labels = _layers(rows)
    figure = Figure(figsize=(max(6.5, 0.4 * len(names) + 2), 4.2), layout="constrained")
    axes = figure.add_subplot()
    for place, name in enumerate(names):
        own = [row for row in rows if row["layer"] == name]
        low, high = null_band(own[0]["counted"])
        axes.fill_between([place - 0.42, place + 0.42], low, high, color=NULL)
        axes.plot(
            place + np.linspace(-0.2, 0.2, len(own) + 2)[1:-1],
            [row["mass"] for row in own],
            "o",
            markersize=4,
            color=TRAINED,
        )
    axes.axhline(0.5, color="0.5", linewidth=0.8)
    axes.set_xticks(range(len(names)), labels, rotation=90 if len(names) > 12 else 0, fontsize=8)
    axes.set(
        ylim=(-0.02, 1.02),
        xlabel="layer (stage.block)",
        ylabel="mass P(X ≤ 0)",
        title="share of filters that point away from the all-ones direction\nband: 95 % of layers without orientation",
    )
    return figure


def distance_by_layer(rows: list[dict]) -> Figure:
    """How far each layer is from its initial weights, a line per epoch; the mean over runs."""
    names, labels = _layers(rows)
    epochs = sorted({row["epoch"] for row in rows if row["l2_distance"] is not None and row["epoch"] not in (0, None)})
    figure = Figure(figsize=(max(8, 0.7 * len(names) + 3), 3.9), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = ("‖W − W₀‖ / ‖W₀‖, Frobenius norms", "max |W − W₀| / max |W₀|")
    for panel, measure, title in zip(panels, ("l2_distance", "linf_distance"), titles, strict=True):
        for number, epoch in enumerate(epochs):
            means = [
                np.mean([row[measure] for row in rows if row["layer"] == name and row["epoch"] == epoch]) for name in names
            ]
            shade = 0.25 + 0.75 * (number + 1) / len(epochs)
            panel.plot(means, "o-", markersize=3, color=TRAINED, alpha=shade, label=f"epoch {epoch}")
        panel.set_xticks(range(len(names)), labels, rotation=90 if len(names) > 12 else 0, fontsize=8)
        panel.set_ylim(bottom=0)
        panel.set(xlabel="layer (stage.block)", title=title)
    if len(epochs) <= 12:
        panels[1].legend(fontsize=8)
    return figure


def reset_map(drops: np.ndarray, sources: list[str], layers: list[str], title: str) -> Figure:
    """Relative loss of accuracy (sources, layers) when a layer gets the weights of a source; colours always 0 to 1.

    NaN cells were not measured; what is below 0, an improvement, has the colour of 0 and its number.
    """
    figure = Figure(figsize=(max(5.5, 0.62 * len(layers) + 2.4), max(2.6, 0.42 * len(sources) + 1.9)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(drops, cmap="OrRd", vmin=0, vmax=1, aspect="auto")
    axes.set_facecolor("0.85")
    figure.colorbar(image, ax=axes, label="relative loss of accuracy", extend="min")
    if drops.size <= 400:
        for (row, column), drop in np.ndenumerate(drops):
            if not np.isnan(drop):
                axes.text(
                    column,
                    row,
                    f"{drop:.2f}".replace("-0.00", "0.00"),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if drop > 0.6 else "black",
                )
    axes.set_xticks(
        range(len(layers)),
        [f"{place + 1}\n{name}" if len(layers) <= 10 else f"{place + 1}  {name}" for place, name in enumerate(layers)],
        rotation=0 if len(layers) <= 10 else 90,
        fontsize=7,
    )
    axes.set_yticks(range(len(sources)), sources)
    axes.set(xlabel="layer that is re-initialised", ylabel="epoch of its weights")
    axes.set_title(title, fontsize=9)
    return figure


def _layers(rows: list[dict]) -> tuple[list[str], list[str]]:
    """Names of the layers in order, and what axes call them: stage and block, or the name where there are none."""
    numbered = {row["layer"]: f"{row['stage']}.{row['block']}" if row["stage"] is not None else row["layer"] for row in rows}
    return list(numbered), list(numbered.values())


def _values(arrays: dict[str, np.ndarray], row: dict, normalized: bool) -> np.ndarray:
    key = row["checkpoint"] if row["draw"] is None else f"{row['checkpoint']}-{row['draw']}"
    values = arrays[f"{key}/{row['layer']}"]
    return values[~np.isnan(values)] * (row["dim"] ** 0.5 if normalized else 1)


def _run(row: dict) -> str:
    """What the snapshots of one training have in common: their folder; every draw is a run of its own."""
    return row["checkpoint"].rpartition("/")[0] if row["draw"] is None else f"draw {row['draw']}"


def _order(epoch: int | None) -> float:
    return float("inf") if epoch is None else epoch
