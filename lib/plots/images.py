"""Images side by side."""

import numpy as np
from matplotlib.figure import Figure

GAP = 0.08  # between two images, as a share of the larger side of an image


def contact_sheet(rows: list[list[np.ndarray]], names: tuple[str, ...], title: str) -> Figure:
    """Images (c, h, w) of one size, in [0, 1], side by side, a row per name; two channels are shown as red and green."""
    columns = max(map(len, rows))
    height, width = next(image for images in rows for image in images).shape[1:]
    gap = max(1, round(GAP * max(height, width)))
    sheet = np.ones((len(rows) * (height + gap), columns * (width + gap), 3), np.float32)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = _as_rgb(image)
    figure = Figure(figsize=(0.62 * columns + 1.6, 0.62 * len(rows) * height / width + 0.6), layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    axis.imshow(sheet, vmin=0, vmax=1)
    for row, name in enumerate(names):
        axis.text(-gap, row * (height + gap) + height / 2, name, ha="right", va="center", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _as_rgb(image: np.ndarray) -> np.ndarray:
    if len(image) == 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    return np.broadcast_to(image.transpose(1, 2, 0), (*image.shape[1:], 3))
