"""The papers' own checkpoints: every one gives its own logits, whatever its file looks like."""

import json

import numpy as np
import pytest
import reference_networks
import torch
from conftest import script

from lib import models
from lib.core.errors import UsageError, UserError
from lib.models import checkpoints, earlier_names, paper_names
from lib.models.normalisations import NORMALISATIONS


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


# 500 MB and seconds each; vgg11_several_gpus has the same weights, and its file is the harder one
LARGE = ("vgg11", "WRN_40_10")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in reference_networks.FILES]
)
def test_a_published_checkpoint_gives_the_logits_of_its_own_network(tmp_path, name):
    reference = reference_networks.read(name)
    torch.save(reference.content, tmp_path / "theirs.pt")
    loaded = checkpoints.load(tmp_path / "theirs.pt", reference.type, image_size=reference.images.shape[-1])
    assert len(loaded.description.classes) == reference.classes
    network = loaded.network if reference.images.ndim == 4 else loaded.network.body  # tokens are not normalised
    with torch.no_grad():
        assert close(network(reference.images), reference.logits)


OF_IMAGES = [name for name in reference_networks.FILES if not name.startswith(("repr_cls", "LargeMLP"))]
FAST = ("CNN002", "preact_resnet18")


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in OF_IMAGES])
def test_a_script_saves_the_logits_of_a_published_checkpoint(tmp_path, name):
    reference = reference_networks.read(name)
    torch.save(reference.content, tmp_path / "theirs.pt")
    pixels = (255 * reference.images).round().to(torch.uint8).permute(0, 2, 3, 1).squeeze(-1)
    np.save(tmp_path / "images.npy", pixels.numpy())
    np.save(tmp_path / "images_labels.npy", np.array([0, 1, 2, reference.classes - 1]))
    done = script(
        "exec_eval.py", "theirs.pt", reference.type, "-d", "npy=images.npy", "--save-logits", "-gpu", "-1", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with np.load(next((tmp_path / "results/eval").glob("*.npz"))) as arrays:
        (logits,) = [arrays[key] for key in arrays if "logits" in key]
    assert close(torch.from_numpy(logits).float(), reference.logits)


def test_a_sidecar_or_flags_win_over_the_normalisation_of_a_type(tmp_path):
    reference = reference_networks.read("liu2020_wrn")
    torch.save(reference.content, tmp_path / "theirs.pt")
    own = checkpoints.load(tmp_path / "theirs.pt", reference.type)
    assert own.description.mean == NORMALISATIONS["liu2020_wrn"][0]
    given = checkpoints.load(tmp_path / "theirs.pt", reference.type, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert given.description.mean == (0.5,) * 3
    checkpoints.save(tmp_path / "ours.pt", given.network, given.description)
    assert checkpoints.load(tmp_path / "ours.pt").description.mean == (0.5,) * 3


def reference_and(name: str = "lenet") -> tuple[reference_networks.Reference, dict]:
    reference = reference_networks.read(name)
    return reference, reference.content


WRAPPINGS = {
    "on several GPUs": lambda state: {f"module.{key}": value for key, value in state.items()},
    "around a part": lambda state: {key.replace("features.", "features.module."): value for key, value in state.items()},
    "an average of weights": lambda state: {
        "n_averaged": torch.tensor(3),
        **{f"module.{key}": value for key, value in state.items()},
    },
    "model_ema": lambda state: {"model_ema": state, "epoch": 3},
    "two of them": lambda state: {"state_dict": state, "state_dict_ema": {key: 0 * value for key, value in state.items()}},
    "student and teacher": lambda state: {
        "teacher": {f"module.backbone.{key}": value for key, value in state.items()},
        "student": {f"module.backbone.{key}": 0 * value for key, value in state.items()},
    },
    "a number beside the weights": lambda state: {"best_acc1": torch.tensor(0.9), **state},
    "Lightning": lambda state: {
        "state_dict": {"criterion.weight": torch.ones(10), **{f"model.{key}": value for key, value in state.items()}}
    },
}


@pytest.mark.parametrize("way", WRAPPINGS)
def test_weights_are_found_in_every_common_wrapping(tmp_path, way):
    reference, state = reference_and()
    torch.save(WRAPPINGS[way](state), tmp_path / "theirs.pt")
    loaded = checkpoints.load(tmp_path / "theirs.pt", reference.type)
    with torch.no_grad():
        assert close(loaded.network(reference.images), reference.logits)


def test_of_several_state_dicts_the_one_that_is_taken_is_named(tmp_path):
    _, state = reference_and()
    torch.save(WRAPPINGS["two of them"](state), tmp_path / "theirs.pt")
    with pytest.warns(UserWarning, match="holds state_dict and state_dict_ema; state_dict is taken"):
        checkpoints.load(tmp_path / "theirs.pt", "lenet")


def test_a_file_without_weights_names_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "theirs.pt")
    with pytest.raises(UserError, match="holds no state dict; its keys are epoch, optimizer"):
        checkpoints.load(tmp_path / "theirs.pt", "vgg11")


def test_a_wrong_stem_names_the_type_that_has_it(tmp_path):
    torch.save(models.build("tv_resnet18", 10, 3, 64).state_dict(), tmp_path / "theirs.pt")
    with pytest.raises(UserError, match="its first convolution is that of tv_resnet18"):
        checkpoints.load(tmp_path / "theirs.pt", "resnet18")


# --- what the suite wrote before


def earlier(name: str) -> dict[str, torch.Tensor]:
    """A state dict under the names that an earlier version gave the modules of this type."""
    with torch.device("meta"):
        state = models.build(name, 10, 1 if name == "CNN002" else 3, 28 if name == "CNN002" else 32).state_dict()
    names = {now: before for before, now in earlier_names.MODULES[name].items()}
    modules = {key: key.rpartition(".")[0] for key in state}
    return {f"{names.get(modules[key], modules[key])}.{key.rpartition('.')[2]}": value for key, value in state.items()}


@pytest.mark.parametrize("name", ["CNN002", "mlp", "mlp_bn", "LargeMLP"])
def test_tensors_of_an_earlier_version_get_the_names_of_the_papers_code(name):
    before = earlier(name)
    with torch.device("meta"):
        own = models.build(name, 10, 1 if name == "CNN002" else 3, 28 if name == "CNN002" else 32).state_dict()
    after = earlier_names.renamed(before, name, "file")
    assert {key: value.shape for key, value in after.items()} == {key: value.shape for key, value in own.items()}
    assert not before.keys() <= own.keys()
    assert earlier_names.renamed(own, name, "file").keys() == own.keys()


def test_transformers_of_tokens_of_an_earlier_version_answer_as_they_did(tmp_path):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        192, 3, 768, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    present = models.build("repr_cls_vit_tiny", 10, 192, 32).eval()
    state = {f"blocks.0.{key}": value for key, value in layer.state_dict().items()}
    renamed = earlier_names.renamed(state, "repr_cls_vit_tiny", "file")
    present.blocks[0].load_state_dict({key.removeprefix("blocks.0."): value for key, value in renamed.items()})
    tokens = torch.randn(2, 65, 192)
    with torch.no_grad():
        assert torch.allclose(layer(tokens), present.blocks[0](tokens), atol=1e-5)


@pytest.mark.parametrize("name", earlier_names.OTHER_FUNCTION)
def test_weights_of_a_type_that_was_another_function_are_refused(tmp_path, name):
    torch.save({earlier_names.OTHER_FUNCTION[name]: torch.zeros(4), "fc.weight": torch.zeros(10, 4)}, tmp_path / "old.pt")
    with pytest.raises(UserError, match=f"by an earlier version, whose {name} was another function; train it again"):
        checkpoints.load(tmp_path / "old.pt", name)


def test_an_earlier_name_of_a_layer_is_answered_with_its_present_one(trained, tmp_path):
    done = script("exec_train.py", "small_cnn", "-d", "digits", "-dir", "s", "-e", "1", "--max-examples", "60", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        ("exec_probe.py", "models/s/model_1.pt", "-l", "features.4"),
        ("exec_ncg.py", "models/s/model_1.pt", "--space", "feature", "--layer", "features.4", "-ood", "patches"),
    ):
        done = script(*words, cwd=tmp_path)
        assert done.returncode in (1, 2) and "it is called conv2 now, as in the paper's code" in done.stderr, done.stderr


def test_references_are_of_all_types_that_have_names_of_their_own():
    told = {
        json.loads((reference_networks.FOLDER / f"{name}.json").read_text())["type"] for name in reference_networks.FILES
    }
    assert told <= set(models.MODELS) | set(models.REPRESENTATIONS)


PUBLISHED = "pgd-128-mnistwo9-70-1.0-0.01-ce-vtor2-CNN002-0.9-2-sgd-0-0.0-ep0070.pt"


def test_the_name_of_a_published_file_says_type_data_epoch_and_seed(tmp_path):
    reference = reference_networks.read("CNN002")
    torch.save(reference.content, tmp_path / PUBLISHED)
    loaded = checkpoints.load(tmp_path / PUBLISHED)
    told = loaded.description
    assert (told.architecture, told.dataset, told.epoch, told.config["seed"]) == ("CNN002", "mnistwo9", 70, 0)
    with torch.no_grad():
        assert close(loaded.network(reference.images), reference.logits)


@pytest.mark.parametrize(
    "text, architecture",
    [
        ("ce-vtor2-CNN002", "CNN002"),
        ("trades6ce-vtor2-WRN_40_10", "WRN_40_10"),
        ("aug10-advce-vtor2-ResNet50Norm01", "ResNet50Norm01"),
        ("resnet18", "resnet18"),
    ],
)
def test_types_as_the_paper_writes_them_are_understood_wherever_a_type_is_taken(tmp_path, text, architecture):
    assert paper_names.architecture(text) == architecture
    models.check(text)
    name = architecture.replace("Norm01", "")
    if name == "CNN002":
        torch.save(reference_networks.read(name).content, tmp_path / "theirs.pt")
        done = script("exec_projections.py", "theirs.pt", text, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["ce-vtor2-CNN001", "VggMLP", "ce-vtor2-DenseNet161", "trades6ce-vtor2-CNN002-halfclose"])
def test_networks_and_trainings_of_the_papers_code_alone_say_so(text):
    with pytest.raises(UsageError, match="of the (nearest-category )?paper's code, not of its tables"):
        models.check(text)
