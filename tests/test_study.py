"""exec_study.py: the records of the single scripts, from shared passes."""

import shutil
import signal

import pytest
from conftest import script, stopped_script

from lib.experiments import EXPERIMENTS
from lib.runs import records
from lib.tables import rerun

BRIEF = ("--max-examples", 120, "--quiet")
SETS = ("-ood", "digits-c/fog-3", "patches")


@pytest.fixture(scope="module")
def studied(trained):
    """The working directory after a study, and what the study printed."""
    done = script("exec_study.py", "models/a/model_2.pt", *SETS, "--max-examples", 120, "--more", "probe:-e 2", cwd=trained)
    assert done.returncode == 0, done.stderr
    return trained, done


def found(folder) -> dict[str, tuple]:
    """Experiment -> path and content of its record."""
    paths = [path for path in (folder / "results").glob("*/*.json") if path.parent.name != "train"]
    return {path.parent.name: (path, records.read(path)) for path in paths}


def test_a_study_writes_a_record_of_every_experiment_and_shows_the_network(studied):
    folder, done = studied
    names = {"eval", "ood_layers", "probe", "ncg", "similarity", "stitch", "projections", "reinit"}
    assert found(folder).keys() == names
    assert "energy AUROC" in done.stdout and (folder / "results" / "tables" / "a-model_2.png").exists()
    assert "forward passes made for" in done.stderr
    assert "leaves out patches" in done.stderr  # which have no classes to probe


@pytest.mark.parametrize("experiment", ["eval", "ood_layers", "probe", "ncg", "similarity", "stitch"])
def test_the_numbers_are_those_of_the_single_script(studied, experiment, monkeypatch):
    folder, _ = studied
    monkeypatch.chdir(folder)
    path, record = found(folder)[experiment]
    assert record["command"][0] == f"exec_{experiment}.py"
    said = rerun.check(path.relative_to(folder), EXPERIMENTS)
    assert "agree" in said or "same" in said, said


def test_single_scripts_and_studies_find_what_is_there(studied):
    folder, _ = studied
    for name, *words in (record["command"] for _, record in found(folder).values()):
        done = script(name, *words, cwd=folder)
        assert done.returncode == 0 and "already there" in done.stderr
    done = script("exec_study.py", "models/a/model_2.pt", *SETS, "--max-examples", 120, "--more", "probe:-e 2", cwd=folder)
    assert done.returncode == 0 and "forward passes" not in done.stderr


def test_an_image_goes_through_the_network_once(trained):
    words = ("--only", "eval", "ood_layers", "probe", "ncg", "--max-examples", 60, "--more", "probe:-e 1")
    done = script("exec_study.py", "models/a/model_2.pt", *SETS, *words, cwd=trained)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "forward passes made for" in line]
    # training, test, fog and patches; and one image that says how many features layers have
    assert line.startswith("241 images were decoded for ") and ", and 241 forward passes made for " in line


def test_the_plan_says_what_would_run_and_what_is_there(studied, tmp_path):
    folder, _ = studied
    done = script("exec_study.py", "models/a/model_2.pt", *SETS, *BRIEF, "--plan", "--skip", "eval", cwd=folder)
    assert done.returncode == 0, done.stderr
    for words in ("python exec_ood_layers.py models/a/model_2.pt", "round 1:", "is there already", "images through the"):
        assert words in done.stdout
    assert "exec_eval.py" not in done.stdout and "record: " not in done.stdout  # a study writes none of its own


@pytest.mark.parametrize(
    "words, status, sentence",
    [
        (("models/none.pt",), 1, "models/none.pt: no such checkpoint"),
        (("models/a/model_2.pt", "--only", "probe", "--skip", "probe"), 2, "--skip leaves no experiment"),
        (("models/a/model_2.pt", "--more", "probes:-e 2"), 2, "--more probes:-e 2: it is EXPERIMENT:FLAGS"),
        (("models/a/model_2.pt", "--more", "probe:--epoch 2"), 2, "--epoch: no such flag"),
        (("models/a/model_2.pt", "--more", 'eval:"x'), 2, "a quotation mark is not closed"),
        (
            ("models/a/model_2.pt", "-ood", "patches", "--against", "models/nope.pt"),
            1,
            "similarity: models/nope.pt: no such",
        ),
        (("models/a/model_2.pt", "--against", "models/nope.pt", "--plan"), 1, "similarity: models/nope.pt: no such"),
        (("models/a/model_2.pt", "-ood", "patchs"), 2, "patches"),
        (("models/a/model_2.pt", "--only", "ncg", "-ood", "patches", "--ncg-layers", "conv9"), 1, "no layer is called so"),
    ],
)
def test_mistakes_are_one_sentence(trained, words, status, sentence):
    done = script("exec_study.py", *words, cwd=trained)
    assert done.returncode == status and sentence in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_study_that_is_stopped_goes_on_with_what_is_missing(trained, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "models")
    wanted = ("--only", "eval", "ood_layers", "reinit")
    words = ("exec_study.py", "models/a/model_2.pt", "-ood", "patches", "--max-examples", 60, *wanted)
    stopped = stopped_script(*words, cwd=tmp_path, number=signal.SIGTERM, once=tmp_path / "results" / "eval")
    assert stopped.returncode in (0, 75), stopped.stderr
    done = script(*words, cwd=tmp_path)
    assert done.returncode == 0 and len(list((tmp_path / "results").glob("*/*.json"))) == 3, done.stderr
    assert not list((tmp_path / "results").glob("*/.*.lock"))


def test_a_study_of_few_images_matches_stitches_on_all_of_them(trained, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "models")
    words = ("--only", "stitch", "--max-examples", 40, "--quiet")
    done = script("exec_study.py", "models/a/model_2.pt", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert found(tmp_path)["stitch"][1]["config"]["pinv_samples"] == "all"


def test_a_run_that_fails_leaves_the_others_their_records(trained, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "models")
    more = ("--only", "eval", "ood_layers", "--more", "ood_layers:-l conv9")
    done = script("exec_study.py", "models/a/model_2.pt", "-ood", "patches", *BRIEF, *more, cwd=tmp_path)
    assert done.returncode == 1 and "1 of 2 runs failed, the others are done. ood_layers: " in done.stderr
    assert [path.parent.name for path in (tmp_path / "results").glob("*/*.json")] == ["eval"]


def test_a_name_is_that_of_every_record(trained):
    words = ("--only", "eval", "ncg", "--ncg-layers", "features.3", "--name", "mine", "-ood", "patches", *BRIEF)
    done = script("exec_study.py", "models/a/model_2.pt", *words, cwd=trained)
    assert done.returncode == 0, done.stderr
    named = {str(path.relative_to(trained / "results")) for path in (trained / "results").glob("*/mine*.json")}
    assert named == {"eval/mine.json", "ncg/mine-features.3.json"}


def test_what_holds_more_than_its_share_of_memory_runs_in_a_round_of_its_own(trained):
    words = ("--only", "ncg", "--ncg-layers", "cuts", "--cache-gib", "1e-6", "--plan")
    done = script("exec_study.py", "models/a/model_2.pt", "-ood", "patches", *BRIEF, *words, cwd=trained)
    runs = done.stdout.count("exec_ncg.py")
    assert done.returncode == 0 and runs > 5 and done.stdout.count("\nround ") == runs
