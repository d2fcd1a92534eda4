"""A network whose outputs overflow gets no rows: one sentence names the network or layer, and the image."""

import numpy as np
import pytest
import torch
from conftest import script
from records import newest
from torch import nn

from lib.core.errors import UserError
from lib.datasets.split import Split
from lib.models import checkpoints
from lib.nearest_category import boundary_distance
from lib.representations import finite

FILE = "models/huge.pt"


@pytest.fixture(scope="module")
def huge(trained):
    """A working directory with a network of finite weights that is too large for float32 from its second layer on."""
    found = checkpoints.load(trained / "models" / "a" / "model_2.pt")
    with torch.no_grad():
        for weight in found.network.parameters():
            weight *= 1e30
    checkpoints.save(trained / FILE, found.network, found.description)
    return trained


@pytest.mark.parametrize(
    "words, fragment",
    [
        (("exec_eval.py", FILE, "-d", "digits"), f"{FILE}: its logits"),
        (("exec_eval.py", FILE, "-d", "digits", "--attack", "pgd", "--eps", "1"), f"{FILE}: its logits"),
        (("exec_ncg.py", FILE, "-d", "digits-wo9"), f"{FILE}: its logits"),
        (
            ("exec_ncg.py", "models/a/model_2.pt", "-d", "digits-wo9", "--space", "feature", "--backbone", FILE),
            f"layer classifier.5 of {FILE}: its features",
        ),
        (("exec_similarity.py", FILE, "models/a/model_2.pt", "auto", "auto", "features.3"), f"layer features.3 of {FILE}"),
        (("exec_similarity.py", "models/a/model_2.pt", FILE, "auto", "auto", "features.3"), f"layer features.3 of {FILE}"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_outputs_that_are_no_numbers_are_refused_and_leave_no_record(huge, words, fragment):
    done = script(*words, "--name", "none", cwd=huge)
    assert done.returncode == 1 and not done.stdout.strip(), done.stdout
    (message,) = [line for line in done.stderr.splitlines() if "NaN or infinite" in line]
    assert fragment in message and "first: image" in message
    assert not list((huge / "results").rglob("none.*"))


@pytest.mark.parametrize(
    "words, fragment",
    [
        (("exec_reinit.py", FILE, "-d", "digits", "--rand"), "the network's logits of images of digits:test are NaN or"),
        (
            (
                "exec_stitch.py",
                FILE,
                "models/a/model_2.pt",
                "auto",
                "auto",
                "features.4",
                "features.4",
                "-d",
                "digits",
                "-e",
                "0",
            ),
            "features.4 stitched into features.4: the logits are NaN or infinite for",
        ),
        (
            (
                "exec_stitch.py",
                "models/a/model_2.pt",
                FILE,
                "auto",
                "auto",
                "features.4",
                "features.4",
                "-d",
                "digits",
                "-e",
                "0",
            ),
            "the end network's logits are NaN or infinite for 355 of 355 images of digits:test",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_sweeps_and_stitches_whose_logits_are_no_numbers_are_refused(huge, words, fragment):
    done = script(*words, "--name", "none", cwd=huge)
    assert done.returncode == 1 and fragment in done.stderr, done.stderr
    assert not list((huge / "results").rglob("none.*"))


def test_a_layer_that_puts_out_the_same_for_all_images_has_no_cka_and_is_named(trained):
    found = checkpoints.load(trained / "models" / "a" / "model_2.pt")
    with torch.no_grad():
        found.network.body.features[0].weight.zero_()
    checkpoints.save(trained / "models" / "dead.pt", found.network, found.description)
    done = script("exec_similarity.py", "models/dead.pt", "models/a/model_2.pt", "auto", "auto", "features.3", cwd=trained)
    assert "layer features.3 of models/dead.pt puts out the same for all 355 images" in done.stderr
    (row,) = newest(trained, "similarity")["rows"]
    assert row["cka"] is None and row["cka_debiased"] is None


def test_the_first_image_is_named_by_its_number_in_the_data_set():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    split = Split("toy", "test", images, torch.zeros(3, dtype=torch.int64), indices=torch.tensor([4, 7, 9]))
    values = torch.tensor([[1.0, 2.0], [torch.inf, 0.0], [torch.nan, 0.0]])
    with pytest.raises(
        UserError, match=r"^its logits are NaN or infinite for 2 of 3 images of toy:test \(first: image 7\)$"
    ):
        finite.check(values, "its logits", split)
    assert torch.equal(finite.check(values[:1], "", split.subset(torch.tensor([0]))), values[:1])


def test_no_radius_is_measured_around_points_with_answers_that_are_no_numbers():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.constant_(network[1].weight, 3e38)
    images = torch.zeros(4, 1, 4, 4, dtype=torch.uint8)
    images[2:] = 255
    sampling = boundary_distance.Sampling(count=4, seed=0, steps=2, batch_size=4)
    with pytest.raises(UserError, match="--radius: the network's logits are NaN or infinite, first for point 2 of 4"):
        boundary_distance.at_images(network, images, images, np.zeros(4), sampling)
