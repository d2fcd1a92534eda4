"""Orientation of filters by layer and epoch, and what re-initialising layers costs."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lib.core.text import readable
from lib.metrics.binomial import null_band
from lib.plots import style
from lib.plots.recorded import Recorded

INITIAL, TRAINED, NULL = "0.7", style.BLUE, "#f2d9a0"
PANELS = 24  # more layers than this are shown evenly thinned
NAMED = 7  # more epochs than this are told by a colour bar
NUMBERED = 400  # cells of a map that are numbered at most


def figures(run: Recorded) -> dict[str, Figure]:
    """Distributions of the projections, masses with their null bands, and, where known, distances from the start."""
    by_layer = [row for row in run.rows if row["layer"] != "net"]
    about = _about(run, by_layer)
    drawn = {"": distributions(by_layer, run.arrays, bool(run.config["normalize"]), about)}
    epochs = {row["epoch"] for row in by_layer}
    over_epochs = len(epochs) > 1 and None not in epochs
    drawn["mass"] = mass_by_epoch(by_layer, about) if over_epochs else mass_by_layer(by_layer, about)
    if any(row["l2_distance"] is not None and row["epoch"] != 0 for row in by_layer):
        drawn["distance"] = distance_by_layer(by_layer, about)
    return drawn


def _about(run: Recorded, rows: list[dict]) -> str:
    """The network, or the type of several: what of their names all snapshots share."""
    paths = dict.fromkeys(row["checkpoint"] for row in rows)
    known = [run.networks[path] for path in paths if path in run.networks]
    kinds = dict.fromkeys(one["architecture"] for one in known) or dict.fromkeys(list(run.config["model_path"])[-1:])
    sets = dict.fromkeys(one["dataset"] for one in known if one.get("dataset"))
    runs = len(dict.fromkeys(map(_run, rows)))
    several = f", {runs} runs" if runs > 1 else ""
    return ", ".join(map(str, kinds)) + (f" ({', '.join(sets)})" if sets else "") + several


def distributions(rows: list[dict], arrays: Mapping[str, np.ndarray], normalized: bool, about: str) -> Figure:
    """Per layer the projections of the first epoch (left half) and of the last (right half), all runs together.

    Cosines are drawn times sqrt(D), so that random filters are standard normal in every layer.
    """
    names, labels = _layers(rows)
    epochs = sorted({row["epoch"] for row in rows}, key=_order)
    shown = [epochs[0], epochs[-1]] if len(epochs) > 1 else epochs
    figure = style.figure(max(6.5, 0.55 * len(names) + 2), 4.6)
    axes = figure.add_subplot()
    axes.axhline(0, color="0.4", linewidth=0.8)
    key = []
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
        half = {"low": "left half: ", "high": "right half: ", "both": ""}[side]
        key.append(Patch(color=colour, label=f"{half}{_epoch(epoch)}"))
    key.append(Line2D([], [], color="black", linewidth=0.9, label="median"))
    style.name_x(axes, labels, 0.88 * figure.get_figwidth())
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set(
        xlabel=_axis(rows),
        ylabel="cosine × √D (random filters: N(0, 1))" if normalized else "sum of a filter's weights",
    )
    style.key_below(figure, key)
    style.title(figure, f"{about}: projections of filters on the all-ones direction")
    return figure


def mass_by_epoch(rows: list[dict], about: str) -> Figure:
    """A panel per layer: the mass of every run against the epoch, and where 95 % of unbiased layers lie."""
    names, labels = _layers(rows)
    chosen = sorted(set(np.linspace(0, len(names) - 1, min(len(names), PANELS)).round().astype(int)))
    runs = {run: style.line(number) for number, run in enumerate(dict.fromkeys(map(_run, rows)))}
    figure, panels = style.panels(len(chosen), (2.9, 2.1), most=4, extra=1.3, share=True)
    for panel, place in zip(panels, chosen, strict=True):
        own = [row for row in rows if row["layer"] == names[place]]
        panel.axhspan(*null_band(own[0]["counted"]), color=NULL)
        panel.axhline(0.5, color="0.5", linewidth=0.8)
        for number, (run, drawn) in enumerate(runs.items()):
            members = sorted((row for row in own if _run(row) == run), key=lambda row: row["epoch"])
            masses = [row["mass"] for row in members]
            errors = [
                [row["mass"] - row["mass_low"] for row in members],
                [row["mass_high"] - row["mass"] for row in members],
            ]
            panel.errorbar(
                [row["epoch"] + 0.06 * number for row in members],
                masses,
                errors,
                markersize=3,
                linewidth=1.2,
                elinewidth=0.5,
                **drawn,
            )
        stated = labels[place] if labels[place] == names[place] else f"{labels[place]}  {names[place]}"
        panel.set_title(f"{stated}, {own[0]['filters']} filters")
        panel.set_ylim(-0.02, 1.02)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    key: list[Artist] = [Patch(color=NULL, label="95 % of layers without orientation")]
    named = {run: run.rpartition("/")[2] if len(runs) > 1 else "share" for run in runs}
    key += [Line2D([], [], label=f"{named[run]}, exact 95 % intervals over filters", **drawn) for run, drawn in runs.items()]
    style.label(panels, "epoch", "P(X ≤ 0)")
    style.key_below(figure, key, most=3)
    left_out = "" if len(chosen) == len(names) else f" ({len(chosen)} of {len(names)} layers)"
    style.title(figure, f"{about}: share of filters that point away from the all-ones direction, P(X ≤ 0){left_out}")
    return figure


def mass_by_layer(rows: list[dict], about: str) -> Figure:
    """The masses of one epoch, a point per set of weights, on each layer's null band."""
    names, labels = _layers(rows)
    figure = style.figure(max(6.5, 0.4 * len(names) + 2), 4.2)
    axes = figure.add_subplot()
    most = 1
    for place, name in enumerate(names):
        own = [row for row in rows if row["layer"] == name]
        most = max(most, len(own))
        low, high = null_band(own[0]["counted"])
        axes.fill_between([place - 0.42, place + 0.42], low, high, color=NULL)
        masses = np.array([row["mass"] for row in own], dtype=float)
        around = np.abs(np.array([[row["mass_low"], row["mass_high"]] for row in own], dtype=float).T - masses)
        axes.errorbar(
            place + np.linspace(-0.2, 0.2, len(own) + 2)[1:-1],
            masses,
            around,
            fmt="o",
            markersize=4,
            color=TRAINED,
            ecolor=style.INK,
            elinewidth=0.6,
        )
    axes.axhline(0.5, color="0.5", linewidth=0.8)
    style.name_x(axes, labels, 0.88 * figure.get_figwidth())
    axes.set(ylim=(-0.02, 1.02), xlabel=_axis(rows), ylabel="share of filters that point away, P(X ≤ 0)")
    points = "a point per set of weights" if most > 1 else "the weights"
    key = [
        Line2D([], [], color=TRAINED, marker="o", linestyle="", label=f"{points}, exact 95 % intervals over filters"),
        Patch(color=NULL, label="95 % of layers without orientation"),
    ]
    style.key_below(figure, key)
    style.title(figure, f"{about}: share of filters that point away from the all-ones direction")
    return figure


