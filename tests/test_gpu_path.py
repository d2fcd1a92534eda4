"""Every script on a pretended GPU: what it computes there is what it computes on the CPU, and no step waits for the device.

The commands come from the configurations: a short command of every script, and that with each value of each flag that has
a choice, so that a new loss, solver or score is tried by itself. `FURTHER` has the branches that are no choice.
"""

import contextlib
import copy
import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import pretend_gpu
import pytest
import torch
from conftest import made_once, script
from torch import nn

from lib.attacks import minimum_norm
from lib.core import randomness
from lib.experiments import EXPERIMENTS
from lib.probing import stacked_probes
from lib.runs import records
from lib.tables import rerun
from lib.training import loop

FEW = ("--max-examples", "64")
SMALL = (*FEW, "-b", "16")
FP32 = ("--precision", "fp32")  # training on a GPU is in bf16 by default
CNN, OTHER, GROUPS = "models/cnn/model_2.pt", "models/other/model_1.pt", "models/groups/model_1.pt"
BN, VIT, WO9 = "models/bn/model_1.pt", "models/vit/model_1.pt", "models/wo9/model_1.pt"
WIDE = "models/wide/model_1.pt"  # of images of 32 px, as the transformer takes
BRIEF = ("-e", "1", *FEW)
BEFORE = [
    ("train", ("small_cnn", "-d", "digits", "-dir", "cnn", "-sf", "1", "--image-size", "16", *BRIEF, "-e", "2")),
    ("train", ("small_cnn", "-d", "digits", "-dir", "other", "-s", "1", "--image-size", "16", *BRIEF)),
    ("train", ("small_cnn", "-d", "digits", "-dir", "wide", *BRIEF)),
    ("train", ("small_cnn", "-d", "digits-bg", "-dir", "groups", "--image-size", "16", *BRIEF)),
    ("train", ("small_cnn", "-d", "digits-wo9", "-dir", "wo9", *BRIEF)),
    ("train", ("resnet20", "-d", "digits", "-dir", "bn", "--image-size", "16", *BRIEF)),
    ("train", ("vit_tiny_patch4_32", "-d", "digits", "-dir", "vit", *BRIEF)),
    ("stitch", (CNN, OTHER, "auto", "auto", "pool1", "pool2", "auto", "-i", "pinv", "-pinv-samples", "all", "-e", "0",
                "--name", "pinv", *FEW)),
    ("ood_detector", (OTHER, "auto", "pool2", "-m", "repr_cls_resnet20", "-ftoodd", "patches", "-e", "1", "-fe", "1",
                      "-dir", "detector", *SMALL)),
]  # fmt: skip

SHIFT = ("-ood", "digits-c/fog-5")
PROBE = ("-l", "pool1,pool2", "--reduce", "gap", "-e", "2", *SMALL)
GROUPED = (GROUPS, "-d", "digits-bg", "-ood", "digits-bg:test", *PROBE)
STITCH = (*FP32, "-e", "1", "-pinv-samples", "all", *SMALL)
BASE = {
    "train": ("small_cnn", "-d", "digits", "-dir", "{name}", "-e", "1", "--image-size", "16", *FP32, *SMALL),
    "eval": (CNN, "-d", "digits", *SMALL),
    "data": ("show", "digits"),
    "probe": (CNN, "-d", "digits", *SHIFT, *PROBE),
    "stitch": (CNN, OTHER, "auto", "auto", "pool1,pool2", "pool2", "auto", *STITCH),
    "similarity": (CNN, OTHER, "auto", "auto", "pool1,pool2", "pool2", *SMALL),
    "ood_detector": (OTHER, "auto", "pool2", "-m", "repr_cls_resnet20", "-ftoodd", "patches", "-e", "1", "-fe", "1", "-dir",
                     "{name}", "-fdir", "{name}-finished", *FP32, *SMALL),
    "stitch_ood": ("results/stitch/pinv.json", "-scd", "patches", *SMALL),
    "ood_layers": (CNN, "-d", "digits", "-ood", "patches", "-l", "all", "-T", "1", "10", *SMALL),
    "ncg": (WO9, *SMALL),
    "projections": (CNN,),
    "reinit": (CNN, "-d", "digits", "--inits-from", "models/cnn", "--rand", "1", *SMALL),
}  # fmt: skip

