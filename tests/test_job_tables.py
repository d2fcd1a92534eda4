"""Jobs at the papers' sizes run the commands whose records fill the tables that they name, in the papers' set-ups.

From the noted commands follow the configurations of the records that they would write, and of the rows what is known before
anything is measured: settings, trainings, data. The cells of the tables are asked for that, as they are of records.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import readme
import torch
from test_jobs import JOBS, commands_by_job

from lib import models
from lib.datasets import names
from lib.experiments import EXPERIMENTS
from lib.models import cutting
from lib.ood.flags import BASELINES
from lib.probing.selection import RULES
from lib.runs import cli
from lib.tables.papers import chosen
from lib.tables.papers.spec import Cell, cells, matches
from lib.tables.record_library import Library, RecordedRun

FILLS = {
    job: line.removeprefix("# Fills ").split(", ")
    for job in JOBS
    for line in job.read_text().splitlines()
    if line.startswith("# Fills ")
}
# the cells that jobs leave empty, by words of their headings
LEFT_OUT = {
    "ilc/fig3": ("MultiCelebA / ViT",),  # which ViT takes images of this size was not found
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, list[tuple]]:
    """(run, configuration) of every command by its job."""
    kinds, found = readme.configurations(), {}
    for job, commands in commands_by_job(JOBS, tmp_path_factory.mktemp("jobs"), SMALL="").items():
        named_scripts = [(os.path.basename(script), words) for script, *words in commands]
        parsed = [(script, cli.parse(kinds[script], words)) for script, words in named_scripts]
        records = [(Path(f"{number}.json"), record(script, config)) for number, (script, config) in enumerate(parsed)]
        made = Library(records, EXPERIMENTS).runs
        found[job] = [(run, config) for run, (_, config) in zip(made, parsed, strict=True)]
    return found


def record(script: str, config) -> dict:
    """A record as far as it is known before the run."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        "experiment": script.removeprefix("exec_").removesuffix(".py"),
        "environment": {},
        "rows": [],
        "inputs": {},
        "started": "",
        "config": {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
    }


@pytest.mark.parametrize("job", FILLS, ids=lambda job: job.stem)
def test_a_jobs_commands_fill_the_tables_that_it_names(job, runs):
    for name in FILLS[job]:
        (table,) = chosen((name,)).values()
        wanted = [cell for cell in cells(table) if cell.experiment and not cell.lacks]
        empty = [" / ".join(str(label) for label in cell.labels) for cell in wanted if not filled(cell, runs[str(job)])]
        missing = [words for words in empty if not words.startswith(LEFT_OUT.get(name, ()))]
        assert wanted and len(empty) < len(wanted) and not missing, (name, missing)


def test_jobs_name_layers_that_their_networks_have(runs):
    asked = {
        (kind, tuple(words))
        for commands in runs.values()
        for run, config in commands
        for about, _ in rows(run, config, commands)
        for kind, words in layers(run, config, about)
    }
    assert {kind for kind, _ in asked} >= {"pytorch_cifar_resnet18", "vit_tiny_patch4_32", "WRN_40_10", "tv_resnet50"}
    for kind, words in asked:
        with torch.device("meta"):
            network = models.build(kind, 10, 3, models.accepted_size(kind, 32))
        assert cutting.select([name for name, _ in network.named_modules() if name], words, {}), (kind, words)


def layers(run: RecordedRun, config, about: dict) -> list[tuple[str, list[str]]]:
    """Types of networks with the words for layers that a configuration has for them."""
    if run.experiment == "probe":
        return [(about["net.model_type"], config.layers)]
    if run.experiment == "ood_detector":
        return [(about["net.model_type"], config.layer)]
    if run.experiment in ("stitch", "similarity"):
        words = ("front_layer", "end_layer") if run.experiment == "stitch" else ("layers1", "layers2")
        return [
            (about[f"{role}.model_type"], getattr(config, name).split(","))
            for role, name in zip(("front", "end"), words, strict=True)
        ]
    if run.experiment == "train" and about.get("net.features"):
        backbone, layer = names.parse(config.dataset).features
        return [(run.library.network(backbone).training["model_type"], [layer])]
    return []


