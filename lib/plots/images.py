"""Images side by side."""

import numpy as np
from matplotlib.figure import Figure


def contact_sheet(rows: list[list[np.ndarray]], names: tuple[str, ...], title: str) -> Figure:
    """Images (c, h, w) in [0, 1] side by side, a row per name; two channels are shown as red and green."""
    width = max(map(len, rows))
    figure = Figure(figsize=(0.62 * width + 1.6, 0.62 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), width, squeeze=False)
    for row, cells in enumerate(rows):
        for column in range(width):
            axis = axes[row, column]
            axis.set_axis_off()
            if column < len(cells):
                image = cells[column].transpose(1, 2, 0)
                if image.shape[2] == 2:
                    image = np.pad(image, ((0, 0), (0, 0), (0, 1)))
                axis.imshow(image[..., 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1)
        if names:
            axes[row, 0].text(-0.15, 0.5, names[row], transform=axes[row, 0].transAxes, ha="right", va="center", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