# flags that say nothing of what is computed on the device, or how the base already has them
ELSEWHERE = {
    "action", "format", "stitching_type", "recipe", "overwrite", "plan", "quiet", "debug", "list_layers", "list", "verbose",
    "upscale", "upscale_padding", "pretrained", "compile", "resume", "save", "eval_regularization_loss", "paper_json",
    "model_type", "sync_batchnorm", "mod_only_stitch", "show_list",
    "fold_pool",  # of a VGG at 32 px; it is folded before anything is measured, and tested by itself
}  # fmt: skip
ATTACK = ("--eps", "0.1", "--attack-steps", "3")
ENERGIES = ("--loss", "energy_layers", "--outliers", "patches")
# what a flag, or one value of it, needs beside itself
NEEDS = {
    ("train", "norm"): ("--loss", "at", *ATTACK),
    ("train", "at"): ATTACK,
    ("train", "trades"): ATTACK,
    ("train", "energy_layers"): ENERGIES[2:],
    ("train", "form"): ENERGIES,
    ("train", "margins_in"): (*ENERGIES, "--energy-layers", "fc*"),
    ("train", "raw"): ("--energy-margins", "-3", "-1"),
    ("train", "outlier_batches"): ENERGIES,
    ("train", "nesterov"): ("-o", "sgd"),
    ("train", "stratified"): ("--split", "0.5"),
    ("train", "box"): ("--loss", "at", *ATTACK),
    ("eval", "attack"): ATTACK,
    ("eval", "norm"): ("--attack", "pgd", *ATTACK),
    ("probe", "rank_basis"): ("-ranks", "2"),
    ("probe", "few-shot"): ("--fraction", "0.2"),
    ("probe", "ridge"): ("--l2", "0.1", "1"),
    ("probe", "lbfgs"): ("--l2", "0.1", "1"),
    ("probe", "prox"): ("--l1", "0.01"),
    ("probe", "transfer"): ("-ood", "digits-c/snow-5"),
    ("stitch", "pinv"): ("-e", "0"),
    ("stitch", "perm"): ("-e", "0"),
    ("stitch", "solver"): ("-i", "pinv", "-e", "0"),
    ("ood_layers", "baselines"): ("-l", "fc", "-b", "50", "--max-examples", "200"),
    ("ood_layers", "aggregate"): ("--val-ood", "digits-c/fog-5"),
}
# and in which the base has to be another
INSTEAD = {
    ("probe", "id"): (CNN, "-d", "digits", *PROBE),
    ("probe", "worst-group"): GROUPED,
    ("probe", "adjusted"): GROUPED,
    ("probe", "class_balance"): GROUPED,
    ("probe", "dfr"): GROUPED,
    ("probe", "warm_start"): (CNN, "-d", "digits", *SHIFT, "-l", "avgpool", "-e", "2", *SMALL),
    ("stitch", "perm"): (CNN, OTHER, "auto", "auto", "pool2", "pool2", "auto", *STITCH),
    ("stitch", "none"): BASE["stitch"],  # a transformer with a class token takes no stitch that makes none
    ("stitch", "c2t_cls"): (WIDE, VIT, "auto", "auto", "pool2", "blocks.5", "c2t", *STITCH),
    ("stitch", "t2c_cls"): (VIT, WIDE, "auto", "auto", "blocks.5", "pool2", "t2c", *STITCH),
    ("projections", "fold_bn"): (BN,),
    ("reinit", "recalibrate_bn"): (BN, "-d", "digits", "--inits-from", "models/bn", "-l", "layer2.0.conv?", *SMALL),
    ("reinit", "what"): (BN, "-d", "digits", "--inits-from", "models/bn", "-l", "layer2.0.conv?", *SMALL),
}
# branches that are no choice, and those of a choice that are quicker together
FURTHER = {
    "train": [
        ("--ema", "0.9", "--grad-clip", "1", "--train-acc", "--channels-last"),
        ("--noise", "0.5", "--warmup", "1"),
        ("--resume-from", CNN),
    ],
    "probe": [
        *(("--reduce", reducer) for reducer in ("flatten", "gmp", "grid:2", "random:8", "pca:4")),
        ("-ranks", "2", "4"),
        ("--augment", "2"),
        ("--cache-limit", "0"),
        ("--cache-limit", "0", "--solver", "ridge", "--l2", "0.1"),
        ("--export", "{name}"),
        ("--l2-norm", "0.1", "-wd", "0.1", "--keep-epochs", "1"),
        ("--null", "19"),
    ],
    "stitch": [
        ("--front-stitch-rank", "2", "4"),
        ("-i", "pinv", "-e", "0", "--front-pinv-rank", "2"),
        ("-l1", "0.1"),
        ("-i", "pinv", "-e", "0", "--permutations", "99"),
    ],
    "similarity": [("-m1r", "2", "-m2r", "4"), ("--bootstrap", "5")],
    "ood_layers": [("--early-exit", "0.1"), ("--conformal",)],
    "ncg": [
        ("--space", "pixel,feature", "--null", "19"),
        ("--radius", "2", "--max-examples", "16"),
        ("--against", CNN),
        ("--space", "feature", "--backbone", CNN),
    ],
    "reinit": [("--criticality",), ("--stack", "1")],
}
# what `make test` tries: the flags of which every value is tried, and these further words
FAST = {
    "train": {"loss"},
    "probe": {"solver", "baselines", "--augment", "--cache-limit", "--export", "pca:4"},
    "stitch": {"init", "solver"},
    "similarity": {"measures"},
    "ood_layers": {"aggregate", "baselines", "--early-exit"},
    "ncg": {"--radius"},
    "reinit": {"recalibrate_bn", "--criticality"},
    "eval": {"attack"},
}
SLOW = {"dfr", "apgd"}  # values of theirs that are not
TOO_SLOW = {"aa"}  # values that nothing tries: hundreds of steps, of which `apgd` has the kinds
# interpolation that is deterministic on a GPU is another sum, from which this training goes elsewhere
NOT_ALIKE = {"ood_detector --deterministic"}
BF16_ON_GPU = {"train", "stitch", "ood_detector"}  # of `--precision auto`


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of a script; `fast` if `make test` tries it."""

    experiment: str
    words: tuple[str, ...]
    name: str
    fast: bool = True


def commands() -> list[Command]:
    """The base of each script, and what is made of it with each flag and value."""
    found = []
    for experiment, base in BASE.items():
        fast = FAST.get(experiment, set())
        found.append(Command(experiment, base, experiment, experiment not in FAST))
        for item in dataclasses.fields(EXPERIMENTS[experiment].configuration):
            if item.name not in ELSEWHERE and "names" in item.metadata:
                found += [
                    Command(experiment, words, name, item.name in fast and not SLOW & {*name.split(), *name.split(",")})
                    for name, words in _of_flag(experiment, item)
                    if name not in NOT_ALIKE
                ]
        for words in FURTHER.get(experiment, ()):
            found.append(Command(experiment, (*base, *words), " ".join([experiment, *words]), bool(fast & {*words})))
    return found


def _of_flag(experiment: str, item: dataclasses.Field) -> list[tuple[str, tuple[str, ...]]]:
    """Names and words of the commands that try a flag: every value of it, all at once where it takes several."""
    flag = (item.metadata["names"] or ("--" + item.name.replace("_", "-"),))[0]
    choices = [choice for choice in item.metadata["choices"] or () if choice not in TOO_SLOW]
    if "tuple" in str(item.type) and item.name in SEVERAL:
        tried = [(None, (flag, *(choice for choice in choices if choice not in SLOW | {"all"})))]
        tried += [(choice, (flag, choice)) for choice in choices if choice in SLOW]
    elif choices:
        tried = [(choice, (flag, choice)) for choice in choices]
    elif isinstance(item.default, bool):
        tried = [(None, (flag.replace("--", "--no-") if item.default else flag,))]
    else:
        tried = []
    found = []
    for value, words in tried:
        keys = [(experiment, value), (experiment, item.name)]
        begun = next((INSTEAD[key] for key in keys if key in INSTEAD), BASE[experiment])
        needed = [word for key in keys for word in NEEDS.get(key, ())]
        found.append((" ".join([experiment, *words]), (*begun, *needed, *words)))
    return found


SEVERAL = {"baselines", "measures", "aggregate", "choose"}  # of which one command tries all values


def parameters():
    """The commands for pytest."""
    return [pytest.param(command, id=command.name, marks=() if command.fast else pytest.mark.slow) for command in commands()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working directory with the networks, the stitch and the detector that the commands begin with."""

    def make(there: Path) -> None:
        for experiment, words in BEFORE:
            run(experiment, words, there, "-gpu", "-1")

    return shutil.copytree(made_once(tmp_path_factory, "gpu-path", make), tmp_path_factory.mktemp("gpu"), dirs_exist_ok=True)


