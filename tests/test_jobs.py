"""The job scripts and the README's commands: every one is a command the suite takes, at full and at small size."""

import dataclasses
import os
import re
import shlex
import subprocess

import pytest
import readme
from conftest import ROOT
from layouts import write_birds

from lib.core import files
from lib.runs import cli
from lib.tables import missing_runs
from lib.tables.papers import PAPERS, names
from lib.tables.papers.spec import cells

pytestmark = pytest.mark.usefixtures("one_parser_for_a_script")

SHARED = ("common.sh", "networks.sh", "slurm.sh", "demo.sh")
JOBS = sorted(path for path in (ROOT / "jobs").glob("*.sh") if path.name not in SHARED)

# in place of python and torchrun: notes the command, and leaves the checkpoint that a training would leave
NOTES = r"""
note() {
    local word before= directory= epochs=
    printf '%q ' "$JOB" "$@" >> "$COMMANDS"; echo >> "$COMMANDS"
    if [[ $1 != */exec_train.py ]]; then return; fi
    for word in "$@"; do
        case $before in -dir) directory=$word ;; -e) epochs=$word ;; esac
        before=$word
    done
    [[ -d models/$directory ]] || mkdir -p "models/$directory"
    : > "models/$directory/init.pt"
    : > "models/$directory/model_$epochs.pt"
}
python() { note "$@"; }
torchrun() { note "${@:4}"; }  # behind --standalone --nproc-per-node N
export -f note python torchrun
for JOB in "$@"; do export JOB; bash "$JOB"; done
"""


def commands_of(jobs: list, folder, **environment: str) -> list[list[str]]:
    """The words of the commands that jobs run."""
    return [words for commands in commands_by_job(jobs, folder, **environment).values() for words in commands]


