"""Loss and accuracy over the epochs of trainings."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from lib.plots import style

MOST = 8  # trainings that a figure tells apart
WIDE = 20.0  # losses of which the largest is this many times the least are drawn on a logarithmic axis
MARKED = 20  # epochs of which each has no marker any more
SHARES = {"train": "--", "val": "-"}


def curves(trainings: dict[str, list[dict]], title: str) -> Figure:
    """Two panels, loss and accuracy by epoch: of every training the images held back (solid) and those it learnt (dashed).

    trainings   label -> rows, one per epoch; at most MOST
    """
    figure, (loss, accuracy) = style.panels(2, (4.5, 3.4 + 0.2 * len(trainings)), least=1.6)
    for axes, what in ((loss, "loss"), (accuracy, "accuracy")):
        for number, rows in enumerate(trainings.values()):
            for share, dashes in SHARES.items():
                known = [(row["epoch"], row[f"{share}_{what}"]) for row in rows if row.get(f"{share}_{what}") is not None]
                if known:
                    look = style.line(number, linestyle=dashes)
                    if len(known) >= MARKED:
                        look["marker"] = None
                    axes.plot(*zip(*known, strict=True), **look)
        axes.set(xlabel="epoch", ylabel=what)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    losses = [
        row[f"{share}_loss"] for rows in trainings.values() for row in rows for share in SHARES if row.get(f"{share}_loss")
    ]
    if losses and 0 < min(losses) < max(losses) / WIDE:
        loss.set_yscale("log")
        loss.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        loss.yaxis.set_minor_formatter(NullFormatter())
    accuracy.set_ylim(top=1.02)
    handles = [Line2D([], [], label=label, **style.line(number, linestyle="-")) for number, label in enumerate(trainings)]
    style.key_below(figure, handles, title="solid: validation, dashed: training")
    style.title(figure, title)
    return figure
