"""The README's diffs apply to the suite as it is, and what they add works at once in every script."""

import json
import re
import shutil
import subprocess

import background
import readme
from conftest import ROOT


def test_the_readmes_diffs_add_a_network_a_data_set_a_metric_and_an_experiment(tmp_path):
    suite = tmp_path / "suite"
    shutil.copytree(ROOT / "lib", suite / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("exec_*.py"):
        shutil.copy(path, suite)
    diffs = re.findall(r"```diff\n(.*?)```", readme.documentation(), re.DOTALL)
    assert len(diffs) == 4
    for number, diff in enumerate(diffs):
        assert sum(line.startswith("+") for line in diff.splitlines()) < 40
        file = tmp_path / f"{number}.diff"
        file.write_text(diff)
        done = subprocess.run(["git", "apply", file], cwd=suite, capture_output=True, text=True)
        assert done.returncode == 0, diff.splitlines()[0] + done.stderr
    for command in (
        "exec_train.py two_layers -d stripes -dir a -e 2 -lr 1e-2 -gpu -1",
        "exec_similarity.py models/a/init.pt models/a/model_2.pt auto auto relu --measures best_cca",
        "exec_norms.py models/a/model_2.pt",
    ):
        script, *words = command.split()
        assert background.run([suite / script, *words], tmp_path) == 0, (tmp_path / "log").read_text()

    def rows(experiment):
        return json.loads(next((tmp_path / "results" / experiment).glob("*.json")).read_text())["rows"]

    assert rows("train")[-1]["val_accuracy"] > 0.95
    assert 0 < rows("similarity")[0]["best_cca"] <= 1 + 1e-9
    assert {row["layer"] for row in rows("norms")} == {"hidden.weight", "hidden.bias", "fc.weight", "fc.bias"}
