"""Images side by side."""

import numpy as np
from matplotlib.figure import Figure

from lib.core.errors import UserError
from lib.plots import style
from lib.plots.recorded import Recorded

GAP = 0.08  # between two images, as a share of the larger side of an image


def figures(run: Recorded) -> dict[str, Figure]:
    """A contact sheet for every split of a data set."""
    drawn = {}
    for row in run.rows:
        if row["subset"] == "all":
            split = row["split"]
            if f"sheet_{split}" not in run.arrays:
                raise UserError("the record is of an earlier version, without the images; --overwrite shows them again")
            images, lines = run.arrays[f"sheet_{split}"], run.arrays[f"sheet_rows_{split}"]
            rows = [list(images[lines == number]) for number in range(int(lines.max()) + 1)]
            names = tuple(map(str, run.arrays[f"sheet_names_{split}"]))
            title = f"{row['data']}:{split}{' ' * bool(row['variant'])}{row['variant']}, {len(images)} of {row['n']} images"
            drawn[split] = contact_sheet(rows, names, f"{title}, spread over the set")
    return drawn


def contact_sheet(rows: list[list[np.ndarray]], names: tuple[str, ...], title: str) -> Figure:
    """Images (c, h, w) of one size, uint8, side by side, a row per name; two channels are shown as red and green."""
    columns = max(map(len, rows))
    height, width = next(image for images in rows for image in images).shape[1:]
    gap = max(1, round(GAP * max(height, width)))
    sheet = np.full((len(rows) * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = _as_rgb(image)
    figure = style.figure(0.62 * columns + 1.6, 0.62 * len(rows) * height / width + 0.6)
    axis = figure.subplots()
    axis.set_axis_off()
    axis.imshow(sheet)
    for row, name in enumerate(names):
        axis.text(-gap, row * (height + gap) + height / 2, name, ha="right", va="center", fontsize=style.small() + 1)
    style.title(figure, title)
    return figure


def _as_rgb(image: np.ndarray) -> np.ndarray:
    if len(image) == 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    return np.broadcast_to(image[:3].transpose(1, 2, 0), (*image.shape[1:], 3))
