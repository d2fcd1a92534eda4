"""Looking at data sets and putting them in place: `exec_data.py`."""

import numpy as np
import torch

from lib import datasets
from lib.experiments.config.data import DataConfig
from lib.runs import loading
from lib.runs.records import Result

THUMBNAIL = 96  # pixels that an image of a contact sheet has at most to a side


def data(config: DataConfig) -> Result:
    """Rows per split, and per class of it: counts, shape, mean and deviation per channel; some images in the arrays."""
    rows, arrays = [], {}
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
        arrays |= {f"{what}_{split.split}": values for what, values in _contact_sheet(split).items()}
    return Result(
        rows,
        arrays,
        columns=("data", "split", "variant", "subset", "n", "shape", "classes", "mean", "std"),
    )


def _splits(config: DataConfig, name: str):
    """The split a name states, else every split there is."""
    for split in datasets.splits(name, config.data_root):
        yield loading.load_split(config, name, split)


def _contact_sheet(split, per_row: int = 10) -> dict[str, np.ndarray]:
    """Images of a split in rows by group, else by class; spread evenly over each, and over the classes where these are many.

    sheet (n, c, h, w) uint8, of at most THUMBNAIL pixels to a side; sheet_rows (n,), the row of each; sheet_names, the rows'
    names, none for a set of one class, whose rows are all of its images.
    """
    kinds, values = (split.group_names, split.groups) if len(split.group_names) > 1 else (split.classes, split.labels)
    if len(kinds) > 1:
        shown = _spread(torch.tensor([kind for kind in range(len(kinds)) if (values == kind).any()]), 10).tolist()
        chosen = [_spread((values == kind).nonzero().squeeze(1), per_row) for kind in shown]
        names = [kinds[kind] for kind in shown]
    else:
        chosen, names = list(_spread(torch.arange(len(split)), 10 * per_row).split(per_row)), []
    images = torch.cat([images for positions in chosen for images, _, _ in split.batches(1, order=positions)])
    side = max(images.shape[2:])
    if side > THUMBNAIL:
        size = [max(1, round(length * THUMBNAIL / side)) for length in images.shape[2:]]
        images = torch.nn.functional.interpolate(images, size, mode="area")
    return {
        "sheet": (images * 255).round().to(torch.uint8).numpy(),
        "sheet_rows": np.repeat(np.arange(len(chosen)), [len(positions) for positions in chosen]),
        "sheet_names": np.array(names, dtype=str),
    }


def _spread(positions: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of the positions, evenly spread from the first to the last."""
    return positions[torch.linspace(0, len(positions) - 1, min(most, len(positions))).round().long()]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
