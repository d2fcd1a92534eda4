"""Records made up for tests: valid ones, with the whole configuration of their experiment and rows of known numbers.

And the newest of those that a script made.
"""

import dataclasses
import json
import os
from pathlib import Path

from lib.experiments import EXPERIMENTS
from lib.runs import records


def write(
    folder: Path,
    experiment: str,
    name: str,
    rows: list[dict],
    /,
    commit: str = "a" * 40,
    inputs: dict | None = None,
    started: str = "2026-01-01T00:00:00+00:00",
    **config,
) -> Path:
    """Writes `results/<experiment>/<name>.json` under the folder; settings that are not given are at default."""
    whole = {
        field.name: None if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(EXPERIMENTS[experiment].configuration)
    } | config
    record = {
        "schema": records.SCHEMA,
        "experiment": experiment,
        "revision": EXPERIMENTS[experiment].revision,
        "config": whole,
        "command": [f"exec_{experiment}.py"],
        "inputs": inputs or {},
        "environment": {"commit": commit},
        "started": started,
        "seconds": {"total": 1.0},
        "rows": rows,
    }
    path = folder / "results" / experiment / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def training(folder: Path, directory: str, *, seed: int = 0, **config) -> str:
    """The record of a training, and the path of its last checkpoint, which need not be there."""
    given = {"model_type": "CNN002", "dataset": "mnist-wo0", "epochs": 70} | config
    row = {"epoch": given["epochs"], "train_accuracy": 0.9, "val_accuracy": 0.8, "selected_on": "test", "best": True}
    write(folder, "train", directory.replace("/", "-"), [row], directory=directory, seed=seed, **given)
    return f"models/{directory}/model_{given['epochs']}.pt"


def newest(folder: Path, experiment: str) -> dict:
    """The record that was written last."""
    return json.loads(max((folder / "results" / experiment).glob("*.json"), key=os.path.getmtime).read_text())
