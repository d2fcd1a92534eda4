"""Which images probes classify correctly, accuracies by group, and their rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.datasets.split import Split
from lib.metrics import group_accuracy as group_metrics
from lib.metrics.classification import standard_error
from lib.probing.feature_sources import NUMBERS, FeatureName, FeatureSource
from lib.probing.fit import predicted
from lib.probing.stacked_probes import FeatureClassifiers

COLUMNS = (
    "probe",
    "network",
    "layer",
    "role",
    "aliases",
    "reduce",
    "dim",
    "rank",
    "data",
    "variant",
    "origin",
    "group",
    "split",
    "protocol",
    "solver",
    "lr",
    "l1",
    "l2",
    "l2_norm",
    "seed",
    "epoch",
    "fraction",
    "selected_by",
    "chosen",
    "choice",
    "n_learnt",
    "n_validated",
    "n",
    "correct",
    "accuracy",
    "se",
    "baseline",
    "gain",
    "gain_low",
    "gain_high",
    "gain_bound",
    "in_best_set",
    "best_set",
    "over",
    "n_seeds",
    "gain_median",
    "candidates",
    "strength",
    "nc1",
)


def right_answers(
    source: FeatureSource,
    probes: Sequence[tuple[FeatureName, FeatureClassifiers]],
    labels: Tensor,
    order: Tensor | None = None,
) -> list[Tensor]:
    """Whether each image is classified correctly, (c, n) for each of the probes: what they read, and c classifiers.

    labels (n,) are those of the whole source; of the images in `order`, if given.
    """
    if not probes:
        return []
    names, parts = list(dict.fromkeys(name for name, _ in probes)), [[] for _ in probes]
    for positions, rows in source.batches(names, order):
        for number, (name, classifiers) in enumerate(probes):
            step = max(1, NUMBERS // classifiers.biases.numel())
            parts[number] += [
                predicted(classifiers, part) == labels[positions[begin * step : begin * step + len(part)]]
                for begin, part in enumerate(rows[name].cpu().split(step))
            ]
    return [torch.cat(right, -1) for right in parts]


@dataclass(frozen=True)
class Metric:
    """What is compared: "accuracy", "worst-group" or "adjusted", by training group sizes (groups,)."""

    name: str
    sizes: Tensor

    def values(self, correct: Tensor, groups: Tensor) -> list[float]:
        """The metric of candidates (c, n) over images with these groups (n,)."""
        if not correct.shape[-1]:
            return [float("nan")] * len(correct)
        if self.name == "accuracy":
            return correct.double().mean(-1).tolist()
        accuracies, _ = group_metrics.group_accuracies(correct, groups, len(self.sizes))
        if self.name == "worst-group":
            return group_metrics.worst_group(accuracies)[0].tolist()
        return group_metrics.adjusted_average(accuracies, self.sizes).tolist()


def accuracy_rows(correct: Tensor, split: Split, positions: Tensor, sizes: Tensor) -> list[dict]:
    """One row for all images; with groups also one per group and the worst group's.

    With the groups' sizes in training (groups,) also their adjusted average; there are none where training has others.
    """
    right, where = correct[positions], split.groups[positions]
    rows = [_measured("all", int(right.sum()), len(right))]
    if len(split.group_names) < 2:
        return rows
    accuracies, tested = group_metrics.group_accuracies(right, where, len(split.group_names))
    for number, name in enumerate(split.group_names):
        rows.append(_measured(name, int(right[where == number].sum()), int(tested[number])))
    worst = int(group_metrics.worst_group(accuracies)[1])
    of_worst = rows[1 + worst]  # the first row is that of all images
    rows.append({**of_worst, "group": f"worst: {split.group_names[worst]}"})
    if len(sizes) != len(split.group_names):
        return rows
    adjusted = group_metrics.adjusted_average(accuracies, sizes).item()
    rows.append(
        {
            "group": "adjusted",
            "n": len(right),
            "correct": None,
            "accuracy": adjusted,
            "se": group_metrics.adjusted_standard_error(accuracies, sizes, tested),
        }
    )
    return rows


def _measured(group: str, right: int, n: int) -> dict:
    accuracy = right / n if n else None
    return {"group": group, "n": n, "correct": right, "accuracy": accuracy, "se": standard_error(accuracy, n)}


def row(**values) -> dict:
    """A row with every column."""
    return dict.fromkeys(COLUMNS) | values
