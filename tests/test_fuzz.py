"""Whatever is on the command line or in a file: an answer or one sentence, no traceback, no hang, and no record changed."""

import gzip
import io
import random
import shutil
import subprocess
import sys
from pathlib import Path

import fuzz_files
import numpy as np
import pytest
import torch
from conftest import ROOT, script
from layouts import FACES, PARTS, write_celeba, write_cifar10, write_mnist, write_waterbirds
from PIL import Image
from scipy.io import savemat

from lib.core import files

NETWORKS = """from torch import nn

def plain(classes, channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))

def breaks(classes, channels, image_size):
    raise ValueError("as it should")
"""

MADE = (
    ("exec_eval.py", "models/a/model_2.pt", "--name", "known", "--save-logits"),
    ("exec_train.py", "lenet", "-d", "digits", "-dir", "b", "-e", 2),
    (
        "exec_stitch.py",
        "models/a/model_1.pt",
        "models/a/model_2.pt",
        "auto",
        "auto",
        "features.0",
        "features.0",
        "auto",
        "-d",
        "digits",
        "-pinv-samples",
        "all",
        "--name",
        "known",
    ),
    (
        "exec_ood_detector.py",
        "models/a/model_2.pt",
        "auto",
        "features.0",
        "-m",
        "repr_cls_resnet20",
        "-d",
        "digits",
        "-ftoodd",
        "patches",
        "-e",
        1,
        "-fe",
        1,
        "-dir",
        "d",
    ),
)


@pytest.fixture(scope="module")
def laid_out(trained, tmp_path_factory) -> Path:
    """A folder with a small file of every kind that the suite reads."""
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(trained / "models" / "a", folder / "models" / "a")
    for words in MADE:
        done = script(*words, "--max-examples", 12, "-gpu", -1, cwd=folder)
        assert done.returncode == 0, done.stderr
    for record in (folder / "results" / "train").glob("*.json"):
        record.unlink()  # so that the same command reads the folder again
    draw = np.random.default_rng(0)
    np.save(folder / "images.npy", draw.integers(0, 256, (24, 32, 32), dtype=np.uint8))
    np.save(folder / "images_labels.npy", np.arange(24) % 10)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / "tree" / part / name).mkdir(parents=True)
            for file in ("0.png", "0.jpg", "1.png"):
                image = Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8))
                image.save(folder / "tree" / part / name / file)
    state = torch.load(folder / "models" / "a" / "model_2.pt", weights_only=True)
    torch.save(state, folder / "bare.pt")
    torch.save({"state_dict": state, "epoch": 3}, folder / "old.pt", _use_new_zipfile_serialization=False)
    import safetensors.torch

    safetensors.torch.save_file(state, folder / "bare.safetensors")
    data = folder / "data"
    write_mnist(data)
    labels = data / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.with_suffix(".gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    write_cifar10(data)
    write_waterbirds(data)
    write_celeba(data, FACES, PARTS, "csv")
    for part in ("train", "test"):
        savemat(
            data / f"{part}_32x32.mat",
            {"X": draw.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8), "y": np.arange(20)[:, None] % 10 + 1},
        )
    (data / "cifar5m").mkdir()
    for part in range(6):
        np.savez(
            data / "cifar5m" / f"part{part}.npz", X=draw.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), Y=np.arange(4)
        )
    (folder / "flags.yaml").write_text("seed: 3\nquiet: true\nbatch-size: 9\n")
    (folder / "files.txt").write_text("models/a/init.pt\nmodels/a/model_1.pt\n")
    (folder / "networks.py").write_text(NETWORKS)
    return folder


def fuzz(program: str, count: int, seed: int, laid_out: Path, tmp_path: Path) -> str:
    """The last line of a fuzzer's output, which says that there were no faults."""
    folder = tmp_path / "work"
    shutil.copytree(laid_out, folder)
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / program, str(count), str(seed)],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("count, seed", [(30, 0), pytest.param(1000, 1, marks=pytest.mark.hardening)])
def test_random_command_lines_are_answered_or_refused_in_a_sentence(laid_out, tmp_path, count, seed):
    said = fuzz("fuzz_lines.py", count, seed, laid_out, tmp_path)
    assert f"{count} command lines" in said and " 0 faults" in said
    assert int(said.split(" refused")[0].split()[-1]) > count / 4 and int(said.split(" run;")[0].split()[-1]) > count / 10


@pytest.mark.parametrize(
    "save",
    [
        lambda file, x: np.save(file, x),
        lambda file, x: np.savez(file, x=x, y=x[0]),
        lambda file, x: np.savez_compressed(file, x=x, y=x[0]),
    ],
    ids=["npy", "npz", "packed"],
)
def test_of_a_broken_array_numpy_says_what_the_suite_expects(save):
    whole, draw, refused = io.BytesIO(), random.Random(0), 0
    save(whole, np.arange(30).reshape(5, 6))
    for _ in range(1000):
        try:
            found = np.load(io.BytesIO(fuzz_files.mutated(whole.getvalue(), draw)))
            if not isinstance(found, np.ndarray):
                dict(found)
        except files.NO_ARRAYS:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize("count, seed", [(14, 0), pytest.param(560, 1, marks=pytest.mark.hardening)])
def test_broken_files_are_read_or_refused_in_a_sentence(laid_out, tmp_path, count, seed):
    said = fuzz("fuzz_files.py", count, seed, laid_out, tmp_path)
    assert f"{count} broken files" in said and " 0 faults" in said
    assert int(said.split(" were refused")[0].split()[-1]) > count / 3
