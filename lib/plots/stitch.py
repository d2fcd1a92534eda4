"""What stitched networks get right: heat maps over the layers that are joined."""

import numpy as np
from matplotlib.figure import Figure

from lib.plots import grid
from lib.plots.recorded import Recorded

MEASURES = {
    "accuracy": "accuracy",
    "agreement with the end network": "agreement",
    "normalized difference": "normalized_difference",
}


def figures(run: Recorded) -> dict[str, Figure]:
    """Heat maps over layers, of the first ranks that were asked for; none of a single stitch."""
    first: dict[tuple, dict] = {}
    for row in run.rows:
        if not row.get("missing"):
            first.setdefault((row["null"], row["front_layer"], row["end_layer"]), row)
    chosen = [row for (null, _, _), row in first.items() if null is None]
    if len(chosen) < 2:
        return {}
    layers = _layers(run.rows, "front_layer"), _layers(run.rows, "end_layer")

    def values(rows: list[dict], measure: str) -> np.ndarray:
        return grid.matrix(rows, "front_layer", "end_layer", layers, measure)

    panels = {title: values(chosen, name) for title, name in MEASURES.items()}
    worst = np.nanmax(panels["normalized difference"], initial=1)  # task-loss matching may leave any distance
    limits = dict.fromkeys(panels, (0.0, 1.0)) | {"normalized difference": (0.0, float(worst))}
    for null in dict.fromkeys(null for null, _, _ in first if null):
        title = f"accuracy, {null}"
        panels[title] = values([row for (kind, _, _), row in first.items() if kind == null], "accuracy")
        limits[title] = (0.0, 1.0)
    networks = run.pair(run.config["front_path"], run.config["end_path"], "into")
    whole = f", the whole end network gets {chosen[0]['end_accuracy']:.3f}" if chosen[0].get("end_accuracy") else ""
    epochs = run.config["epochs"]
    how = f"{run.config['init']}, {epochs} epochs" if epochs else f"{run.config['init']}, not trained"
    about = f"{networks}: {how}, on {chosen[0]['n']} images of {chosen[0]['data']}:{chosen[0]['split']}{whole}"
    labels = "front layer", "end layer"
    return {"": grid.heat_maps(panels, *layers, *labels, about, limits, ("normalized difference",))}


def _layers(rows: list[dict], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))
