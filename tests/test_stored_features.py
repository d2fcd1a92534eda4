"""`features=BACKBONE:LAYER:DATASET`: what it holds, what may be trained on it, and what is refused."""

import json
import re

import drawn
import numpy as np
import pytest
import torch
from conftest import script

from lib import datasets
from lib.attacks import pgd
from lib.core.errors import UsageError, UserError
from lib.datasets import names
from lib.experiments.config.eval import EvalConfig
from lib.experiments.config.ncg import NcgConfig
from lib.experiments.config.train import TrainConfig
from lib.experiments.eval import eval as evaluate
from lib.experiments.ncg import ncg
from lib.experiments.train import train
from lib.models import checkpoints
from lib.models.cutting import cut
from lib.runs import cli, loading

LOSSES = ("ce", "at", "trades", "mixup")


@pytest.fixture(scope="module")
def folder(nine):
    """A working directory with the backbone `models/wo9`, a CNN002, and a LargeMLP on its features for every loss."""
    for loss in LOSSES:
        train(settings(nine, directory=loss, loss=loss))
    return nine


def settings(folder, layer="flatten", **changes) -> TrainConfig:
    attack = {"eps": 0.5, "attack_steps": 2} if changes.get("loss") in ("at", "trades") else {}
    return TrainConfig(
        **{
            "model_type": "LargeMLP",
            "dataset": name(folder, layer),
            "loss": "ce",
            "epochs": 2,
            "learning_rate": 3e-3,
            "models_dir": str(folder / "models"),
            "cache_dir": str(folder / ".cache"),
            "gpu": -1,
            "max_examples": 320,
            "quiet": True,
            "directory": "other",
            **attack,
            **changes,
        }
    )


def name(folder, layer="flatten", epoch="model_1", data="digits-wo9") -> str:
    return f"features={folder}/models/wo9/{epoch}.pt:{layer}:{data}"


def where(folder):
    return (
        "--models-dir",
        str(folder / "models"),
        "--cache-dir",
        str(folder / ".cache"),
        "--quiet",
        "-gpu",
        "-1",
        "--max-examples",
        "320",
    )


def test_a_name_has_three_parts_and_the_last_is_a_data_set_of_its_own():
    parsed = names.parse("features=models/a/model_1.pt:block.0:digits-wo9-c:test/fog-3")
    assert parsed.features == ("models/a/model_1.pt", "block.0") and (parsed.held_out, parsed.split) == (9, "test")
    assert parsed.name == "digits-wo9-c@block.0" and str(parsed.images) == "digits-wo9-c:test/fog-3"
    assert names.parse(str(parsed)) == parsed
    assert names.parse("features=a.pt:fc:npy=x.npy").images == names.parse("npy=x.npy")
    for wrong in ("features=", "features=a.pt", "features=a:fc", "features=a.pt::mnist", "features=a:b:features=c:d:e"):
        with pytest.raises(UsageError, match="stored features are named features=BACKBONE:LAYER:DATASET"):
            names.parse(wrong)


def test_features_are_the_backbones_activations_and_the_rest_of_it_makes_its_logits(folder):
    """The nearest-category page, section 8, check 17."""
    backbone = checkpoints.load(folder / "models" / "wo9" / "model_1.pt")
    split = loading.load_split(settings(folder), name(folder) + ":ood")
    images = loading.load_split(settings(folder), "digits-wo9:ood")
    front, back = cut(backbone.network, "flatten")
    pixels = next(images.batches(len(images)))[0]
    with torch.no_grad():
        assert split.images.dtype == torch.float32 and split.images.shape == (len(images), 1600, 1, 1)
        assert torch.allclose(split.images.flatten(1), front(pixels), atol=1e-5)
        assert torch.allclose(back(split.images.flatten(1)), backbone.network(pixels), atol=1e-4)
    again = loading.load_split(settings(folder, cache_dir=str(folder / "fresh")), name(folder) + ":ood")
    assert torch.equal(again.images, split.images)
    assert torch.equal(split.labels, images.labels) and torch.equal(split.indices, images.indices)
    batch = next(split.batches(7))[0]
    assert torch.equal(batch, split.images[:7])  # as they are: neither divided by 255 nor clipped
    assert float(batch.max()) > 1


