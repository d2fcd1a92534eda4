"""Loss and accuracy over the epochs of trainings."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.plots import grid
from lib.plots.network_page import COLOURS

MOST = len(COLOURS)  # trainings that a figure tells apart
WIDE = 20.0  # losses of which the largest is this many times the least are drawn on a logarithmic axis


def curves(trainings: dict[str, list[dict]], title: str) -> Figure:
    """Two panels, loss and accuracy by epoch: of every training the images held back (solid) and those it learnt (dashed).

    trainings   label -> rows, one per epoch; at most MOST
    """
    figure = Figure(figsize=(9.0, 3.4 + 0.2 * len(trainings)), layout="constrained")
    grid.head(figure, title)
    loss, accuracy = figure.subplots(1, 2)
    for axes, what in ((loss, "loss"), (accuracy, "accuracy")):
        for colour, rows in zip(COLOURS, trainings.values(), strict=False):
            for share, style in (("train", "--"), ("val", "-")):
                known = [(row["epoch"], row[f"{share}_{what}"]) for row in rows if row.get(f"{share}_{what}") is not None]
                if known:
                    axes.plot(
                        *zip(*known, strict=True),
                        linestyle=style,
                        color=colour,
                        marker="." if len(known) < 20 else None,
                    )
        axes.set(xlabel="epoch", ylabel=what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    losses = [
        row[name] for rows in trainings.values() for row in rows for name in ("train_loss", "val_loss") if row.get(name)
    ]
    if losses and 0 < min(losses) < max(losses) / WIDE:
        loss.set_yscale("log")
        loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        loss.yaxis.set_minor_formatter("")
    accuracy.set_ylim(top=1.02)
    figure.legend(
        [Line2D([], [], color=colour) for colour, _ in zip(COLOURS, trainings, strict=False)],
        list(trainings),
        loc="outside lower center",
        fontsize=8,
        title="solid: validation, dashed: training",
        title_fontsize=8,
    )
    return figure
