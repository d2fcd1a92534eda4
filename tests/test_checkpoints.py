"""Every common form of a checkpoint loads; every broken or dangerous one is refused in a sentence."""

import json
import os
import pickle
import zipfile

import pytest
import torch

from lib import models
from lib.core import trusted_files
from lib.core.errors import UserError
from lib.models import checkpoints
from lib.models.checkpoints import Description
from lib.models.normalized import Normalized

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def network(classes: int = 7, channels: int = 3) -> Normalized:
    torch.manual_seed(1)
    return Normalized(models.build("resnet20", classes, channels), MEAN, STD).eval()


def description(**changes) -> Description:
    return Description(
        **{
            "architecture": "resnet20",
            "classes": tuple("abcdefg"),
            "channels": 3,
            "image_size": 32,
            "mean": MEAN,
            "std": STD,
            "dataset": "toy",
            "epoch": 3,
            **changes,
        }
    )


@pytest.fixture
def saved(tmp_path):
    checkpoints.save(tmp_path / "model_3.pt", network(), description())
    return tmp_path / "model_3.pt"


def same(loaded, original) -> bool:
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        return torch.equal(loaded.network(images), original(images))


def test_a_checkpoint_is_a_plain_state_dict_with_a_sidecar(saved):
    state = torch.load(saved, weights_only=True)
    assert set(state) == set(network().body.state_dict()) and "conv1.weight" in state
    loaded = checkpoints.load(saved)
    assert loaded.description == description() and same(loaded, network())
    assert not loaded.network.training


FORMS = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "net": lambda state: {"net": state, "acc": 93.0},
    "nested": lambda state: {"model": {"state_dict": state}},
    "module.": lambda state: {f"module.{key}": value for key, value in state.items()},
    "module.model.": lambda state: {"state_dict": {f"module.model.{key}": value for key, value in state.items()}},
    "half": lambda state: {key: value.half() if value.is_floating_point() else value for key, value in state.items()},
    "without counters": lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
}


def robustness_library(state: dict) -> dict:
    """The network behind its normalizer, and both again for the attacker."""
    parts = {"normalizer.new_mean": torch.tensor(MEAN).view(3, 1, 1), "normalizer.new_std": torch.tensor(STD).view(3, 1, 1)}
    parts |= {f"model.{key}": value for key, value in state.items()}
    attacker = {f"attacker.{key}".replace("normalizer", "normalize"): value for key, value in parts.items()}
    return {"model": {f"module.{key}": value for key, value in (parts | attacker).items()}, "epoch": 3, "optimizer": {}}


def robustbench(state: dict) -> dict:
    """The network with its normalisation as buffers, in a data-parallel wrapper."""
    parts = {"mu": torch.tensor(MEAN).view(1, 3, 1, 1), "sigma": torch.tensor(STD).view(1, 3, 1, 1), **state}
    return {"state_dict": {f"module.{key}": value for key, value in parts.items()}}