def distance_by_layer(rows: list[dict], about: str) -> Figure:
    """How far each layer is from its initial weights, a line per epoch; the mean over runs."""
    names, labels = _layers(rows)
    epochs = sorted({row["epoch"] for row in rows if row["l2_distance"] is not None and row["epoch"] not in (0, None)})
    few, norm = len(epochs) <= NAMED, Normalize(0, max(epochs, default=1))
    shades = colormaps[f"{style.SEQUENTIAL}_r"]
    figure, panels = style.panels(2, (max(4, 0.35 * len(names) + 1.5), 3.3), most=2, least=3.0, extra=1.2)
    titles = ("‖W − W₀‖ / ‖W₀‖, Frobenius norms", "max |W − W₀| / max |W₀|")
    for panel, measure, title in zip(panels, ("l2_distance", "linf_distance"), titles, strict=True):
        for number, epoch in enumerate(epochs):
            means = [
                np.mean([row[measure] for row in rows if row["layer"] == name and row["epoch"] == epoch]) for name in names
            ]
            drawn = style.line(number) if few else {"color": shades(norm(epoch)), "marker": "."}
            panel.plot(means, markersize=3, label=_epoch(epoch), **drawn)
        style.name_x(panel, labels, 0.9 * figure.get_figwidth() / style.across(2, 3.0, 2))
        panel.set_ylim(bottom=0)
        panel.set(xlabel=_axis(rows), title=title)
    if few:
        style.key_below(figure, panels[0].get_legend_handles_labels()[0])
    else:
        figure.colorbar(ScalarMappable(norm, shades), ax=panels, label="epoch")
    style.title(figure, f"{about}: distance from the initial weights" + (", means over runs" if "runs" in about else ""))
    return figure


