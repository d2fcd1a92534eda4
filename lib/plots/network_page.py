"""All measures of one network's layers: over depth, and how they go together."""

import textwrap

import numpy as np
from matplotlib.figure import Figure

from lib.plots import style

MOST = 2  # commands per measure that are written out


def network_page(
    layers: list[str],
    columns: dict[str, dict[str, float]],
    correlations: np.ndarray,
    title: str,
    commands: list[tuple[str, str]] | None = None,
    marked: dict[str, list[str]] | None = None,
) -> Figure:
    """Every measure over depth, each on its own range; below it the correlations of those that share enough layers.

    columns       measure -> layer -> value; measures without a value are left out
    correlations  (measures, measures) in the order of `columns`, NaN where there are too few layers
    commands      (measure, the command that measures it) of what is left out, in words below
    marked        measure -> the layers that may be the best by it, with a ring
    """
    shown = {name: values for name, values in columns.items() if values}
    number = {name: place for place, name in enumerate(columns)}
    told = np.isfinite(correlations) & ~np.eye(len(columns), dtype=bool)
    paired = [name for name in shown if told[number[name]].any()]
    wide, high = max(7.0, 0.42 * len(layers) + 3.2), 4.8
    below = 0.55 * len(paired) + 2.0 if paired else 0.0
    lacking = [(name, command) for name, command in commands or [] if name not in shown]
    lines = _commands(lacking, int(13.5 * (wide - 0.4)))
    notes = 0.16 * len(lines) + 0.2 * bool(lines)
    figure = style.figure(wide, high + below + notes)
    style.title(figure, title)
    heights = [part for part in (high, below, notes) if part]
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    over = figure.add_subplot(grid[0])
    for place, (name, values) in enumerate(shown.items()):
        low, top = min(values.values()), max(values.values())
        scaled = {layer: (value - low) / (top - low) if top > low else 0.5 for layer, value in values.items()}
        over.plot(
            [layers.index(layer) for layer in layers if layer in scaled],
            [scaled[layer] for layer in layers if layer in scaled],
            linewidth=1.2,
            markersize=4,
            label=f"{name}: {low + 0.0:.3g} to {top + 0.0:.3g}",
            **style.line(place),
        )
        ringed = [layer for layer in (marked or {}).get(name, ()) if layer in scaled]
        over.scatter(
            [layers.index(layer) for layer in ringed],
            [scaled[layer] for layer in ringed],
            s=70,
            facecolors="none",
            edgecolors=style.line(place)["color"],
        )
    style.name_x(over, layers, 0.9 * figure.get_figwidth())
    over.set_yticks((0, 1), ("its least", "its largest"))
    rings = "; ring: may be the best" if any((marked or {}).values()) else ""
    heading = f"each measure over depth, on its own range{rings}"
    over.set(xlabel="layer, in order of execution", title=heading, ylim=(-0.06, 1.06))
    over.grid(axis="x", alpha=0.3)
    columns_ = 3 if figure.get_figwidth() > 6 else 1
    over.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=columns_, frameon=False)
    if paired:
        places = [number[name] for name in paired]
        axes = figure.add_subplot(grid[1])
        picked = correlations[np.ix_(places, places)]
        image = axes.imshow(np.ma.masked_invalid(picked), cmap=style.DIVERGING, vmin=-1, vmax=1, aspect="auto")
        figure.colorbar(image, ax=axes, shrink=0.9, label="rank correlation")
        words = [textwrap.fill(name, 17, break_on_hyphens=False) for name in paired]
        axes.set_xticks(range(len(paired)), words)
        axes.set_yticks(range(len(paired)), words)
        axes.set_title("Spearman's rank correlation over layers")
        style.write_cells(axes, image, picked)
        for row, column in zip(*np.nonzero(~np.isfinite(picked)), strict=True):
            axes.text(column, row, "too few\nlayers", ha="center", va="center", fontsize=style.small() - 1)
    if lines:
        words = figure.add_subplot(grid[-1])
        words.set_axis_off()
        words.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=style.small())
    return figure


def _commands(lacking: list[tuple[str, str]], width: int) -> list[str]:
    """What is not measured yet, with the first commands that measure it, in lines of so many letters; each command once."""
    by_name: dict[str, list[str]] = {}
    for name, command in lacking:
        by_name.setdefault(name, []).append(command)
    lines, told = [], set()
    for name, commands in by_name.items():
        lines.append(f"not measured: {name}")
        for command in commands[:MOST]:
            if command not in told:
                told.add(command)
                lines += textwrap.wrap(
                    command,
                    width,
                    initial_indent="  ",
                    subsequent_indent="      ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        if len(commands) > MOST:
            lines.append(f"  and {len(commands) - MOST} more, for the other layers: the printed table has them")
    return lines