@pytest.mark.parametrize("form", [robustness_library, robustbench])
def test_published_robust_networks_load_with_the_normalisation_that_is_part_of_them(tmp_path, recwarn, form):
    original = network()
    torch.save(form(original.body.state_dict()), tmp_path / "x.pt")
    loaded = checkpoints.load(tmp_path / "x.pt", "resnet20")
    assert loaded.description.mean == pytest.approx(MEAN) and loaded.description.std == pytest.approx(STD)
    assert same(loaded, original) and not [warning for warning in recwarn if "unnormalised" in str(warning.message)]
    assert checkpoints.load(tmp_path / "x.pt", "resnet20", mean=(0.1,) * 3, std=(1.0,) * 3).description.mean == (0.1,) * 3
    assert checkpoints.weights(tmp_path / "x.pt", "resnet20")[1].keys() == original.body.state_dict().keys()
    broken = form(original.body.state_dict() | {"extra.weight": torch.zeros(3)})
    torch.save(broken, tmp_path / "broken.pt")
    with pytest.raises(UserError, match="1 unknown|2 unknown"):
        checkpoints.load(tmp_path / "broken.pt", "resnet20")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_foreign_forms_load(tmp_path, form, zipped):
    original = network()
    if form == "half":
        original.body.half().float()
    torch.save(FORMS[form](original.body.state_dict()), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    loaded = checkpoints.load(tmp_path / "x.pth", "resnet20", mean=MEAN, std=STD)
    assert same(loaded, original)
    assert all(parameter.dtype == torch.float32 for parameter in loaded.network.parameters())
    assert len(loaded.description.classes) == 7 and loaded.description.channels == 3


def test_safetensors_load(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file(network().body.state_dict(), tmp_path / "x.safetensors")
    assert same(checkpoints.load(tmp_path / "x.safetensors", "resnet20", mean=MEAN, std=STD), network())


def test_without_mean_the_images_go_in_unnormalised_with_a_warning(tmp_path):
    torch.save(network().body.state_dict(), tmp_path / "x.pt")
    with pytest.warns(UserWarning, match="images go in unnormalised"):
        loaded = checkpoints.load(tmp_path / "x.pt", "resnet20")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.network(images), network().body(images))


def test_class_and_channel_counts_are_read_from_the_weights(tmp_path):
    torch.save(network(classes=5, channels=1).body.state_dict(), tmp_path / "x.pt")
    loaded = checkpoints.load(tmp_path / "x.pt", "resnet20", mean=(0.5,), std=(0.5,))
    assert (len(loaded.description.classes), loaded.description.channels) == (5, 1)


class Shout:
    """A pickle that would run a command."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": network().body.state_dict(), "extra": Shout()}, "x.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Shout()))
    for name in ("x.pt", "raw.pt"):
        with pytest.raises(UserError, match=r"would have to run code.*exec_data\.py convert-checkpoint"):
            checkpoints.load(name, "resnet20", mean=MEAN, std=STD)
    assert not (tmp_path / "executed").exists()


def test_the_converter_makes_a_plain_state_dict(tmp_path):
    torch.save(network().body, tmp_path / "whole.pt")
    with pytest.raises(UserError, match="convert-checkpoint"):
        checkpoints.load(tmp_path / "whole.pt", "resnet20", mean=MEAN, std=STD)
    checkpoints.convert(tmp_path / "whole.pt", tmp_path / "plain.pt")
    assert same(checkpoints.load(tmp_path / "plain.pt", "resnet20", mean=MEAN, std=STD), network())


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("sidecar", [True, False])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused(saved, keep, sidecar, zipped):
    state = torch.load(saved, weights_only=True)
    torch.save(state, saved, _use_new_zipfile_serialization=zipped)
    content = saved.read_bytes()
    saved.write_bytes(content[: int(keep * len(content))])
    if not sidecar:
        checkpoints.sidecar(saved).unlink()
    with pytest.raises(UserError, match="not a whole checkpoint|not the file its sidecar describes"):
        checkpoints.load(saved, "resnet20", mean=MEAN, std=STD)


def test_weights_that_changed_under_their_sidecar_are_refused(saved):
    torch.save(network().body.state_dict() | {"fc.bias": torch.ones(7)}, saved)
    with pytest.raises(UserError, match="not the file its sidecar describes"):
        checkpoints.load(saved)


@pytest.mark.filterwarnings("ignore:.*no sidecar")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    file = tmp_path / "diverged.pt"
    torch.save(network().body.state_dict() | {"fc.bias": torch.full((7,), value)}, file)
    for read in (checkpoints.load, checkpoints.weights):
        with pytest.raises(UserError, match=r"1 of its tensors hold NaN or infinite values \(first: fc.bias\)"):
            read(file, "resnet20")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"sha256": 1}'])
def test_a_broken_sidecar_is_refused(saved, content):
    checkpoints.sidecar(saved).write_text(content)
    with pytest.raises(UserError, match="not a whole description"):
        checkpoints.load(saved)


def test_another_architecture_is_refused(saved, tmp_path):
    with pytest.raises(UserError, match="is a resnet20, not a lenet"):
        checkpoints.load(saved, "lenet")
    checkpoints.sidecar(saved).unlink()
    with pytest.raises(UserError, match=r"is no lenet: of its tensors \d+ missing \(first: features"):
        checkpoints.load(saved, "lenet", mean=MEAN, std=STD)


def test_another_class_count_than_the_sidecar_says_is_refused(saved):
    content = json.loads(checkpoints.sidecar(saved).read_text())
    checkpoints.sidecar(saved).write_text(json.dumps(content | {"classes": ["a", "b"]}))
    with pytest.raises(UserError, match=r"of another shape \(first: .*\(7, 64\) instead of \(2, 64\)"):
        checkpoints.load(saved)


def test_a_type_is_required_without_a_sidecar(saved):
    checkpoints.sidecar(saved).unlink()
    with pytest.raises(UserError, match="has no sidecar"):
        checkpoints.load(saved)


def test_a_missing_file_is_answered_with_what_is_there(saved):
    with pytest.raises(UserError, match=r"no such checkpoint; .* has model_3\.pt"):
        checkpoints.load(saved.with_name("model_4.pt"))
    with pytest.raises(UserError, match=r"is a folder with model_3\.pt"):
        checkpoints.load(saved.parent)


def test_normalisation_cannot_be_stated_twice(saved):
    with pytest.raises(UserError, match="comes with its normalisation"):
        checkpoints.load(saved, mean=(0.1, 0.1, 0.1), std=STD)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04rubbish", b"\x80\x02."])
def test_rubbish_is_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError):
        checkpoints.load(tmp_path / "x.pt", "resnet20", mean=MEAN, std=STD)


def test_a_zip_without_a_pickle_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("../../evil", "x")
    with pytest.raises(UserError, match="not a whole checkpoint"):
        checkpoints.load(tmp_path / "x.pt", "resnet20", mean=MEAN, std=STD)
    assert not (tmp_path.parent.parent / "evil").exists()


OWN = """
import torch
from torch import nn
from torch.nn.utils import parametrizations


class HeadFirst(nn.Module):
    '''The head is registered before the input, and beside buffers of its own called mean and std.'''

    def __init__(self, classes, channels, norm=lambda layer: layer, tracked=True):
        super().__init__()
        self.head = norm(nn.Linear(6, classes))
        self.stem = norm(nn.Conv2d(channels, 6, 3))
        self.bn = nn.BatchNorm2d(6, track_running_stats=tracked)
        self.register_buffer('mean', torch.tensor([0.3]))
        self.register_buffer('std', torch.tensor([0.2]))
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]

    def forward(self, x):
        x = self.bn(self.stem(x)).relu()
        return self.head(x.mean((2, 3)) * self.std + self.mean)


