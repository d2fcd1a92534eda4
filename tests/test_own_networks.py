"""Networks of one's own, in the shapes in which researchers have them, through the scripts."""

import json
import re
import warnings

import pytest
import torch
from conftest import copied, script

from lib import models
from lib.core import trusted_files
from lib.core.errors import UserError
from lib.models import cutting

BRIEF = ("-d", "digits", "--max-examples", 120, "-gpu", -1, "--trust", "own.py")

NETWORK = """
from types import SimpleNamespace

import torch
from torch import nn


class Tokens(nn.Module):
    '''Attention over tokens that stand before the images, then over windows of them.'''

    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.embed = nn.Conv2d(channels, 8, 7, 7)
        self.enc = nn.TransformerEncoderLayer(8, 2, 16)
        self.norm = nn.LayerNorm(8)
        self.window = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.constant = nn.Identity()
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        bs = x.size(0)
        assert x.shape[2] == x.shape[3], 'squares only'
        x = self.embed(x)
        if x.shape[-1] < 2:
            raise ValueError('too small')
        x = self.enc(x.flatten(2).permute(2, 0, 1))
        x = self.norm(x.transpose(0, 1))
        x = x + self.window(x.reshape(bs * 4, -1, 8)).view(bs, -1, 8)
        self.constant(self.head.weight)
        return self.head(x.mean(1) + self.attention(x, x, x)[0].mean(1))


def tokens(classes, channels, image_size):
    return Tokens(classes, channels, image_size)


class Classed(nn.Module):
    '''Tokens without and then with a class and a distillation token.'''

    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.embed = nn.Conv2d(channels, 8, 7, 7)
        self.patches = nn.LayerNorm(8)
        self.first = nn.Parameter(torch.zeros(1, 2, 8))
        self.block = nn.Linear(8, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.patches(self.embed(x).flatten(2).transpose(1, 2))
        x = self.block(torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1))
        return self.head(x[:, :2].mean(1) + x[:, 2:].mean(1))


class Base(nn.Module):
    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.fc = nn.Linear(channels * image_size**2, classes)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Colour(Base):
    '''Three channels, whatever it is asked for, and a normalisation at one position.'''

    def __init__(self, classes, channels, image_size):
        super().__init__(classes, 3, image_size)
        self.bn = nn.BatchNorm1d(classes)

    def forward(self, x):
        return self.bn(super().forward(x))


class Grey(Base):
    '''One channel, whatever it is asked for.'''

    def __init__(self, classes, channels, image_size):
        super().__init__(classes, 1, image_size)


class Widened(Base):
    '''Any number of channels, averaged.'''

    def __init__(self, classes, channels, image_size):
        super().__init__(classes, 1, image_size)

    def forward(self, x):
        return super().forward(x.mean(1))


class InDict(Base):
    def forward(self, x):
        return {'loss': None, 'logits': super().forward(x)}


class InObject(Base):
    def forward(self, x):
        return SimpleNamespace(logits=super().forward(x))


class InTuple(Base):
    def forward(self, x):
        return super().forward(x), x


class Auxiliary(Base):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)


class Nested(Base):
    def forward(self, x):
        return {'out': {'y': super().forward(x)}}
"""