def run(experiment: str, words: tuple[str, ...], folder: Path, *further: str) -> dict:
    """Runs a command in this process; its record."""
    done = script(f"exec_{experiment}.py", *words, *further, "--debug", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / done.stdout.strip().splitlines()[-1]).read_text())


def on_cpu(command: Command, folder: Path) -> dict:
    words = command.words
    if command.experiment in BF16_ON_GPU and command.name.endswith("--precision auto"):
        words = (*words, "--precision", "bf16")
    return run(command.experiment, named(words, command.name, "cpu"), folder, *device(command.experiment, "-1"))


def on_gpu(command: Command, folder: Path) -> tuple[dict, Counter[str]]:
    """The record, and how often the host waited for the device, by place."""
    with pretend_gpu.present() as waits:
        words = named(command.words, command.name, "gpu")
        return run(command.experiment, words, folder, *device(command.experiment, "0")), Counter(waits)


def device(experiment: str, number: str) -> tuple[str, ...]:
    fields = {item.name for item in dataclasses.fields(EXPERIMENTS[experiment].configuration)}
    return ("-gpu", number) if "gpu" in fields else ()


def named(words: tuple[str, ...], name: str, device: str) -> tuple[str, ...]:
    """The words with a record, and where they say {name} a folder, of the device's own."""
    own = "".join(letter if letter.isalnum() else "-" for letter in f"{name} {device}")
    return (*(word.replace("{name}", own) for word in words), "--name", own, "--cache-dir", f".cache-{device}")