def commands_by_job(jobs: list, folder, **environment: str) -> dict[str, list[list[str]]]:
    """The words of the commands by the path of their job."""
    whole = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    whole |= {"COMMANDS": str(folder / "commands"), "WORK_DIR": str(folder)} | environment
    done = subprocess.run(["bash", "-c", NOTES, "bash", *map(str, jobs)], env=whole, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for line in (folder / "commands").read_text().splitlines():
        job, *words = shlex.split(line)
        found.setdefault(job, []).append(words)
    return found


@pytest.mark.parametrize("small", ["", "1"], ids=["paper", "small"])
def test_every_command_of_every_job_is_one_that_the_suite_takes(tmp_path, small):
    commands = commands_of(JOBS, tmp_path, SMALL=small)
    assert len(commands) > 2 * len(JOBS)
    parsed(commands)
    if small:
        foreign = [words for words in commands if {"cifar10", "imagenet", "mnist", "waterbirds", "celeba"} & set(words)]
        assert not foreign


def test_the_environment_gives_a_job_other_words_flags_seeds_and_classes(tmp_path):
    layers = [ROOT / "jobs" / "oodlayers-layers.sh"]
    commands = commands_of(
        layers,
        tmp_path,
        INSTEAD="cifar10=digits svhn=npy=dots.npy oodlayers/imagenet-stem-s1=mine",
        MORE_TRAIN="-e 3 --precision bf16",
        MORE_OOD_LAYERS="-T 1 10",
        SEEDS="1",
    )
    parsed(commands)
    (train, *words), (layers, *others) = commands
    assert words[1:5] == ["-d", "digits", "-dir", "mine"] and words[-4:] == ["-e", "3", "--precision", "bf16"]
    assert others == ["models/mine/model_3.pt", "-ood", "npy=dots.npy", "-T", "1", "10"]
    unseen = commands_of([ROOT / "jobs" / "ncg-table3.sh"], tmp_path, UNSEEN="cifar10-wo4")[2:]
    assert len(unseen) == 10 and unseen[0][3] == "cifar10-wo4"
    (tmp_path / "some").mkdir()
    one = commands_of(
        [ROOT / "jobs" / "stitching-e1.sh", ROOT / "jobs" / "ilc-fig6.sh"],
        tmp_path / "some",
        TYPES="resnet20",
        DATA="cifar10",
    )
    assert {words[1] for words in one if words[0].endswith("exec_train.py")} == {"resnet20", "cifar_resnet18_maxpool"}


def test_several_processes_share_what_they_can():
    """The scripts that common.sh starts by torchrun are those that share their work."""
    configurations = readme.configurations()
    listed = re.search(r'^parallel="(.*)"$', (ROOT / "jobs" / "common.sh").read_text(), re.MULTILINE)[1].split()
    assert sorted(listed) == sorted(name for name, configuration in configurations.items() if configuration.parallel)


def test_commands_of_several_processes_are_those_of_one(tmp_path):
    jobs = [ROOT / "jobs" / f"{name}.sh" for name in ("ncg-pixel", "oodlayers-layers", "stitching-e1", "hyperplanes-f3")]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (
        commands_of(jobs, tmp_path / name, SMALL="1", PROCESSES=count) for name, count in (("one", "1"), ("two", "2"))
    )
    assert one == two


@pytest.mark.parametrize("status", [75, 1])
def test_the_status_of_the_first_process_is_that_of_the_command(tmp_path, status):
    script = f"""torchrun() {{ echo {status} > "$EXIT_STATUS_FILE"; return 1; }}
        PROCESSES=2 WORK_DIR={tmp_path}; source {ROOT}/jobs/common.sh; run exec_ood_layers.py x"""
    assert subprocess.run(["bash", "-c", script], capture_output=True).returncode == status


def parsed(commands: list[list[str]]) -> list[cli.RunConfig]:
    """What command lines say: every one is taken, and names data sets, types and layers in forms that exist."""
    configurations, found = readme.configurations(), []
    for path, *words in commands:
        try:
            found.append(cli.parse(configurations[os.path.basename(path)], words))
        except Exception as error:
            raise AssertionError(f"{path} {shlex.join(words)}") from error
    return found


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_every_job_says_what_it_is_and_has_its_sbatch_file(job):
    lines = job.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash" and lines[1].startswith("# ") and len(lines) < 40
    batch = job.with_suffix(".sbatch").read_text()
    assert f"--job-name={job.stem}\n" in batch and batch.endswith(f"source jobs/slurm.sh\njob {job.stem}\n")
    assert "--requeue" in batch and "--signal=TERM@" in batch


def test_every_table_that_an_experiment_fills_has_its_job():
    tables = {
        f"{paper}/{name}"
        for paper, found in PAPERS.items()
        for name, table in found.tables.items()
        if any(cell.experiment and (ROOT / f"exec_{cell.experiment}.py").exists() for cell in cells(table))
    }
    filled = [
        name
        for job in JOBS
        for line in job.read_text().splitlines()
        if line.startswith("# Fills ")
        for name in line.removeprefix("# Fills ").split(", ")
    ]
    assert len(filled) == len(set(filled)) and tables <= set(filled) <= set(names())


# in place of Slurm: notes what is submitted, and counts as its job numbers
SLURM = r"""
sbatch() { echo "$*" >> "$COMMANDS"; wc -l < "$COMMANDS"; }
srun() { shift; "$@"; }
export -f sbatch srun
bash jobs/array.sbatch "$@"
"""


def array(*words: str, tmp_path, task: int | str = "") -> subprocess.CompletedProcess:
    """`jobs/array.sbatch` with some words: submitted, or its task of a number."""
    whole = {**os.environ, "COMMANDS": str(tmp_path / "submitted"), "SLURM_ARRAY_TASK_ID": str(task)}
    return subprocess.run(
        ["bash", "-c", SLURM, "bash", *map(str, words)], cwd=tmp_path, env=whole, capture_output=True, text=True
    )


def test_the_stages_of_a_command_file_become_arrays_each_after_the_one_before(tmp_path):
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    todo = tmp_path / "todo"
    todo.write_text(
        f"# first\n\necho one\necho  two\n{missing_runs.AFTER}\n   # none\n{missing_runs.AFTER}\necho 'three  four'\n"
    )
    done = array(todo, "--time=9", tmp_path=tmp_path)
    assert done.returncode == 0 and re.findall(r"job (\d+): (\d+) commands", done.stdout) == [("1", "2"), ("2", "1")]
    first, second = (line.split() for line in (tmp_path / "submitted").read_text().splitlines())
    assert first[:3] == ["--parsable", "--array=1-2", "--time=9"] and first[3] == "jobs/array.sbatch" and first[5] == "0"
    assert second[:4] == ["--parsable", "--array=1-1", "--time=9", "--dependency=afterok:1"] and second[-1] == "2"
    todo.write_text("echo later\n")  # what is submitted stays what it was
    for stage, task, said in ((0, 1, "one"), (0, 2, "two"), (2, 1, "three  four")):
        done = array(first[4], stage, tmp_path=tmp_path, task=task)
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == said
    gone = array(first[4], 0, tmp_path=tmp_path, task=3)
    assert gone.returncode and "has no such command any more" in gone.stderr
    refused = array(tmp_path / "nothing", tmp_path=tmp_path)
    assert refused.returncode == 2 and "a file of commands is needed, not" in refused.stderr


def test_shell_scripts_are_free_of_errors_of_form():
    for path in [*(ROOT / "jobs").iterdir(), *(ROOT / "tests" / "slurm").glob("*.sh"), *(ROOT / "docs").glob("*.sh")]:
        done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_records_of_the_reproductions_are_of_the_commands_that_make_them(tmp_path, monkeypatch):
    """Each command of docs/reproductions.sh is one that the suite takes, and has its record beside the page."""
    commands = commands_of([ROOT / "docs" / "reproductions.sh"], tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lite.py").touch()
    made = [files.read_json(path)["command"] for path in (ROOT / "docs" / "reproductions").glob("*/*.json")]
    asked, found = (
        {repr(dataclasses.replace(config, quiet=False)) for config in parsed(words)} for words in (commands, made)
    )
    assert asked == found


def commands_of_pages(text: str) -> list[list[str]]:
    """The words of every `python exec_*.py` in the blocks of pages, comments and continued lines resolved."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    found = [words[words.index(script) :] for words in lines for script in words if script.startswith("exec_")]
    assert len(found) > 10
    return found


def test_every_command_of_the_pages_is_one_that_the_suite_takes():
    parsed(commands_of_pages(readme.documentation()))


@pytest.mark.parametrize(
    "job",
    [pytest.param(job, marks=() if job.stem == "hyperplanes-f2" else pytest.mark.jobs) for job in JOBS],
    ids=lambda path: path.stem,
)
def test_a_job_runs_at_small_size(job, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "jobs"  # one for all: networks that are there are not trained again
    environment = {**os.environ, "SMALL": "1", "WORK_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", job], env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    records = re.findall(r"^results/.*\.json$", done.stdout, re.MULTILINE)
    assert records and all((folder / record).is_file() for record in records)


# what the README says of larger data, said of the built-in
SMALLER = {
    "cifar10": "digits",
    "imagenet": "digits",
    "cifar10:test": "digits:test",
    "vgg11": "lenet",
    "tv_resnet18": "resnet20",
    "resnet18": "resnet20",
    "--upscale": "--no-upscale",
}


@pytest.mark.jobs
def test_the_commands_of_the_readme_and_the_tutorial_run_at_small_size(tmp_path):
    write_birds(tmp_path)
    pages = [(ROOT / name).read_text() for name in ("README.md", "docs/tutorial.md", "docs/study.md")]
    for script, *words in commands_of_pages("\n\n".join(pages)):
        words = [SMALLER.get(word, word) for word in words]
        if "-e" in words and int(words[words.index("-e") + 1]) > 10:
            words[words.index("-e") + 1] = "1"
        extra = () if script in ("exec_projections.py", "exec_tables.py") else ("--max-examples", "200")
        done = subprocess.run(
            ["python", ROOT / script, *words, *extra],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=1200,
        )
        assert done.returncode == 0, (script, words, done.stderr[-2000:])