def write(folder) -> None:
    (folder / "own.py").write_text(NETWORK)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A working directory with `models/t`: the network `tokens`, briefly trained."""
    folder = copied(tmp_path_factory, "own-tokens")
    write(folder)
    done = script("exec_train.py", "own.py:tokens", "-dir", "t", "-e", 1, "-lr", "3e-3", *BRIEF, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def rows(folder, experiment: str) -> list[dict]:
    """Those of the newest record of an experiment."""
    newest = max((folder / "results" / experiment).glob("*.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text())["rows"]


def test_layers_are_listed_with_their_roles_and_why_they_are_no_cuts(tokens):
    listed = script("exec_probe.py", "models/t/model_1.pt", "--list-layers", "--trust", "own.py", cwd=tokens)
    assert listed.returncode == 0, listed.stderr
    lines = {line.split()[0]: line for line in listed.stdout.splitlines() if line.strip()}
    assert "attention" in lines["attention"].split()[2] and "9x8" not in lines["constant"]
    assert "no features, it puts out 10x8 for 2 images and 10x8 for 3" in listed.stdout
    assert re.search("^no cut, a connection bypasses it: .*window", listed.stdout, re.MULTILINE)
    assert re.search("^no cut, puts out 16x2x8 for 2 images, no row for each: .*enc", listed.stdout, re.MULTILINE)


def test_probes_similarity_and_energies_read_every_layer_of_a_network_whose_images_are_on_other_axes(tokens):
    probed = script("exec_probe.py", "models/t/model_1.pt", "-l", "all", "--reduce", "gap", "-e", 1, *BRIEF, cwd=tokens)
    assert probed.returncode == 0, probed.stderr
    assert "left out constant" in probed.stderr
    found = {row["layer"]: row["role"] for row in rows(tokens, "probe")}
    assert {"enc", "window", "attention"} <= found.keys() and found["attention"] == "attention"
    alike = script("exec_similarity.py", *["models/t/model_1.pt"] * 2, "auto", "auto", "all", "-n", 20, *BRIEF, cwd=tokens)
    assert alike.returncode == 0, alike.stderr
    outliers = script(
        "exec_ood_layers.py", "models/t/model_1.pt", "-ood", "digits-c/fog-3", "-l", "attention,enc", *BRIEF, cwd=tokens
    )
    assert outliers.returncode == 0, outliers.stderr
    assert {row["layer"] for row in rows(tokens, "ood_layers")} == {"attention", "enc"}


def test_a_role_names_layers_and_one_that_is_not_there_is_answered_with_those_that_are(tokens):
    probed = script("exec_probe.py", "models/t/model_1.pt", "-l", "role:attention", "-e", 1, *BRIEF, cwd=tokens)
    assert probed.returncode == 0, probed.stderr
    assert "attention" in {row["layer"] for row in rows(tokens, "probe")}
    wrong = script("exec_probe.py", "models/t/model_1.pt", "-l", "role:pooling", "-e", 1, *BRIEF, cwd=tokens)
    assert wrong.returncode == 1 and "role:pooling: the network has no such layers; it has role:convolution" in wrong.stderr


@pytest.mark.parametrize("experiment", ["exec_probe.py", "exec_ood_layers.py", "exec_similarity.py"])
def test_a_layer_without_features_that_is_named_is_refused_alike_by_every_script(tokens, experiment):
    words = {
        "exec_probe.py": ("models/t/model_1.pt", "-l", "constant"),
        "exec_ood_layers.py": ("models/t/model_1.pt", "-ood", "digits-c/fog-3", "-l", "constant"),
        "exec_similarity.py": ("models/t/model_1.pt", "models/t/model_1.pt", "auto", "auto", "constant"),
    }[experiment]
    refused = script(experiment, *words, *BRIEF, cwd=tokens)
    assert refused.returncode == 1
    assert (
        "constant: it puts out 10x8 for 2 images and 10x8 for 3, where no one axis is that of the images" in refused.stderr
    )


def test_the_readings_of_sizes_leave_the_cuts_as_they_are(tokens):
    trusted_files.trust(tokens / "own.py")
    network = models.build(f"{tokens}/own.py:tokens", 10, 1, 28).eval()
    images = torch.rand(3, 1, 28, 28)
    assert cutting.cuts(network, images) == ["embed", "norm", "head"]
    for layer in cutting.cuts(network):
        front, back = cutting.cut(network, layer)
        with torch.no_grad():
            assert torch.equal(back(front(images)), network(images)), layer


@pytest.mark.parametrize("form", ["InDict", "InObject", "InTuple", "Auxiliary"])
def test_logits_among_other_outputs_are_unwrapped_and_that_is_said_once(tmp_path, form):
    write(tmp_path)
    trusted_files.trust(tmp_path / "own.py")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        network = models.build(f"{tmp_path}/own.py:{form}", 10, 1, 8)
        images = torch.rand(3, 1, 8, 8)
        for _ in range(3):
            assert torch.equal(network(images), network.fc(images.flatten(1)))
        assert torch.equal(network.eval()(images), network.fc(images.flatten(1)))
    assert len(said) == 1 and "its logits are" in str(said[0].message)
    assert cutting.cuts(network, images) == ["fc"]


def test_logits_that_cannot_be_found_are_refused_with_a_wrapper_that_finds_them(tmp_path):
    write(tmp_path)
    trusted_files.trust(tmp_path / "own.py", tmp_path / "wrapped.py")
    with pytest.raises(UserError, match=r"a dict of 1 \('out': a dict of 1.*\nclass Logits\(Nested\):\n") as refused:
        models.build(f"{tmp_path}/own.py:Nested", 10, 1, 8)
    wrapper = "\n".join(str(refused.value).splitlines()[-2:]).replace("[...]", '["out"]["y"]')
    (tmp_path / "wrapped.py").write_text(f"{NETWORK}\n\n{wrapper}\n")
    assert models.build(f"{tmp_path}/wrapped.py:Logits", 10, 1, 8)(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_pairs_that_no_stitch_joins_are_rows_with_the_reason_and_distillation_tokens_are_stitched(tmp_path):
    write(tmp_path)
    made = script("exec_train.py", "own.py:Classed", "-dir", "c", "-e", 1, "-lr", "3e-3", *BRIEF, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    grid = ("models/c/model_1.pt", "models/c/model_1.pt", "auto", "auto", "cuts", "cuts", "auto", "-i", "pinv", "-e", 0)
    stitched = script("exec_stitch.py", *grid, "-pinv-samples", 60, *BRIEF, cwd=tmp_path)
    assert stitched.returncode == 0, stitched.stderr
    assert "2 of 9 pairs of layers cannot be stitched" in stitched.stderr
    cells = {(row["front_layer"], row["end_layer"]): row for row in rows(tmp_path, "stitch")}
    assert len(cells) == 9
    for pair, (before, after) in {("patches", "block"): (16, 18), ("block", "patches"): (18, 16)}.items():
        assert cells[pair]["missing"] == f"stitching type t2t: {before} tokens cannot be put in the place of {after}"
    assert cells["block", "embed"]["type"] == "t2c" and cells["embed", "block"]["type"] == "c2t"
    assert cells["block", "block"]["agreement"] == 1
    tables = script("exec_tables.py", "stitch", cwd=tmp_path)
    assert tables.returncode == 0 and "cannot be put" not in tables.stdout, tables.stderr
    alone = script("exec_stitch.py", *grid[:4], "patches", "block", *grid[6:], *BRIEF, cwd=tmp_path)
    assert alone.returncode == 1 and "16 tokens cannot be put in the place of 18" in alone.stderr


def test_grey_images_are_repeated_for_a_network_of_three_channels(tmp_path):
    write(tmp_path)
    made = script("exec_train.py", "own.py:Colour", "-dir", "c", "-e", 1, *BRIEF, cwd=tmp_path)
    assert made.returncode == 0 and "three channels only: the channel of digits is repeated" in made.stderr, made.stderr
    described = json.loads((tmp_path / "models" / "c" / "model_1.json").read_text())
    assert described["channels"] == len(described["mean"]) == 3
    measured = script("exec_eval.py", "models/c/model_1.pt", *BRIEF, cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr


def test_a_bare_file_shows_the_channels_of_its_images_or_is_told_them(tmp_path):
    write(tmp_path)
    for kind in ("Base", "Grey", "Widened"):
        made = script("exec_train.py", f"own.py:{kind}", "-dir", kind, "-e", 1, *BRIEF, cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        (tmp_path / "models" / kind / "model_1.json").unlink()

    def evaluated(kind, *flags):
        answer = script("exec_eval.py", f"models/{kind}/model_1.pt", f"own.py:{kind}", *flags, *BRIEF, cwd=tmp_path)
        records = sorted((tmp_path / "results" / "eval").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return answer, json.loads(records[-1].read_text()) if answer.returncode == 0 else {}

    side = ("--mean", 0.1, "--std", 0.3)
    seen, found = evaluated("Base", *side)
    assert seen.returncode == 0 and evaluated("Grey", *side)[0].returncode == 0, seen.stderr
    stated = evaluated("Base", *side, "--channels", 1)[1]
    assert [row["accuracy"] for row in stated["rows"]] == [row["accuracy"] for row in found["rows"]]
    unknown = evaluated("Base", *side, "--image-size", 28)[0]
    assert unknown.returncode == 1 and "takes 1024 numbers, not the 2352 of 3 x 28 x 28 images" in unknown.stderr
    assert "state --image-size and --channels" in unknown.stderr
    colour = evaluated("Widened", *side)[0]
    assert colour.returncode == 1 and "--mean: 1 numbers for 3 channels" in colour.stderr
    assert evaluated("Widened", *side, "--channels", 1)[0].returncode == 0


def test_channels_that_a_sidecar_denies_are_refused(tokens):
    refused = script("exec_eval.py", "models/t/model_1.pt", "--channels", 3, *BRIEF, cwd=tokens)
    assert refused.returncode == 1 and "comes with its number of channels, 1" in refused.stderr


def test_a_batch_of_one_image_names_its_flag_before_anything_is_written(tmp_path):
    write(tmp_path)
    refused = script("exec_train.py", "own.py:Colour", "-dir", "c", "-b", 1, *BRIEF, cwd=tmp_path)
    assert refused.returncode == 1 and "-b 1: batch normalisation needs more than one value per channel" in refused.stderr
    assert not (tmp_path / "models" / "c" / "init.pt").exists()


def test_stitching_takes_the_data_of_its_networks_and_says_at_once_that_images_are_too_few(tokens):
    pair = ("models/t/model_1.pt", "models/t/model_1.pt", "auto", "auto", "norm", "norm", "auto", "-i", "pinv", "-e", 0)
    few = ("-pinv-samples", 500, "--max-examples", 60)
    refused = script("exec_stitch.py", *pair, *few, "-gpu", -1, "--trust", "own.py", cwd=tokens)
    assert refused.returncode == 1 and "-pinv-samples 500: digits has only 60 training images" in refused.stderr
    made = script(
        "exec_stitch.py", *pair, "-pinv-samples", 60, "--max-examples", 60, "-gpu", -1, "--trust", "own.py", cwd=tokens
    )
    assert made.returncode == 0, made.stderr
    again = script(
        "exec_stitch.py",
        *pair,
        "-pinv-samples",
        60,
        "--max-examples",
        60,
        "-gpu",
        -1,
        "-d",
        "digits",
        "--trust",
        "own.py",
        cwd=tokens,
    )
    assert again.returncode == 0 and len(list((tokens / "results" / "stitch").glob("*.json"))) == 1


def test_a_backbone_of_other_classes_is_answered_with_the_commands_that_use_it(tokens):
    words = ("-d", "patches", "-ood", "uniform", "--space", "feature", "--layer", "norm", "-gpu", -1)
    refused = script("exec_ncg.py", "models/t/model_1.pt", *words, "--max-examples", 60, "--trust", "own.py", cwd=tokens)
    assert refused.returncode == 1
    assert "exec_train.py LargeMLP -d features=models/t/model_1.pt:LAYER:patches -dir head" in refused.stderr


class Lists(torch.nn.Module):
    """Blocks that take a tensor or a list, as they find it, and hand a list and sizes on."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Conv2d(3, 3, 1)

        def forward(self, x):
            x = x if isinstance(x, list) else [x]
            return [self.inner(x[0]), x[0].shape[2]]

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = self.Block(), self.Block(), torch.nn.Linear(3, 4)

    def forward(self, x):
        x, size = self.two(self.one(x))
        return self.head(x.flatten(2).sum(2) / size)