@pytest.mark.parametrize("command", parameters())
def test_a_command_gives_the_same_rows_on_a_gpu(command, folder):
    if command.name == "eval --attack apgd":
        pytest.importorskip("pyautoattack")
    before = on_cpu(command, folder)
    after, _ = on_gpu(command, folder)
    near = 1e-2 if command.name.endswith("--precision auto") else 0  # sums in bfloat16 are in another order
    allowed = max(records.tolerance(before), near)
    assert before["rows"] and rerun.differences(before["rows"], after["rows"], allowed) == []


# loops of steps: training, attacks, matching, stitches and detectors in training, probing
LOOPS = [
    *(command for command in commands() if command.name.startswith("train --loss ")),
    Command("train", (*BASE["train"], *FURTHER["train"][0]), "train with an average of its weights"),
    Command("stitch", BASE["stitch"], "stitch, task loss"),
    Command("stitch", (*BASE["stitch"], "-i", "pinv", "-e", "0"), "stitch, direct matching"),
    Command("ood_detector", BASE["ood_detector"], "detectors"),
    Command("stitch_ood", BASE["stitch_ood"], "energies of stitches"),
    Command("ood_layers", BASE["ood_layers"], "energies of layers"),
    Command("similarity", BASE["similarity"], "similarity"),
    Command("reinit", BASE["reinit"], "reinit"),
]


@pytest.mark.parametrize("command", [pytest.param(command, id=command.name) for command in LOOPS])
def test_no_step_waits_for_the_gpu(command, folder):
    """Twice the images are twice the steps, and all waits are before and behind the steps, or once an epoch."""
    assert further_waits(command, folder, "--max-examples", 64) == {}


def test_no_step_of_an_attack_waits_for_the_gpu(folder):
    """That images which are wrong are not attacked costs some waits for each batch."""
    command = Command("eval", (*BASE["eval"], "--attack", "pgd", *ATTACK), "attack")
    assert further_waits(command, folder, "--attack-steps", 4) == {}


def further_waits(command: Command, folder: Path, flag: str, number: int) -> dict[str, int]:
    """By how much the waits grow, by place, when the number behind a flag is doubled."""
    counts = []
    for value in (number, 2 * number):
        words = (*command.words, flag, str(value), "--overwrite")  # no stitch is taken from another record
        counts.append(on_gpu(dataclasses.replace(command, words=words, name=f"{command.name} {value}"), folder)[1])
    few, many = counts
    return {place: many[place] - few[place] for place in many if many[place] > few[place]}


@pytest.mark.parametrize("further", [(), ("--cache-limit", "0"), ("--solver", "sgd"), ("--baselines", "mlp")], ids=" ".join)
def test_probes_are_fitted_on_the_gpu_and_no_step_waits_for_it(further, folder, monkeypatch):
    """An epoch of streamed features has one look at whether they are finite."""
    devices = set()

    def noted(stack, features, labels, rate=1.0):
        devices.add(features.device.type)
        step(stack, features, labels, rate)

    step = stacked_probes.Stack.step
    monkeypatch.setattr(stacked_probes.Stack, "step", noted)
    command = Command("probe", (*BASE["probe"], *further), f"probing {' '.join(further)}")
    more = further_waits(command, folder, "-e", 2)
    assert devices == {"cuda"} and sum(more.values()) <= 2 * ("--cache-limit" in further), more


