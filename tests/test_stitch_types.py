"""Every type of stitch with every initialisation, solver and norm: honoured, or refused in a sentence."""

import contextlib

import numpy as np
import pytest
import torch

from lib.core import trusted_files
from lib.core.errors import UserError
from lib.experiments.config.stitch import INITS, TYPES, StitchConfig
from lib.experiments.stitch import stitch
from lib.models import checkpoints
from lib.models.checkpoints import Description
from lib.runs import cli, loading

NETWORK = '''
import torch
from torch import nn


class Tokens(nn.Module):
    """(b, 6, 4, 4) -> (b, 17, 6): a class token before the patches."""

    def forward(self, maps):
        patches = maps.flatten(2).transpose(1, 2)
        return torch.cat([patches.amax(1, keepdim=True), patches], 1)


class Both(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.wide = nn.Conv2d(channels, 8, 4, stride=4)
        self.maps = nn.Sequential(nn.Conv2d(8, 6, 2, stride=2), nn.ReLU())
        self.tokens = Tokens()
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, classes)

    def forward(self, images):
        tokens = self.mix(self.tokens(self.maps(self.wide(images))))
        return self.head(tokens[:, 0] + tokens.mean(1))


def network(classes, channels, image_size):
    return Both(classes, channels)
'''
ENDS = {
    "c2c": ("maps", "maps"),
    "rc2c_pre": ("maps", "maps"),
    "rc2c_post": ("maps", "maps"),
    "t2t": ("mix", "mix"),
    "c2t": ("maps", "mix"),
    "t2c": ("mix", "maps"),
    "auto": ("mix", "maps"),
}
MADE = {"auto": "t2c"}
ROW = (
    "front_layer",
    "end_layer",
    "type",
    "init",
    "trained",
    "samples",
    "stitch_rank",
    "pinv_rank",
    "accuracy",
    "relative_accuracy",
    "penalty",
    "agreement",
    "matching_residual",
    "normalized_difference",
    "normalized_difference_batch_mean",
    "r2",
    "sparsity_0",
    "sparsity_1e-5",
    "sparsity_1e-4",
    "sparsity_1e-3",
    "sparsity_1e-2",
    "sparsity_1e-1",
    "epochs",
    "seed",
    "condition",
    "effective_rank",
    "null",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """a.pt and b.pt: networks of maps and of tokens, with random weights, for the built-in digits."""
    place = tmp_path_factory.mktemp("types")
    (place / "both.py").write_text(NETWORK)
    with contextlib.chdir(place):
        trusted_files.trust("both.py")
        for seed, name in enumerate("ab"):
            described = Description(
                architecture="both.py:network", classes=tuple("0123456789"), channels=1, image_size=32, dataset="digits"
            )
            checkpoints.save(place / f"{name}.pt", checkpoints.fresh(described, seed, "init"), described)
    return place


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    trusted_files.trust("both.py")


def run(kind, *words, ends=None, networks="ab"):
    front, end = ends or ENDS[kind]
    return stitch(
        cli.parse(
            StitchConfig,
            [
                *(f"{name}.pt" for name in networks),
                "auto",
                "auto",
                front,
                end,
                kind,
                "-d",
                "digits",
                "--quiet",
                "-gpu",
                "-1",
                "--max-examples",
                "60",
                *words,
            ],
        )
    )


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_honours_every_initialisation(inside, kind, init):
    found = run(kind, "-i", init, "-e", "0", "-pinv-samples", "all")
    row, weight, bias = found.rows[0], found.arrays["0.weight"], found.arrays["0.bias"]
    assert set(ROW) <= set(row) and row["type"] == MADE.get(kind, kind) and row["init"] == init and not row["trained"]
    if init == "eye":
        assert np.array_equal(weight, np.eye(6)) and not bias.any()
    elif init == "perm":
        assert np.array_equal(np.sort(weight.ravel())[-6:], np.ones(6)) and (weight.sum(0) == 1).all() and not bias.any()
        assert (weight.sum(1) == 1).all() and row["samples"] == 60
    elif init == "rand":
        assert 0 < np.abs(weight).max() <= 6**-0.5 and np.abs(bias).max() > 0
    else:
        assert row["matching_residual"] < 1 and row["effective_rank"] <= 6 and row["samples"] == 60
        others = [run(kind, "-i", other, "-e", "0", "-pinv-samples", "all").rows[0] for other in ("eye", "perm", "rand")]
        assert all(row["matching_residual"] <= (other["matching_residual"] or 1) for other in others)
    assert (row["matching_residual"] is None) == (init in ("eye", "rand"))


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_has_the_published_solver_and_trains_from_it(inside, kind):
    exact, published = (
        run(kind, "-i", "pinv", "-e", "0", "-pinv-samples", "20", "--solver", solver).rows[0]
        for solver in ("exact", "reference")
    )
    assert published["matching_residual"] == pytest.approx(exact["matching_residual"], rel=2e-2)
    trained = run(kind, "-i", "pinv", "-e", "1", "-pinv-samples", "20").rows[0]
    assert trained["trained"] and trained["matching_residual"] == exact["matching_residual"]
    assert trained["normalized_difference"] != exact["normalized_difference"]


@pytest.mark.parametrize("norm", ["none", "bn", "ln"])
@pytest.mark.parametrize("kind", ["rc2c_pre", "t2t", "c2t", "t2c"])
def test_every_norm_is_trained_on_maps_and_tokens(inside, kind, norm):
    arrays = run(kind, "-e", "1", "--stitch-norm", norm).arrays
    named = {name for name in arrays if name.startswith("0.norm")}
    if norm == "none":
        assert not named
    else:
        assert {"0.norm.weight", "0.norm.bias"} <= named and (arrays["0.norm.weight"] != 1).any()
        assert ("0.norm.running_mean" in named) == (norm == "bn")


@pytest.mark.parametrize("kind", ["c2c", "rc2c_pre", "rc2c_post", "t2t"])
def test_the_identity_at_one_layer_of_one_network_changes_nothing(inside, kind):
    row = run(kind, "-i", "eye", "-e", "0", networks="aa").rows[0]
    assert row["agreement"] == 1 and row["normalized_difference"] == 0 and row["penalty"] == 0


@pytest.mark.parametrize(
    "init, fragment",
    [
        ("eye", "-i eye: 8 channels cannot be taken for 6"),
        ("perm", "-i perm: 8 channels of wide are no permutation of the 6 of maps"),
    ],
)
def test_unequal_widths_are_refused_by_what_needs_equal_ones(inside, init, fragment):
    with pytest.raises(UserError, match=fragment):
        run("auto", "-i", init, "-e", "0", "-pinv-samples", "all", ends=("wide", "maps"))
    assert run("auto", "-i", "pinv", "-e", "0", "-pinv-samples", "all", ends=("wide", "maps")).rows[0]["type"] == "rc2c_pre"


def test_options_of_class_tokens_reach_the_stitch(inside):
    learnt = run("c2t", "-i", "pinv", "-e", "0", "-pinv-samples", "all", "-c2t-cls", "learn").arrays
    assert learnt["0.cls_token"].any()
    added = run("t2c", "-e", "1", "-t2c-cls", "add").arrays
    assert added["0.cls_weight"] != pytest.approx(0.1, abs=1e-6)
    with pytest.raises(UserError, match="-c2t-cls none: the target's 17 tokens begin with a class token"):
        run("c2t", "-c2t-cls", "none")


def test_ranks_limit_tokens_too(inside):
    rows = run(
        "t2t",
        "-i",
        "pinv",
        "-e",
        "0",
        "-pinv-samples",
        "all",
        "--front-stitch-rank",
        "6",
        "2",
        "--front-pinv-rank",
        "6",
        "2",
    ).rows
    found = {(row["stitch_rank"], row["pinv_rank"]): row for row in rows}
    assert found[2, 2]["effective_rank"] == 2
    assert found[2, 2]["normalized_difference"] == pytest.approx(found[6, 2]["normalized_difference"], rel=1e-4)


def test_donors_are_the_same_to_the_last_bit_after_matching_training_and_nulls(inside, monkeypatch):
    loaded, load = [], loading.load_checkpoint
    monkeypatch.setattr(loading, "load_checkpoint", lambda *words: loaded.append(load(*words)) or loaded[-1])
    run("rc2c_pre", "-i", "pinv", "-pinv-samples", "all", "-e", "2", "--null", "--stitch-norm", "none", "-wd", "0.1")
    assert len(loaded) == 2
    for checkpoint, name in zip(loaded, "ab", strict=True):
        known = checkpoints.load(f"{name}.pt").network.state_dict()
        assert all(torch.equal(value, known[key]) for key, value in checkpoint.network.state_dict().items())
        assert not checkpoint.network.training