def test_lists_and_sizes_that_modules_hand_on_leave_the_cuts_inside_them():
    network, images = Lists().eval(), torch.rand(3, 3, 8, 8)
    assert cutting.cuts(network, images) == ["one.inner", "two.inner", "head"]
    for layer in cutting.cuts(network, images):
        front, back = cutting.cut(network, layer, images)
        with torch.no_grad():
            assert torch.equal(back(front(images)), network(images)), layer


class Scales(torch.nn.Module):
    """Blocks in a list of modules, and one that takes two scales of which the network uses the second only."""

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Conv2d(3, 3, 1)

        def forward(self, coarse, fine):
            return coarse, self.inner(fine)

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)) for _ in range(2))
        self.both, self.head = self.Both(), torch.nn.Linear(3, 4)

    def forward(self, x):
        coarse = self.blocks[0](x)
        _, fine = self.both(coarse, self.blocks[1](coarse))
        return self.head(fine.flatten(2).sum(2))


def test_every_cut_that_is_listed_can_be_made_inside_lists_of_modules():
    network, images = Scales().eval(), torch.rand(3, 3, 8, 8)
    listed = cutting.cuts(network, images)
    assert {"blocks.0", "blocks.0.0", "blocks.1"} <= set(listed)
    for layer in listed:
        front, back = cutting.cut(network, layer, images)
        with torch.no_grad():
            assert torch.equal(back(front(images)), network(images)), layer