def test_the_smallest_change_is_that_of_the_cpu_and_a_step_looks_four_times_which_images_are_left():
    """Each look saves passes of the images that are not."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    images, counts = torch.rand(16, 1, 8, 8), []
    labels = network(images).argmax(1)
    for steps in (10, 20):
        settings = {"steps": steps, "polish": 0}
        alone = minimum_norm.minimal_radii(network, images, labels, **settings, generator=randomness.generator(0, "radius"))
        with pretend_gpu.present() as waits:
            moved, draws = copy.deepcopy(network).to("cuda"), randomness.generator(0, "radius", device="cuda")
            found = minimum_norm.minimal_radii(moved, images.cuda(), labels.cuda(), **settings, generator=draws)
            counts.append(sum(waits.values()))
            assert torch.allclose(found.distances.cpu(), alone.distances)
    assert counts[1] - counts[0] <= 4 * 10


@pytest.mark.parametrize("first, then", [("gpu", "cpu"), ("cpu", "gpu")])
def test_a_training_goes_on_on_the_other_device(first, then, folder, monkeypatch):
    """With the optimiser, the average of the weights and what the loss carries in resume.pt."""
    words = (*BASE["train"], *ENERGIES, "--ema", "0.9", "-e", "2", "--name", f"{first}-{then}")
    whole = run("train", (*words[:-1], f"whole-{first}"), folder, "-gpu", "-1", "-dir", f"whole-{first}")
    begun = (*words, "-dir", f"{first}-{then}", "--debug")
    with monkeypatch.context() as patch, there(first):
        patch.setattr(loop, "train_epoch", stopped_in_epoch(2))
        stopped = script("exec_train.py", *begun, "-gpu", "0" if first == "gpu" else "-1", cwd=folder)
    assert stopped.returncode == 75 and "resume.pt" in stopped.stderr, stopped.stderr
    with there(then):
        rows = run("train", begun, folder, "-gpu", "0" if then == "gpu" else "-1")["rows"]
    assert rerun.differences(whole["rows"], rows, 1e-6) == []


def there(device: str):
    """The pretended GPU, or what there is."""
    return pretend_gpu.present() if device == "gpu" else contextlib.nullcontext()


def stopped_in_epoch(number: int):
    """`train_epoch`, which a signal stops behind the first step of this epoch."""
    whole = loop.train_epoch

    def epoch(network, split, optimizer, recipe, position, stopping, average=None):
        if position.epoch == number:
            stopping.by = "SIGTERM"
        return whole(network, split, optimizer, recipe, position, stopping, average)

    return epoch


def test_what_a_gpu_refuses_the_pretended_one_refuses():
    cpu = torch.arange(3.0)
    with pretend_gpu.present() as waits:
        gpu = cpu.to("cuda", non_blocking=True)
        assert gpu.device == torch.device("cuda", 0)
        for refused in (
            lambda: gpu + cpu,
            lambda: cpu.add_(gpu),
            lambda: cpu[gpu.long()],
            lambda: torch.cat([gpu, cpu]),
            lambda: gpu.numpy(),
            lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
            lambda: torch.rand(3, generator=torch.Generator("cuda")),
        ):
            with pytest.raises((RuntimeError, TypeError)):
                refused()
        assert not waits and (gpu * 2 + torch.tensor(1.0)).device.type == "cuda"
        assert gpu.sum().item() == 3 and gpu.tolist() == [0, 1, 2] and bool((gpu < 3).all())
        assert gpu[gpu > 0].shape == (2,) and gpu[torch.tensor([0])].item() == 0 and gpu.cpu().device.type == "cpu"
        assert sum(waits.values()) == 7


def test_a_file_saved_on_a_gpu_is_loaded_elsewhere_with_map_location_only(tmp_path):
    with pretend_gpu.present():
        torch.save({"a": torch.ones(2).cuda(), "b": torch.ones(2)}, tmp_path / "a.pt")
        again = torch.load(tmp_path / "a.pt")
        assert again["a"].device.type == "cuda" and again["b"].device.type == "cpu"
    with pytest.raises(RuntimeError, match="map_location"):
        torch.load(tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", map_location="cpu")["a"].device.type == "cpu"