def reinit(run: Recorded) -> dict[str, Figure]:
    """What every layer loses with the weights of every source."""
    measured = [row for row in run.rows if row.get("status") in ("measured", "unchanged") and row.get("layer")]
    sources = list(dict.fromkeys(row["source"] for row in measured))
    layers = list(dict.fromkeys(row["layer"] for row in measured))
    drops = np.full((len(sources), len(layers)), np.nan)
    for row in measured:
        if row["relative_drop"] is not None:
            drops[sources.index(row["source"]), layers.index(row["layer"])] = row["relative_drop"]
    first = measured[0]
    title = (
        f"{run.name(run.config['model_path'])}: accuracy that is lost when one layer gets other weights; intact "
        f"{100 * first['intact_accuracy']:.1f} % of {first['n']} images of {first['data']}:{first['split']}"
    )
    return {"": reset_map(drops, sources, layers, title)}


def reset_map(drops: np.ndarray, sources: list[str], layers: list[str], title: str) -> Figure:
    """Relative loss of accuracy (sources, layers) when a layer gets the weights of a source; colours always 0 to 1.

    NaN cells were not measured and are grey; what is below 0, an improvement, has the colour of 0 and its number.
    """
    figure = style.figure(max(5.5, 0.62 * len(layers) + 2.4), max(2.9, 0.42 * len(sources) + 2.2))
    axes = figure.add_subplot()
    image = axes.imshow(drops, cmap="OrRd", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=axes, label="relative loss of accuracy", extend="min")
    if drops.size <= NUMBERED and 72 * 0.7 * figure.get_figwidth() / len(layers) > 2.6 * style.small():
        style.write_cells(axes, image, drops)
    style.name_x(axes, layers, 0.7 * figure.get_figwidth())
    axes.set_yticks(range(len(sources)), sources)
    axes.set_xlabel("layer that is re-initialised, in order of execution")
    axes.set_ylabel("epoch of its weights\n(rand: drawn anew)")
    style.key_below(figure, style.missing_key(axes, drops))
    style.title(figure, title)
    return figure


def _layers(rows: list[dict]) -> tuple[list[str], list[str]]:
    """Names of the layers in order, and what axes call them: stage and block, or the name where there are none."""
    numbered = {row["layer"]: f"{row['stage']}.{row['block']}" if row["stage"] is not None else row["layer"] for row in rows}
    return list(numbered), list(numbered.values())


def _axis(rows: list[dict]) -> str:
    """What the axis of the layers shows."""
    return "layer (stage.block), first to last" if any(row["stage"] is not None for row in rows) else "layer, first to last"


def _epoch(epoch: int | None) -> str:
    if epoch is None:
        return "epoch unknown"
    return "before training" if epoch == 0 else "published weights" if epoch < 0 else f"epoch {epoch}"


def _values(arrays: Mapping[str, np.ndarray], row: dict, normalized: bool) -> np.ndarray:
    key = row["checkpoint"] if row["draw"] is None else f"{row['checkpoint']}-{row['draw']}"
    values = arrays[f"{readable(key)}/{row['layer']}"]
    return values[~np.isnan(values)] * (row["dim"] ** 0.5 if normalized else 1)


def _run(row: dict) -> str:
    """What the snapshots of one training have in common: their folder; every draw is a run of its own."""
    return row["checkpoint"].rpartition("/")[0] if row["draw"] is None else f"draw {row['draw']}"


def _order(epoch: int | None) -> float:
    return float("inf") if epoch is None else epoch