def plain(classes, channels, image_size):
    return HeadFirst(classes, channels)


def weight_norm(classes, channels, image_size):
    return HeadFirst(classes, channels, parametrizations.weight_norm)


def old_weight_norm(classes, channels, image_size):
    return HeadFirst(classes, channels, nn.utils.weight_norm)


def spectral_norm(classes, channels, image_size):
    return HeadFirst(classes, channels, parametrizations.spectral_norm)


def untracked(classes, channels, image_size):
    return HeadFirst(classes, channels, tracked=False)
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    trusted_files.trust(tmp_path / "own.py")
    return f"{tmp_path}/own.py"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*unnormalised")
@pytest.mark.parametrize("function", ["plain", "weight_norm", "old_weight_norm", "spectral_norm", "untracked"])
def test_bare_files_of_ones_own_networks_load_whatever_stands_first_and_however_weights_are_kept(tmp_path, own, function):
    torch.manual_seed(0)
    original = models.build(f"{own}:{function}", 7, 1, 12).eval()
    torch.save(original.state_dict(), tmp_path / "x.pt")
    loaded = checkpoints.load(tmp_path / "x.pt", f"{own}:{function}")
    assert len(loaded.description.classes) == 7 and loaded.description.channels == 1
    images = torch.rand(3, 1, 12, 12)
    with torch.no_grad():
        assert torch.equal(loaded.network(images), original(images))
    description, state = checkpoints.weights(tmp_path / "x.pt", f"{own}:{function}")
    assert len(description.classes) == 7 and {"mean", "std"} <= state.keys()
    torch.testing.assert_close(state["stem.weight"], original.stem.weight.detach())


