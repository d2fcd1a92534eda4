"""The rows of `exec_reinit.py`: accuracy per layer and source, rank correlations, and the layout of the paper's code."""

from pathlib import Path

import numpy as np

from lib.metrics import classification, filter_projections, rank_correlation
from lib.models.checkpoints import Description
from lib.models.normalized import Normalized
from lib.reinit.sweep import Counts
from lib.reinit.targets import Cells, State, Target
from lib.reinit.weight_sources import Source
from lib.runs import input_files

# what a layer's drop is correlated with, and from which column of its rows
PREDICTORS = ("bias", "bias_z", "abs_mean", "l2_distance", "criticality")


def facts(network: Normalized, units: list[Target], critical: list[float | None]) -> dict[str, dict]:
    """What each layer's rows say of it: its number, the orientation of its filters, its criticality."""
    state, facts = network.body.state_dict(), {}
    for index, (unit, value) in enumerate(zip(units, critical, strict=True)):
        weight = state.get(unit.layer + ".weight")
        fact = {
            "layer": unit.layer,
            "index": index,
            "kind": type(network.body.get_submodule(unit.layer)).__name__,
            "mass": None,
            "bias": None,
            "bias_z": None,
            "abs_mean": None,
            "criticality": value,
        }
        if weight is not None and weight.ndim > 1:
            share = filter_projections.mass(filter_projections.projections(weight))
            score = filter_projections.z_score(share, len(weight))
            mean = float(np.nanmean(filter_projections.projections(weight, normalize=True)))
            fact |= {"mass": share, "bias": abs(share - 0.5), "bias_z": abs(score), "abs_mean": abs(mean)}
        facts[unit.layer] = fact
    return facts


def rows(
    common: dict, facts: dict[str, dict], sources: list[Source], cells: Cells, counts: Counts, own: State
) -> list[dict]:
    """One row per (source, layer); draws share a row, with the mean of their accuracies and its deviation."""
    n, rows = common["n"], []
    intact, intact_five = (counts.intact.double() / n).tolist()
    shares = counts.cells.double() / n
    for label in dict.fromkeys(source.label for source in sources):
        columns = [column for column, source in enumerate(sources) if source.label == label]
        for number, fact in enumerate(facts.values()):
            accuracies = shares[number, columns, 0]
            accuracy = accuracies.mean().item()
            distances = [_distance(fact["layer"], sources[column], own) for column in columns]
            moved = [distance for distance in distances if distance is not None]
            idle = all(cells[number][column] is None for column in columns)
            rows.append(
                {
                    **common,
                    **fact,
                    "source": label,
                    "draws": len(columns) if label == "rand" else None,
                    "status": "unchanged" if idle else "measured",
                    "accuracy": accuracy,
                    "accuracy_sd": accuracies.std().item() if len(columns) > 1 else None,
                    "relative_drop": (intact - accuracy) / intact if intact else None,
                    "top5_accuracy": shares[number, columns, 1].mean().item() if common["classes"] > 5 else None,
                    "se": classification.standard_error(accuracy, n),
                    "intact_accuracy": intact,
                    "intact_top5_accuracy": intact_five if common["classes"] > 5 else None,
                    "l2_distance": sum(moved) / len(moved) if len(moved) == len(distances) else None,
                }
            )
    return rows


def analysis(common: dict, rows: list[dict], seed: int) -> list[dict]:
    """Per source and predictor, over the layers: rank correlation with the drop, alone and given depth.

    Layers without filters, and predictors that were not measured, are left out.
    """
    correlations = []
    for label in dict.fromkeys(row["source"] for row in rows):
        for predictor in PREDICTORS:
            members = [
                row
                for row in rows
                if row["source"] == label
                and row["relative_drop"] is not None
                and row[predictor] is not None
                and np.isfinite(row[predictor])
            ]
            if not members:
                continue
            x, y, depth = (np.array([row[column] for row in members]) for column in (predictor, "relative_drop", "index"))
            chance = rank_correlation.spearman_p(x, y, seed=seed)
            partial = rank_correlation.partial_spearman_p(x, y, depth, seed=seed)
            correlations.append(
                {
                    **common,
                    "source": label,
                    "layer": None,
                    "status": "analysis",
                    "predictor": predictor,
                    "layers": len(members),
                    "spearman": rank_correlation.spearman(x, y),
                    "p_value": chance.p,
                    "p_least": chance.least,
                    "partial": rank_correlation.partial_spearman(x, y, depth),
                    "partial_p": partial.p,
                    "partial_p_least": partial.least,
                }
            )
    return correlations


def paper_layout(description: Description, path: Path, rows: list[dict], labels: list[str]) -> dict:
    """The paper's JSON (section 3.3): accuracies in per cent, a list over the layers for each source."""
    percent = {label: [100 * row["accuracy"] for row in rows if row["source"] == label] for label in labels}
    five = rows[0]["intact_top5_accuracy"]
    epoch = description.epoch if description.epoch is not None else input_files.epoch_of(path)
    seed = description.config.get("seed")
    return {
        "init_from_epoch": percent,
        "arch": description.architecture,
        "dataset": rows[0]["data"],
        "top1_test": 100 * rows[0]["intact_accuracy"],
        "top5_test": None if five is None else 100 * five,
        "epoch": str(epoch),
    } | ({} if seed is None else {"seed": str(seed)})


def _distance(layer: str, source: Source, own: State) -> float | None:
    """How far the trained weights of a layer are from the source's."""
    key = layer + ".weight"
    return filter_projections.distances(own[key], source.state[key])[0] if key in source.state else None
