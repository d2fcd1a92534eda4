"""The README's diffs apply to the suite as it is, and what they add works at once in every script."""

import json
import os
import re
import shutil
import subprocess
import sys

from conftest import ROOT

# all in one process, so that torch is imported once
RUN = """
import os, runpy, sys
root, commands = sys.argv[1], sys.argv[2:]
sys.path.insert(0, root)
for command in commands:
    sys.argv = command.split()
    try:
        runpy.run_path(os.path.join(root, sys.argv[0]), run_name="__main__")
    except SystemExit as end:
        sys.exit(f"{command}: {end.code}")
"""


def test_the_readmes_diffs_add_a_network_a_data_set_a_metric_and_an_experiment(tmp_path):
    suite = tmp_path / "suite"
    shutil.copytree(ROOT / "lib", suite / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("exec_*.py"):
        shutil.copy(path, suite)
    diffs = re.findall(r"```diff\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(diffs) == 4
    for number, diff in enumerate(diffs):
        assert sum(line.startswith("+") for line in diff.splitlines()) < 40
        file = tmp_path / f"{number}.diff"
        file.write_text(diff)
        done = subprocess.run(["git", "apply", file], cwd=suite, capture_output=True, text=True)
        assert done.returncode == 0, diff.splitlines()[0] + done.stderr
    commands = [
        "exec_train.py two_layers -d stripes -dir a -e 2 -lr 1e-2 -gpu -1",
        "exec_similarity.py models/a/init.pt models/a/model_2.pt auto auto relu --measures best_cca",
        "exec_norms.py models/a/model_2.pt",
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, suite, *commands],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr

    def rows(experiment):
        return json.loads(next((tmp_path / "results" / experiment).glob("*.json")).read_text())["rows"]

    assert rows("train")[-1]["val_accuracy"] > 0.95
    assert 0 < rows("similarity")[0]["best_cca"] <= 1 + 1e-9
    assert {row["layer"] for row in rows("norms")} == {"hidden.weight", "hidden.bias", "fc.weight", "fc.bias"}