def test_a_network_whose_constructor_reads_numbers_has_a_skeleton(own):
    described = checkpoints.Description(architecture=f"{own}:plain", classes=("a", "b"), channels=1, image_size=12)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    assert checkpoints.skeleton(described).body.stem.weight.shape == (6, 1, 3, 3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("other", ["params_ema", "averaged"])
def test_of_two_copies_of_the_weights_the_one_that_is_taken_is_named(tmp_path, other):
    state = network().body.state_dict()
    torch.save({"params": state, other: {key: value + 1 for key, value in state.items()}}, tmp_path / "two.pt")
    with pytest.warns(UserWarning, match=f"two.pt holds params and {other}; params is taken"):
        assert same(checkpoints.load(tmp_path / "two.pt", "resnet20", mean=MEAN, std=STD), network())
    torch.save({"params_ema": state}, tmp_path / "one.pt")
    assert same(checkpoints.load(tmp_path / "one.pt", "resnet20", mean=MEAN, std=STD), network())


def test_arrays_of_numbers_are_weights_for_the_converter(tmp_path):
    arrays = {key: value.numpy() for key, value in network().body.state_dict().items()}
    torch.save({"state_dict": arrays}, tmp_path / "arrays.pt")
    with pytest.raises(UserError, match="convert-checkpoint"):
        checkpoints.load(tmp_path / "arrays.pt", "resnet20", mean=MEAN, std=STD)
    assert checkpoints.convert(tmp_path / "arrays.pt", tmp_path / "plain.pt") == len(arrays)
    assert same(checkpoints.load(tmp_path / "plain.pt", "resnet20", mean=MEAN, std=STD), network())


def test_a_description_that_is_named_as_a_checkpoint_is_answered_with_the_weights_beside_it(tmp_path):
    checkpoints.save(tmp_path / "a.pt", network(), description())
    for read in (lambda path: checkpoints.load(path), lambda path: checkpoints.convert(path, tmp_path / "b.pt")):
        with pytest.raises(UserError, match="a.json is a description and holds no weights; they are in a.pt beside it"):
            read(tmp_path / "a.json")


def test_a_backbone_without_a_head_is_told_how_to_get_one_which_leaves_the_rest_as_it_was(tmp_path):
    whole = network().body.state_dict()
    torch.save({f"module.{key}": value for key, value in whole.items() if not key.startswith("fc.")}, tmp_path / "body.pt")
    with pytest.raises(UserError, match=r"2 missing \(first: fc.weight\); .*add-head .*body.pt NEW.pt resnet20 CLASSES"):
        checkpoints.load(tmp_path / "body.pt", "resnet20", mean=MEAN, std=STD)
    assert checkpoints.add_head(tmp_path / "body.pt", tmp_path / "new.pt", "resnet20", 7, 0) == ["fc.weight", "fc.bias"]
    made = checkpoints.load(tmp_path / "new.pt", "resnet20", mean=MEAN, std=STD)
    assert len(made.description.classes) == 7 and made.network.body.fc.weight.std() > 0
    state = made.network.body.state_dict()
    assert all(torch.equal(state[key], value) for key, value in whole.items() if not key.startswith("fc."))
    with pytest.raises(UserError, match="new.pt has a head: its fc is there"):
        checkpoints.add_head(tmp_path / "new.pt", tmp_path / "newer.pt", "resnet20", 7, 0)
    torch.save({key: value for key, value in whole.items() if not key.startswith("layer1.")}, tmp_path / "less.pt")
    with pytest.raises(UserError, match="is no resnet20: of its tensors .* missing") as refused:
        checkpoints.add_head(tmp_path / "less.pt", tmp_path / "newer.pt", "resnet20", 10, 0)
    assert "add-head" not in str(refused.value) and not (tmp_path / "newer.pt").exists()
