"""One table per experiment: what its records measured, runs that differ only in their seeds in one line."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from lib.tables import record_library
from lib.tables.record_library import Library, Run


@dataclass(frozen=True)
class Summary:
    """Which rows are shown, the columns that say what a row is of, and those that were measured."""

    keys: tuple[str, ...]
    measured: tuple[str, ...]
    shown: Callable[[dict], bool] = lambda row: True


SUMMARIES = {
    "train": Summary(("selected_on",), ("epoch", "train_accuracy", "val_accuracy"), lambda row: row.get("best")),
    "eval": Summary(("data", "split", "variant", "n"), ("accuracy", "loss", "ece"), lambda row: row.get("subset") == "all"),
    "ood_layers": Summary(("id", "ood", "variant", "T", "layer", "score", "needs"), ("auroc", "auroc_two_sided", "fpr95")),
    "projections": Summary(("epoch", "layer", "filters"), ("mass", "z", "mean", "l2_distance")),
    "reinit": Summary(
        ("data", "source", "layer", "predictor"),
        ("accuracy", "relative_drop", "spearman", "p_value", "partial", "partial_p"),
        lambda row: row.get("status") != "missing",
    ),
    "probe": Summary(
        ("data", "variant", "protocol", "fraction", "selected_by", "group"),
        ("accuracy", "baseline", "gain", "gain_low", "gain_high"),
        lambda row: row.get("probe") == "gain",
    ),
    "similarity": Summary(
        ("data", "n", "layer1", "layer2", "rank1", "rank2"), ("cka", "cka_debiased", "pwcca", "procrustes")
    ),
    "ncg": Summary(
        ("train", "data", "split", "variant", "space", "n"),
        ("ncg", "chance", "majority", "independence", "kappa", "accuracy", "mean_distance"),
        lambda row: row.get("subset") == "all",
    ),
    "ood_detector": Summary(
        ("model_type", "layer", "phase", "epoch", "outliers"),
        ("train_accuracy", "val_accuracy", "val_loss", "val_energy"),
        lambda row: row.get("detector"),
    ),
    "stitch_ood": Summary(
        ("kind", "method", "data", "front_layer", "end_layer", "stitch_rank", "pinv_rank", "n"),
        ("accuracy", "auroc", "auroc_two_sided", "aupr_in", "fpr95"),
        lambda row: row.get("missing") is None,
    ),
    "stitch": Summary(
        ("data", "split", "type", "init", "epochs", "null", "front_layer", "end_layer", "stitch_rank", "pinv_rank"),
        ("accuracy", "penalty", "agreement", "normalized_difference"),
    ),
}


def rows(experiment: str, library: Library, seeds: tuple[int, ...] = ()) -> list[dict]:
    """Per network, setting and key: of each measured column the mean, the sample deviation, and how many runs.

    The deviation of a single run does not exist and is left empty: one seed is shown as one seed. Where lines differ in
    nothing else, `setting` says in what, and `code` of which versions of the code several are mixed.
    """
    summary, groups = SUMMARIES[experiment], {}
    for run in library.of(experiment):
        for row in filter(summary.shown, run.rows):
            if seeds and not set(run.seeds(row)) <= set(seeds):
                continue
            about = {"run": _title(run, row), **{column: row.get(column) for column in summary.keys}}
            identity = run.identity(row)
            key = (tuple(about.values()), record_library.key(identity))
            groups.setdefault(key, (about, identity, {}))[2].setdefault(run.instance(row), {})[run] = row
    found = [
        _line(summary, about, [(latest := record_library.latest(runs), runs[latest]) for runs in instances.values()])
        for about, _, instances in groups.values()
    ]
    for line, setting in zip(found, _settings(list(groups.values())), strict=True):
        line["setting"] = setting
    kept = [column for column in (found[0] if found else ()) if any(line[column] not in (None, "") for line in found)]
    return [{column: line[column] for column in kept} for line in found]


def _line(summary: Summary, about: dict, members: list[tuple[Run, dict]]) -> dict:
    line = {"run": about["run"], "setting": "", **about}
    for column in summary.measured:
        numbers = [row[column] for _, row in members if row.get(column) is not None]
        line[column] = numbers[0] if len(set(numbers)) == 1 else statistics.fmean(numbers) if numbers else None
        line[f"{column} sd"] = statistics.stdev(numbers) if len(numbers) > 1 else None
    codes = sorted({run.code for run, _ in members})
    return {**line, "runs": len(members), "code": " ".join(codes) if len(codes) > 1 else ""}


def _settings(groups: list[tuple]) -> list[str]:
    """What distinguishes lines that look alike."""
    alike: dict[tuple, list[int]] = {}
    for place, (about, _, _) in enumerate(groups):
        alike.setdefault(tuple(about.values()), []).append(place)
    found = [""] * len(groups)
    for places in alike.values():
        for place, words in zip(places, record_library.differences([groups[place][1] for place in places]), strict=True):
            found[place] = words
    return found


def _title(run: Run, row: dict) -> str:
    """The networks that a row is of."""
    return " and ".join(dict.fromkeys(map(str, run.subjects(row).values())))
