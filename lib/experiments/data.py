"""Looking at data sets and putting them in place: `exec_data.py`."""

import torch

from lib import datasets
from lib.experiments.config.data import DataConfig
from lib.plots import images as plots
from lib.runs import loading
from lib.runs.records import Result


def data(config: DataConfig) -> Result:
    """Rows per split, and per class of it: counts, shape, mean and deviation per channel; a contact sheet per split."""
    rows, sheets = [], {}
    for split in _splits(config, config.arguments[0]):
        mean, std = split.statistics()
        base = {"data": split.name, "split": split.split, "variant": split.variant, "origin": split.origin}
        rows.append(
            {
                **base,
                "subset": "all",
                "n": len(split),
                "shape": f"{split.channels}x{split.height}x{split.width}",
                "classes": len(split.classes),
                "mean": _numbers(mean),
                "std": _numbers(std),
            }
        )
        for kind, names, values in (("class", split.classes, split.labels), ("group", split.group_names, split.groups)):
            counts = torch.bincount(values[values >= 0], minlength=len(names)).tolist()
            rows += [{**base, "subset": f"{kind}:{name}", "n": count} for name, count in zip(names, counts, strict=False)]
        sheets[split.split] = _contact_sheet(split)
    return Result(
        rows,
        draw=lambda: {name: plots.contact_sheet(*sheet) for name, sheet in sheets.items()},
        columns=("data", "split", "variant", "subset", "n", "shape", "classes", "mean", "std"),
    )


def _splits(config: DataConfig, name: str):
    """The split a name states, else every split there is."""
    for split in datasets.splits(name, config.data_root):
        yield loading.load_split(config, name, split)


def _contact_sheet(split, per_row: int = 10) -> tuple[list, tuple[str, ...], str]:
    """Images of a split in rows by group, else by class where there are few; evenly spread over a split without either.

    What `plots.contact_sheet` takes: the images of every row, the rows' names, the title.
    """
    kinds, values = (split.group_names, split.groups) if len(split.group_names) > 1 else (split.classes, split.labels)
    rows = min(len(kinds), 10) if len(kinds) > 1 else 10
    if len(kinds) > 1:
        chosen = [(values == kind).nonzero().squeeze(1)[:per_row] for kind in range(rows)]
        names = kinds[:rows]
    else:
        places = torch.arange(rows * per_row) * len(split) // (rows * per_row)
        chosen, names = places.unique().split(per_row), ()
    cells = [[images[0].numpy() for images, _, _ in split.batches(1, order=positions)] for positions in chosen]
    return cells, names, f"{split.name}:{split.split}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
