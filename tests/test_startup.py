"""What a short command costs: mistakes are answered before torch is loaded, and libraries are loaded where they are used."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from lib.models import checkpoints
from lib.models.checkpoints import Description

BARRED = """
import json, sys
sys.path.insert(0, "tests")
import inprocess
with inprocess.without_torch():
    ends = [tuple(vars(inprocess.run(words)).values()) for words in json.loads(sys.argv[1])]
print(json.dumps(ends))
"""
LOADED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("loaded:", *sys.modules)
"""
# command line -> exit status, and a part of the sentence
MISTAKES = {
    "exec_eval.py models/nope.pt -d digits": (1, "models/nope.pt: no such checkpoint; models has a.pt, bare.pt"),
    "exec_eval.py nope.pt -d digits": (1, "nope.pt: no such checkpoint"),
    "exec_eval.py nope.pt --list-layers": (1, "nope.pt: no such checkpoint"),
    "exec_eval.py nope.pt --plan": (1, "nope.pt: no such checkpoint"),
    "exec_eval.py models -d digits": (1, "models is a folder with a.pt, bare.pt; name one file"),
    "exec_eval.py bare.pt -d digits": (1, "models/bare.pt has no sidecar bare.json: its type must be given"),
    "exec_eval.py a.pt -d digitz": (2, "digitz: no such data set, and no folder data/digitz; did you mean digits"),
    "exec_eval.py a.pt -d cifar10": (1, "cifar10: the data root data does not exist; python exec_data.py prepare cifar10"),
    "exec_eval.py a.pt -d digits:val": (2, "digits:val: no split val; digits has train, test"),
    "exec_eval.py a.pt -d digits-c/fogg-3": (2, "fogg: no such corruption; did you mean fog?"),
    "exec_eval.py a.pt -d digits-wo12": (1, "digits has no class 12; its classes are 0 to 9"),
    "exec_eval.py a.pt -d npy=nope.npy": (1, "there is no file nope.npy"),
    "exec_probe.py nope.pt": (1, "nope.pt: no such checkpoint"),
    "exec_probe.py a.pt -d digits -ood digitz": (2, "digitz: no such data set"),
    "exec_probe.py a.pt -d digits -l ,": (2, "-l: it names no layer"),
    "exec_stitch.py nope.pt nope.pt auto auto layer1 layer1": (1, "nope.pt: no such checkpoint"),
    "exec_stitch.py a.pt nope.pt auto auto layer1 layer1": (1, "nope.pt: no such checkpoint"),
    "exec_stitch.py a.pt a.pt auto auto layer1 layer1 -d digitz": (2, "digitz: no such data set"),
    "exec_stitch.py a.pt a.pt auto auto layer1,,layer2 layer1": (2, "FRONT_LAYER layer1,,layer2: a word between its commas"),
    "exec_stitch.py a.pt a.pt auto auto layer1 , -d digits": (2, "END_LAYER ,: a word between its commas is empty"),
    "exec_similarity.py a.pt nope.pt": (1, "nope.pt: no such checkpoint"),
    "exec_similarity.py a.pt a.pt auto auto a,": (2, "LAYERS1 a,: a word between its commas is empty"),
    "exec_train.py resnet20 -d cifar99 -dir x": (
        2,
        "cifar99: no such data set, and no folder data/cifar99; did you mean cifar",
    ),
    "exec_train.py resnet20 -d cifar10 -dir x": (1, "cifar10: the data root data does not exist"),
    "exec_train.py resnet20 -d digits -dir x --resume-from nope.pt": (1, "nope.pt: no such checkpoint"),
    "exec_ood_detector.py nope.pt auto a -m repr_cls_resnet20 -ftoodd patches -dir x": (1, "nope.pt: no such checkpoint"),
    "exec_ood_detector.py a.pt auto a -m repr_cls_resnet20 -ftoodd patchez -dir x": (2, "patchez: no such data set"),
    "exec_stitch_ood.py nope.json": (1, "nope.json: No such file"),
    "exec_ood_layers.py nope.pt -ood patches": (1, "nope.pt: no such checkpoint"),
    "exec_ood_layers.py a.pt -d digits -ood patchez": (2, "patchez: no such data set"),
    "exec_ncg.py nope.pt": (1, "nope.pt: no such checkpoint"),
    "exec_ncg.py a.pt -d digits-wo9 --against nope.pt": (1, "nope.pt: no such checkpoint"),
    "exec_projections.py models/nope": (1, "models/nope: no such checkpoint"),
    "exec_reinit.py nope.pt --rand": (1, "nope.pt: no such checkpoint"),
    "exec_reinit.py a.pt -d digits --inits-from nope": (1, "--inits-from nope: none of its files is there"),
    "exec_tables.py nope": (2, "nope: no such experiment, paper or table"),
    "exec_data.py show digitz": (2, "digitz: no such data set"),
    "exec_data.py verify nope": (2, "nope: no such data set"),
    "exec_data.py convert-checkpoint nope.pt new.pt": (1, "nope.pt: no such file"),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory) -> dict[str, list]:
    """How every command of MISTAKES ends where torch is barred: status, streams, seconds, whether it asked for torch."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "models").mkdir()
    (folder / "tests").symlink_to(ROOT / "tests")
    for name in ("models/a.pt", "models/bare.pt"):  # nobody looks into them
        (folder / name).touch()
    (folder / "models/a.json").write_text("{}")
    words = json.dumps([line.split() for line in MISTAKES])
    done = subprocess.run([sys.executable, "-c", BARRED, words], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(zip(MISTAKES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_that_needs_no_network_is_answered_without_torch(ends, line):
    status, _, err, _, torch_asked = ends[line]
    expected, fragment = MISTAKES[line]
    assert not torch_asked and status == expected and fragment in err


@pytest.mark.parametrize("architecture", ["small_cnn", "resnet20"])
def test_evaluating_a_network_loads_no_library_that_it_does_not_use(tmp_path, architecture):
    torch.manual_seed(0)
    digits = tuple(map(str, range(10)))
    description = Description(architecture=architecture, classes=digits, channels=1, image_size=32, dataset="digits")
    checkpoints.save(tmp_path / "models" / "a.pt", checkpoints.build(description), description)
    words = [str(ROOT / "exec_eval.py"), "a.pt", "-d", "digits", "--max-examples", "20", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert "a-digits" in done.stdout, done.stderr
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    slow = {"torchvision", "timm", "sklearn", "scipy", "faiss", "sympy", "torch._dynamo", "torch._inductor", "tensorboard"}
    assert "torch" in loaded and not loaded & slow