def test_a_backbone_without_a_sidecar_needs_its_type(folder, tmp_path):
    published = tmp_path / "published.pt"
    published.write_bytes((folder / "models" / "wo9" / "model_1.pt").read_bytes())
    with pytest.raises(UserError, match="its type must be given"):
        loading.load_split(settings(folder), f"features={published}:flatten:digits-wo9:ood")
    with pytest.warns(UserWarning, match="images go in unnormalised"):
        found = loading.load_split(settings(folder), f"features=CNN002@{published}:flatten:digits-wo9:ood")
    assert found.images.shape == (180, 1600, 1, 1) and found.name == "digits-wo9@flatten"
    assert found.features == loading.load_split(settings(folder), name(folder) + ":ood").features  # the same file


def test_the_papers_features_have_its_sizes_and_its_heads_their_parameters():
    """Sections 2 and 3.3: CNN002's second pool is 1024 at 28 px; pooled WRN features times the last layer are the logits."""
    from lib import models

    torch.manual_seed(0)
    front, _ = cut(models.build("CNN002", 9, 1, 28).eval(), "flatten")
    assert front(torch.rand(2, 1, 28, 28)).shape == (2, 1024)
    counts = {
        ("LargeMLP", 1024, 9): 396_297,
        ("LargeMLP", 640, 9): 297_993,
        ("LargeMLP", 640, 19): 300_563,
        ("LargeMLPv4", 2048, 99): 4_298_851,
    }
    for (kind, dim, classes), count in counts.items():
        head = models.build(kind, classes, dim, 1)
        assert sum(parameter.numel() for parameter in head.parameters()) == count
        assert head(torch.rand(2, dim, 1, 1)).shape == (2, classes)


