"""How similar layers of two networks are: heat maps over layers, and over ranks."""

import numpy as np
from matplotlib.figure import Figure

from lib.plots import grid
from lib.plots.recorded import Recorded

LIMITS = dict.fromkeys(("cka", "cka_debiased", "svcca", "mean_cca", "rsa", "knn_jaccard"), (0.0, 1.0))
DISTANCES = ("pwcca", "procrustes")


def figures(run: Recorded) -> dict[str, Figure]:
    """Heat maps over layers at the highest rank, and over ranks for a single pair of layers at several."""
    measures = [name for name in run.config["measures"] if name != "disagreement"]
    if not measures:
        return {}
    rows, paths = run.rows, (run.config["model1_path"], run.config["model2_path"])
    names = list(run.names(paths).values())
    about = f"{run.pair(*paths, 'and')} on {rows[0]['n']} images of {rows[0]['data']}:{rows[0]['split']}"
    highest: dict[tuple[str, str], dict] = {}
    for row in rows:
        highest.setdefault((row["layer1"], row["layer2"]), row)  # ranks fall within a pair of layers
    layers = [row["layer1"] for row in rows], [row["layer2"] for row in rows]
    layers = list(dict.fromkeys(layers[0])), list(dict.fromkeys(layers[1]))
    panels, by_chance = _panels(list(highest.values()), measures, ("layer1", "layer2"), layers)
    labels = f"layer of {names[0]}", f"layer of {names[-1]}"
    limits = {_label(name): pair for name, pair in LIMITS.items()}
    distances = tuple(map(_label, DISTANCES))
    drawn = {"": grid.heat_maps(panels, *layers, *labels, about, limits, distances, by_chance=by_chance)}
    if len(highest) == 1 and len(rows) > 1:
        named = [{**row, "rank1": str(row["rank1"]), "rank2": str(row["rank2"])} for row in rows]
        ranks = list(dict.fromkeys(row["rank1"] for row in named)), list(dict.fromkeys(row["rank2"] for row in named))
        panels, by_chance = _panels(named, measures, ("rank1", "rank2"), ranks)
        pair, labels = f"{layers[0][0]} and {layers[1][0]} of {about}", ("rank of the first", "rank of the second")
        drawn["ranks"] = grid.heat_maps(panels, *ranks, *labels, pair, limits, distances, by_chance=by_chance)
    return drawn


def _panels(
    rows: list[dict], measures: list[str], keys: tuple[str, str], names: tuple[list[str], list[str]]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By label the values of each index, and, after `--null`, which of them chance may explain."""
    panels = {_label(name): grid.matrix(rows, *keys, names, name) for name in measures}
    by_chance = {_label(name): grid.matrix(rows, *keys, names, f"{name}_p_best") > grid.CERTAIN for name in measures}
    return panels, by_chance


def _label(measure: str) -> str:
    return f"{measure} (a distance)" if measure in DISTANCES else measure
