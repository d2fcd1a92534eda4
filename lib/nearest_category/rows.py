"""The rows of the nearest-category score: of all images, by distance to the training set, over levels of corruption.

The nearest-category paper, sections 2 and 6.4; the numbers are those of `lib.metrics.nearest_category`.
"""

import numpy as np

from lib.core.randomness import numpy_generator
from lib.metrics import nearest_category as metrics
from lib.nearest_category.neighbors import NeighborTable

LEVEL = 0.05  # of significance
NEAR_TIE = 1e-5  # of the relative margin between the nearest and the second nearest class


def rows(
    base: dict,
    predicted: np.ndarray,
    nearest: np.ndarray,
    table: NeighborTable,
    unit: float,
    *,
    classes: int,
    seed: int,
    labels: np.ndarray | None = None,
    against: np.ndarray | None = None,
) -> list[dict]:
    """The row of all images (subset "all"), and one per distance quintile, each with what `base` says of them.

    Where images have labels each has the accuracy on hits and on misses, and Welch's one-sided p that hits are no better.

    predicted, nearest   (n,) in the network's numbers of its `classes`
    labels     the same; -1 of images without one, which count in no accuracy, None where all have none
    unit       what a distance of 1 is in the table: 255 for images in [0, 1]
    against    another network's hits (n,) on the same images
    """
    if labels is not None and not (labels >= 0).any():
        labels = None
    hits, neighbours = predicted == nearest, table.nearest()
    distances = neighbours.squared.double().sqrt().numpy() / unit
    n, count = len(hits), int(hits.sum())
    statistic, p = metrics.chi_square(n, count, classes)
    whole = {
        **base,
        "subset": "all",
        **_rate(hits),
        "sum_squared_distance": neighbours.squared.sum().item(),
        "mean_distance": float(distances.mean()),
        "near_ties": float((table.margin() < NEAR_TIE).double().mean()),
        "chance": 1 / classes,
        "majority": metrics.majority(nearest),
        "independence": metrics.independence(predicted, nearest),
        "kappa": metrics.kappa(predicted, nearest),
        "chi2": statistic,
        "p_chi2": p,
        "p_permutation": metrics.permutation_p(predicted, nearest, numpy_generator(seed, "permutations")),
        "accuracy": None,
        "accuracy_1nn": None,
    }
    if labels is not None:
        whole |= {"accuracy_1nn": float((nearest == labels)[labels >= 0].mean()), **_accuracy(predicted, labels, hits)}
    if against is not None:
        whole |= {"ncg_against": float(against.mean()), **metrics.paired(hits, against)}
    parts = enumerate(metrics.distance_bins(distances), 1)
    return [
        whole,
        *(
            {
                **base,
                "subset": f"quintile:{number}",
                **_rate(hits[part]),
                "mean_distance": float(distances[part].mean()) if len(part) else None,
                **(_accuracy(predicted[part], labels[part], hits[part]) if labels is not None else {}),
            }
            for number, part in parts
        ),
    ]


def _accuracy(predicted: np.ndarray, labels: np.ndarray, hits: np.ndarray) -> dict:
    """Accuracies of the images that have labels."""
    correct = (predicted == labels)[labels >= 0]
    accuracy = float(correct.mean()) if len(correct) else None
    return {"accuracy": accuracy, **metrics.conditional_accuracy(correct, hits[labels >= 0])}


def _rate(hits: np.ndarray) -> dict:
    n, count = len(hits), int(hits.sum())
    low, high = metrics.wilson(count, n)
    return {"n": n, "hits": count, "ncg": count / n if n else None, "ncg_low": low, "ncg_high": high}


def over_levels(corrupted: list[dict]) -> list[dict]:
    """From the rows of corrupted images: slopes over the levels of each corruption, and what holds over all cells.

    A row (subset "slope") per network, space, split of a data set and corruption of three levels or more; the second
    network's slopes are tested against the first's.
    A row (subset "cells") per network, space and split of a data set, over its n_cells corruptions and levels:
    r_distance_accuracy, Pearson's r of mean distance and accuracy; welch, in how many cells hits are significantly more
    accurate than misses (p < 0.05), in all and by distance quintile; the network's scores against the second one's
    (`metrics.compare_cells`).
    Where images have no labels in the network's classes, there is nothing of accuracy.
    """
    over_levels, first = [], {}
    for (space, _, data, split), own in _grouped(corrupted, "space", "model", "data", "split"):
        cells = [row for row in own if row["subset"] == "all"]
        base = {name: cells[0][name] for name in ("model", "space", "train", "data", "split", "origin")}
        labelled = all(cell["accuracy"] is not None for cell in cells)  # labels of these images in the network's classes
        for (kind,), members in _grouped([{**row, "kind": row["variant"].rpartition("-")[0]} for row in cells], "kind"):
            levels, row = [int(cell["variant"].rpartition("-")[2]) for cell in members], {**base, "variant": kind}
            if len(set(levels)) < 3:  # single ones, named by -ood
                continue
            row["subset"] = "slope"
            for measure in ("ncg", "accuracy") if labelled else ("ncg",):
                fitted = metrics.slope(np.array(levels), np.array([cell[measure] for cell in members]))
                row |= {f"slope_{measure}": fitted[0], f"slope_{measure}_se": fitted[1]}
                before = first.setdefault((space, data, split, kind, measure), fitted)
                if before is not fitted:  # rows of the network itself come first, then those of --against
                    row |= {f"{key}_{measure}": p for key, p in metrics.slopes_differ(before, fitted, len(levels)).items()}
            over_levels.append(row)
        row = {**base, "variant": "", "subset": "cells", "n_cells": len(cells)}
        if labelled:
            row["r_distance_accuracy"] = metrics.correlation(
                [cell["mean_distance"] for cell in cells], [cell["accuracy"] for cell in cells]
            )
            for (subset,), members in _grouped(own, "subset"):
                significant = sum(cell["p_welch"] is not None and cell["p_welch"] < LEVEL for cell in members)
                row["welch" if subset == "all" else f"welch_{subset.replace(':', '_')}"] = significant
        if "ncg_against" in cells[0]:
            row |= metrics.compare_cells([cell["ncg"] for cell in cells], [cell["ncg_against"] for cell in cells])
        over_levels.append(row)
    return over_levels


def _grouped(rows: list[dict], *keys: str):
    """(values of the keys, rows) in the order of first appearance."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups.items()