def filled(cell: Cell, commands: list[tuple]) -> bool:
    """Whether one of the commands has rows for the cell, and the runs are there that it is made from."""
    if not all(any(is_run(run, experiment, flags) for run, _ in commands) for experiment, flags in cell.before):
        return False
    if not (EXPERIMENTS[cell.experiment].fields if cell.experiment in EXPERIMENTS else {}):  # made of other records
        return any(run.experiment == "tables" and cell.experiment in config.tables for run, config in commands)
    of_gain = str(cell.where.get("probe")).endswith("gain")  # one row of one group; other rows are of every group
    asked = [*cell.where.items(), *((name, wanted) for name, wanted in cell.setup.items() if wanted is not None)]
    asked = [(name, wanted) for name, wanted in asked if name != "group" or of_gain]
    return any(
        all(holds(about, known, name, wanted) for name, wanted in asked)
        for run, config in commands
        if run.experiment == cell.experiment
        for about, known in rows(run, config, commands)
    )


def holds(about: dict, columns: dict, name: str, wanted) -> bool:
    """Whether a condition is met as far as it can be known."""
    if "." in name or name == "same_network":
        return matches(about.get(name), wanted)
    return name not in columns or any(matches(value, wanted) for value in columns[name])


def is_run(run: RecordedRun, experiment: str, flags: dict) -> bool:
    """Whether a run is the one of these flags; files and folders may be others."""
    fields = EXPERIMENTS[experiment].fields
    flags = {name.partition(".")[2]: wanted for name, wanted in flags.items() if "{" not in str(wanted)}
    return run.experiment == experiment and all(
        run.config[name] == wanted for name, wanted in flags.items() if fields[name].metadata.get("identity", True)
    )


def rows(run: RecordedRun, config, commands: list[tuple]) -> Iterator[tuple[dict, dict]]:
    """What is known of a row of every network, or pair of networks, of a run, and the values its columns may have."""
    own = [{}]
    if run.experiment == "ncg" and config.against:
        own = [{"model": config.model_path}, {"model": config.against}]
    elif run.experiment == "projections":
        own = [{"checkpoint": path} for path in config.model_path]
    elif run.experiment == "stitch_ood":
        own = [
            {"front": grid.front_path, "end": grid.end_path, "init": grid.init, "trained": grid.epochs > 0}
            for stitch, grid in commands
            if stitch.experiment == "stitch" and f"results/stitch/{grid.name}.json" in config.stitch_run
        ]
    for row in own:
        about = run.about(row)
        yield about, {name: (value,) for name, value in row.items()} | columns(run.experiment, config, about)


def columns(experiment: str, config, about: dict) -> dict[str, tuple]:
    """What the columns of an experiment's rows may hold, as far as the configuration tells."""
    trained_on = about.get("net.dataset", "")
    if experiment == "probe":
        return {
            "protocol": (config.how,),
            "data": named(*config.ood) or named(config.dataset or trained_on),
            "selected_by": (*(config.select or RULES), None),
            "reduce": config.reduce or ("flatten", "cls"),
            "fraction": (config.fraction or (0.1,)) if config.how == "few-shot" else (None,),
            "group": ("all" if config.metric == "accuracy" or "cifar" in trained_on else "worst",),
        }
    if experiment == "ood_layers":
        scores = (
            "energy",
            *(f"two-sided, chosen by {name}" for name in config.choose),
            *config.aggregate,
            *(BASELINES if "all" in config.baselines else config.baselines),
        )
        return {
            "id": named(config.dataset or trained_on),
            "ood": named(*config.ood),
            "T": (*config.temperature, None),
            "score": ("early exit",) if config.early_exit else scores,
        }
    if experiment == "ncg":
        return {
            "space": config.space or ("feature" if about.get("net.features") else "pixel",),
            "subset": (
                "all",
                *(f"quintile:{number}" for number in range(1, 6)),
                *(("radius",) if config.radius else ()),
                *(("cells", "slope") if config.corruptions else ()),
            ),
        }
    if experiment == "stitch":
        return {"init": (config.init,), "trained": (config.epochs > 0,), "samples": (int(config.pinv_samples),)}
    if experiment in ("eval", "data"):
        return {"data": named(*(config.dataset if experiment == "eval" else config.arguments))}
    return {}


def named(*words: str) -> tuple[str, ...]:
    """Data sets as commands name them, and as rows do."""
    return (*words, *(names.parse(word).name for word in words if word not in ("near", "far")))