@pytest.mark.slow
def test_pooled_features_of_the_papers_wide_resnet_are_what_its_last_layer_takes():
    from lib import models
    from lib.models.cutting import cuts

    torch.manual_seed(0)
    network = models.build("WRN_40_10", 9, 3, 32).eval()
    last = [found for found in cuts(network) if isinstance(network.get_submodule(found), torch.nn.Linear)][-1]
    before = cuts(network)[cuts(network).index(last) - 1]
    images, linear = torch.rand(2, 3, 32, 32), network.get_submodule(last)
    with torch.no_grad():
        features = cut(network, before)[0](images).flatten(1)
        assert features.shape == (2, 640)
        assert torch.allclose(features @ linear.weight.T + linear.bias, network(images), atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_a_head_that_says_whose_features_it_takes(folder, loss):
    described = json.loads((folder / "models" / loss / "model_2.json").read_text())
    backbone = json.loads((folder / "models" / "wo9" / "model_1.json").read_text())
    assert described["features"] == f"flatten of {backbone['sha256']}"
    assert described["mean"] == [] and described["channels"] == 1600 and described["image_size"] == 1
    assert described["metrics"]["val_accuracy"] > 0.5
    config = EvalConfig(
        model_path=str(folder / "models" / loss / "model_2.pt"),
        cache_dir=str(folder / ".cache"),
        gpu=-1,
        quiet=True,
        attack="pgd",
        eps=0.5,
        attack_steps=2,
        max_examples=320,
    )
    row = evaluate(config).rows[0]
    assert row["accuracy"] == described["metrics"]["val_accuracy"] and row["robust_accuracy"] <= row["accuracy"]
    assert row["data"] == "digits-wo9@flatten"


def test_attacked_features_are_kept_in_no_box(folder, monkeypatch):
    balls = []
    monkeypatch.setattr("lib.training.robust_losses.Ball", lambda *words: balls.append(words) or pgd.Ball(*words))
    for loss in ("at", "trades"):
        train(settings(folder, directory=f"{loss}-box", loss=loss, epochs=1, max_examples=64))
    assert balls == [("2", 0.5, False)] * 2


def test_a_head_is_scored_among_its_features_and_its_radius_measured_there(folder):
    head = str(folder / "models" / "trades" / "model_2.pt")
    config = cli.parse(
        NcgConfig,
        [
            head,
            "--against",
            str(folder / "models" / "ce" / "model_2.pt"),
            "--radius",
            "5",
            "-ood",
            "digits-wo9:ood",
            "--corruptions",
            "contrast",
            *where(folder),
        ],
    )
    found = ncg(config)
    splits = [loading.load_split(config, name(folder), part) for part in ("train", "ood")]
    training, unseen = (split.images.flatten(1).double() for split in splits)
    nearest = torch.stack([(training - query).square().sum(1) for query in unseen])
    key = "digits-wo9-ood"
    assert np.array_equal(found.arrays[f"neighbors_feature_{key}"], nearest.argmin(1).numpy())
    (whole,) = [row for row in found.rows if row["subset"] == "all" and row["split"] == "ood" and row["model"] == head]
    assert whole["space"] == "feature" and whole["layer"] == "flatten" and whole["train"] == "digits-wo9@flatten"
    assert whole["mean_distance"] == pytest.approx(float(nearest.min(1).values.sqrt().mean()))
    (radius,) = [
        row for row in found.rows if row["subset"] == "radius" and row["at"] == "neighbours" and row["model"] == head
    ]
    chosen, distance = found.arrays[f"indices_at_neighbours_{key}"], found.arrays[f"radius_at_neighbours_{key}"]
    assert radius["n"] == 5 and radius["attack_success"] == 1 and set(chosen) <= set(nearest.argmin(1).tolist())
    network = checkpoints.load(head).network
    labels = splits[0].labels[chosen]
    with torch.no_grad():  # nothing nearer than half of it changes an answer, in random directions
        step = torch.nn.functional.normalize(torch.randn(5, 1600, generator=torch.Generator().manual_seed(0)))
        moved = training[chosen].float() + step * torch.tensor(distance, dtype=torch.float32)[:, None] / 2
        assert torch.equal(network(moved[:, :, None, None]).argmax(1), labels)
    cells = [row for row in found.rows if row.get("variant") and row["subset"] == "all"]
    assert len(cells) == 10 and all(cell["data"] == "digits-wo9-c@flatten" for cell in cells)
    assert "radius" in drawn.of("ncg", config, found)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "CNN002"}, "CNN002 takes images; stored features are for mlp, mlp_bn, LargeMLP, LargeMLPv4"),
        ({"augmentation": "crop"}, "--augmentation is for images"),
        ({"upscale": True}, "--upscale is for images"),
        ({"pixel_shuffle": True}, "--pixel-shuffle is for images"),
        ({"dataset": "features=a.pt:flatten:digits-wo9:ood"}, "training takes a data set without a split"),
    ],
)
def test_options_for_images_are_refused_for_features(tmp_path, changes, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        settings(tmp_path, **changes)


def test_features_of_another_backbone_or_layer_and_images_are_refused(folder):
    def ask(*words):
        with pytest.raises(UserError) as caught:
            ncg(cli.parse(NcgConfig, [*words, *where(folder)]))
        return str(caught.value)

    head, image = (str(folder / "models" / part) for part in ("ce/model_2.pt", "wo9/model_1.pt"))
    assert "it has features of flatten of" in ask(head, "-d", name(folder, epoch="init"))
    assert "the network takes features of flatten of" in ask(head, "-d", name(folder, layer="classifier.fc1"))
    assert "the network takes images" in ask(image, "-d", name(folder))
    assert "the network takes features of flatten" in ask(image, "-d", "digits-wo9", "--against", head)
    assert "did you mean flatten" in ask(head, "-d", name(folder, layer="flaten"))
    assert "model_7.pt: no such checkpoint" in ask(head, "-d", name(folder, epoch="model_7"))
    assert "takes stored features" in ask(head, "--space", "pixel")
    with pytest.raises(UserError, match="stored features are attacked by pgd"):
        evaluate(EvalConfig(model_path=head, attack="apgd", eps=1.0, gpu=-1, cache_dir=str(folder / ".cache")))


def test_scripts_for_images_say_that_they_take_no_features(folder):
    with pytest.raises(UsageError, match="stored features take the place of images in exec_train.py"):
        datasets.load(name(folder), "data")
    done = script("exec_probe.py", "models/wo9/model_1.pt", "-d", name(folder), cwd=folder)
    assert done.returncode == 2 and "stored features take the place of images in" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
