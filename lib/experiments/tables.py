"""Tables from records: `exec_tables.py`. Reads records only, and writes none."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lib import files, grounding, results, tables
from lib.cli import RunConfig, flag
from lib.errors import UserError
from lib.lazy import lazy

plots = lazy("lib.plots.grounding")

# experiment -> which rows are shown, the columns that say what a row is about, and those that were measured
TABLES = {
    "train": (lambda row: row["best"], ("run", "epoch", "selected_on"), ("train_accuracy", "val_accuracy")),
    "eval": (lambda row: row["subset"] == "all", ("run", "data", "split", "variant", "n"), ("accuracy", "loss", "ece")),
    "ood_layers": (lambda row: True, ("run", "id", "ood", "variant", "T", "layer", "score"),
                   ("auroc", "auroc_two_sided", "fpr95")),
    "projections": (lambda row: True, ("checkpoint", "epoch", "layer", "filters"), ("mass", "z", "mean", "l2_distance")),
    "reinit": (lambda row: row["status"] != "missing", ("run", "data", "source", "layer", "predictor"),
               ("accuracy", "relative_drop", "spearman", "p_value", "partial", "partial_p")),
    "probe": (lambda row: row["probe"] == "gain", ("run", "data", "variant", "protocol", "fraction", "selected_by", "group"),
              ("accuracy", "baseline", "gain", "gain_low", "gain_high")),
    "similarity": (lambda row: True, ("run", "data", "n", "layer1", "layer2", "rank1", "rank2"),
                   ("cka", "cka_debiased", "pwcca", "procrustes")),
    "ncg": (lambda row: row["subset"] == "all", ("run", "model", "train", "data", "split", "variant", "space", "n"),
            ("ncg", "chance", "majority", "independence", "kappa", "accuracy", "mean_distance")),
    "stitch": (lambda row: True, ("run", "data", "split", "type", "init", "epochs", "front_layer", "end_layer",
                                  "stitch_rank", "pinv_rank"),
               ("accuracy", "penalty", "agreement", "normalized_difference")),
}


@dataclass(frozen=True, kw_only=True)
class TablesConfig(RunConfig):
    """Tables of the records under results/."""

    experiments: tuple[str, ...] = flag((), positional=True, choices=(*TABLES, *grounding.TESTS),
                                        help="default: all that have records; specificity, sensitivity: do indices of "
                                             "similarity agree with probes?")
    rerun: str = flag("", help="a record whose run is repeated")

    def answer(self) -> str:
        return _rerun(Path(self.rerun)) if self.rerun else text(self)


def text(config: TablesConfig) -> str:
    """One table per experiment: the mean of what was measured, its standard deviation and number over seeds."""
    parts = []
    for experiment in [name for name in TABLES if name in config.experiments or not config.experiments]:
        shown, keys, measured = TABLES[experiment]
        rows = [{**row, "run": _network(record)} for _, record in results.records(config.results_dir, (experiment,))
                for row in record["rows"] if shown(row)]
        if rows:
            parts.append(f"## {experiment}\n\n{tables.text(tables.summary(rows, keys, measured))}")
    tests = [name for name in grounding.TESTS if name in config.experiments or not config.experiments]
    parts += _grounded(config, tests) if tests else []
    return "\n\n".join(parts) or f"no records under {config.results_dir}/"


def _grounded(config: TablesConfig, tests: list[str]) -> list[str]:
    """The statistical tests of indices against probes, each with its figure."""
    records = [record for _, record in results.records(config.results_dir, ("similarity", "stitch", "probe"))]
    pairs, parts = grounding.pairs(records), []
    rows = grounding.rows(records) if pairs else []
    for test in tests:
        shown = [{key: value for key, value in row.items() if key != "test"} for row in rows if row["test"] == test]
        if not shown:
            continue
        panels = {}
        for pair in pairs:
            if pair.test == test:
                panels.setdefault(f"{pair.index}: {pair.setting}", []).append(
                    (pair.reference.layer, pair.gap, pair.dissimilarity))
        path = Path(config.results_dir) / "tables" / f"{test}.png"
        files.write_figure(path, plots.scatter(panels, f"{test} of indices of similarity"))
        parts.append(f"## {test}\n\n{tables.text(shown)}\n\nfigure: {path}")
    return parts


def _network(record: dict) -> str:
    """What was run, without what differs between seeds: the checkpoint or checkpoints, or the type and its folder."""
    config = record["config"]
    names = ("model_path", "model1_path", "model2_path", "front_path", "end_path")
    given = [config[name] for name in names if config.get(name)]
    paths = [path for value in given for path in (value if isinstance(value, list) else [value])]
    return " and ".join(paths) or f"{config['model_type']} {config['directory']}"


def _rerun(path: Path) -> str:
    """Runs a record's command again, in this working directory, in place of the record."""
    command = results.read(path)["command"]
    script = Path(__file__).resolve().parents[2] / command[0]
    if not script.is_file():
        raise UserError(f"{path}: its command {command[0]} is no script of the suite")
    done = subprocess.run([sys.executable, str(script), *command[1:], "--overwrite"])
    if done.returncode:
        raise UserError(f"{path}: its command failed with exit status {done.returncode}")
    return f"{path} was made again"
