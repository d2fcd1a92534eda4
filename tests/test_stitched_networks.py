"""Stitched networks and exec_stitch.py: what must not change, what hooks would make, training, records, mistakes."""

import json

import drawn
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import script

from lib import datasets, models
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.experiments.config.stitch import StitchConfig
from lib.experiments.stitch import stitch
from lib.models import checkpoints, cutting
from lib.models.normalized import Normalized
from lib.runs import cli
from lib.stitching import grid as stitching_grid
from lib.stitching import layer as stitching_layer
from lib.stitching import least_squares
from lib.stitching.layer import Stitch

LAYERS = ["pool1", "pool2", "pool3"]  # 16 x 16 x 16, 32 x 8 x 8, 64 x 4 x 4
GRID = ("auto", "auto", ",".join(LAYERS), ",".join(LAYERS))


@pytest.fixture
def inside(siblings, monkeypatch):
    monkeypatch.chdir(siblings)


def run(*words, end="b"):
    return stitch(
        cli.parse(
            StitchConfig,
            ["models/a/model_5.pt", f"models/{end}/model_5.pt", *words, "-d", "digits", "--quiet", "-gpu", "-1"],
        )
    )


def by_pair(result):
    return {(row["front_layer"], row["end_layer"]): row for row in result.rows}


def donors(layers):
    networks = [checkpoints.load(f"models/{name}/model_5.pt").network for name in "ab"]
    return stitching_grid.Donors(*networks, layers, layers), networks


def digits():
    return datasets.load("digits", "data", "test")


def test_matched_with_itself_a_network_is_itself(inside):
    result = run(*GRID, "-i", "pinv", "-e", "0", end="a")
    found = by_pair(result)
    assert len(found) == 9 and result.rows[0]["end_accuracy"] > 0.7
    for layer in LAYERS:
        row = found[layer, layer]
        assert row["matching_residual"] <= 1e-8 and row["normalized_difference"] <= 1e-6
        assert row["agreement"] >= 0.999 and abs(row["penalty"]) <= 0.001 and row["samples"] == 100
        assert row["agreement"] == max(found[layer, other]["agreement"] for other in LAYERS)
    assert set(drawn.of("stitch", StitchConfig(front_path="a", end_path="a"), result)) == {""}
    single = run("auto", "auto", LAYERS[0], LAYERS[-1], "-i", "pinv", "-e", "0", end="a").rows[0]
    assert single == {**found[LAYERS[0], LAYERS[-1]], "stitch": 0}  # the drawn images do not depend on the pair


@pytest.mark.parametrize("kind", ["c2c", "rc2c_pre", "rc2c_post", "auto"])
def test_the_identity_at_one_layer_changes_no_prediction(inside, kind):
    row = run("small_cnn", "small_cnn", LAYERS[0], LAYERS[0], kind, "-i", "eye", "-e", "0", end="a").rows[0]
    assert row["agreement"] == 1 and row["normalized_difference"] == 0 and row["r2"] == 1
    assert row["matching_residual"] is None and row["sparsity_0"] == 1 - 16 / (16 * 17)


def test_difference_has_its_known_values_whatever_the_batch(inside):
    grid, _ = donors(LAYERS[:1])
    shape = (16, 16, 16)
    for factor in (1.0, 0.0, 0.7):
        made = Stitch("auto", shape, shape)
        stitching_layer.initialise(made, "eye", torch.Generator())
        made.weight.data *= factor
        same = stitching_grid.Donors(grid.front, grid.front, ["pool1"], ["pool1"])
        values = [
            stitching_grid.evaluate(
                same,
                [stitching_grid.GridStitch("pool1", "pool1", made)],
                digits(),
                Batching(device=torch.device("cpu"), batch_size=size, channels=1, size=32, quiet=True),
            )[0][0]["normalized_difference"]
            for size in (64, 355)
        ]
        assert values == pytest.approx([(1 - factor) ** 2] * 2, abs=1e-6)


def test_a_stitched_network_is_the_one_that_hooks_would_make(inside):
    layers = LAYERS[:2]
    grid, (front, end) = donors(layers)
    images = torch.rand(5, 1, 32, 32)
    sources = grid.sources(images)
    made = Stitch("auto", sources[layers[1]].shape[1:], sources[layers[0]].shape[1:])
    stitching_layer.initialise(made, "rand", torch.Generator().manual_seed(0))
    ours, _ = grid.logits(stitching_grid.GridStitch(layers[1], layers[0], made), sources)
    with cutting.record(front, [layers[1]]) as seen:
        front(images)
    handle = end.body.get_submodule(layers[0]).register_forward_hook(lambda *_: made(seen[layers[1]]))
    theirs = end(images)
    handle.remove()
    assert torch.allclose(ours, theirs, atol=1e-5) and not torch.allclose(ours, end(images), atol=1e-2)


@pytest.fixture(scope="module")
def families():
    """Untrained networks of maps and of tokens."""
    found = {}
    for name in ("resnet20", "vit_tiny_patch4_32"):
        torch.manual_seed(0)
        found[name] = Normalized(models.build(name, 10, 3, 32), (0.5,) * 3, (0.25,) * 3).eval()
    return found


@pytest.mark.parametrize(
    "front, one, end, two, kind",
    [
        ("resnet20", "layer2.1", "resnet20", "layer1.2", "rc2c_pre"),
        ("resnet20", "layer1.2", "resnet20", "layer3.0", "rc2c_pre"),
        ("vit_tiny_patch4_32", "blocks.1", "vit_tiny_patch4_32", "blocks.3", "t2t"),
        ("resnet20", "layer2.1", "vit_tiny_patch4_32", "blocks.2", "c2t"),
        ("vit_tiny_patch4_32", "blocks.2", "resnet20", "layer2.1", "t2c"),
    ],
)
def test_the_residual_of_matching_is_the_difference_on_the_images_matched_on(families, front, one, end, two, kind):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = Split("noise", "test", images, torch.arange(24) % 10, classes=tuple("0123456789"))
    passes = Batching(device=torch.device("cpu"), batch_size=10, channels=3, size=32, quiet=True)
    grid = stitching_grid.Donors(families[front], families[end], [one], [two])
    image = torch.zeros(1, 3, 32, 32)
    made = Stitch("auto", grid.sources(image)[one].shape[1:], grid.targets(image)[two].shape[1:])
    found = stitching_grid.collect(grid, split, least_squares.Statistics({(one, two): made}), passes)
    problem = found.problem(one, two)
    solution = least_squares.exact(problem)
    found.install(made, one, two, solution)
    rows, _ = stitching_grid.evaluate(grid, [stitching_grid.GridStitch(one, two, made)], split, passes)
    assert made.kind == kind and 1e-4 < rows[0]["normalized_difference"] < 1
    assert problem.residual(solution.weight, solution.bias) == pytest.approx(rows[0]["normalized_difference"], rel=1e-3)
    assert 0 < rows[0]["r2"] < 1


def test_a_layer_that_is_bypassed_is_refused_with_the_nearest_cuts(families):
    network = families["resnet20"]
    for layers in (["layer1.0.conv1"], ["layer1.0"]), (["layer1.0"], ["layer1.0.conv1"]):
        with pytest.raises(UserError, match="a connection bypasses it.*nearest cuts are .*layer1.0"):
            stitching_grid.Donors(network, network, *layers)


def test_what_goes_through_a_tail_together_comes_out_as_alone(inside, monkeypatch):
    together = run(*GRID, "-i", "pinv", "-e", "0", "-b", "50").rows
    monkeypatch.setattr(stitching_grid, "STACKED", 1)
    assert together == run(*GRID, "-i", "pinv", "-e", "0", "-b", "50").rows


def test_more_images_match_better(inside):
    few, many, whole = (
        by_pair(run(*GRID, "-i", "pinv", "-e", "0", "-pinv-samples", count)) for count in ("20", "1000", "all")
    )
    for pair, row in many.items():
        assert row["normalized_difference"] <= few[pair]["normalized_difference"] + 1e-3
        assert row["samples"] == 1000 and whole[pair]["samples"] == 1442


def test_the_reference_solver_runs_and_is_never_the_better_fit(inside):
    exact, published = (
        by_pair(run(*GRID, "-i", "pinv", "-e", "0", "--solver", solver)) for solver in ("exact", "reference")
    )
    for pair, row in published.items():
        assert row["solver"] == "reference" and row["matching_residual"] >= exact[pair]["matching_residual"] - 1e-6
        assert row["effective_rank"] <= exact[pair]["effective_rank"] + 1


def test_ranks_limit_what_passes(inside):
    words = ("auto", "auto", LAYERS[0], LAYERS[0], "-i", "pinv", "-e", "0")
    with pytest.warns(UserWarning, match="--front-pinv-rank 50: left out for layer pool1"):
        result = run(*words, "--front-stitch-rank", "16", "2", "--front-pinv-rank", "16", "2", "50")
    found = {(row["stitch_rank"], row["pinv_rank"]): row for row in result.rows}
    assert len(found) == 4 and found[16, 2]["effective_rank"] == 2 and "3.limit.basis" in result.arrays
    full = run(*words).rows[0]
    assert found[16, 16]["normalized_difference"] == pytest.approx(full["normalized_difference"], rel=1e-4)
    assert found[2, 2]["normalized_difference"] == pytest.approx(found[16, 2]["normalized_difference"], rel=1e-4)
    assert full["normalized_difference"] < found[2, 2]["normalized_difference"]


def test_a_rank_limit_while_matching_says_whose_directions_it_keeps(inside):
    words = ("auto", "auto", LAYERS[0], LAYERS[0], "-i", "pinv", "-e", "0")
    assert run(*words).rows[0]["pinv_basis"] is None
    exact, published = (run(*words, "--front-pinv-rank", "4", "--solver", name).rows[0] for name in ("exact", "reference"))
    assert (
        exact["pinv_basis"] == "the front layer's channels" and published["pinv_basis"] == "the rows of each pair, resized"
    )
    assert published["matching_residual"] == pytest.approx(exact["matching_residual"], rel=0.1)  # nothing is resized here


def test_task_loss_matching_trains_the_stitch_and_leaves_the_donors_as_they_were(inside):
    layers = LAYERS[1:]
    grid, networks = donors(layers)
    before = [{key: value.clone() for key, value in network.state_dict().items()} for network in networks]
    shapes = {layer: value.shape[1:] for layer, value in grid.sources(torch.zeros(1, 1, 32, 32)).items()}
    entries = []
    for one in layers:
        for two in layers:
            made = Stitch("auto", shapes[one], shapes[two])
            stitching_layer.initialise(made, "rand", torch.Generator().manual_seed(0))
            entries.append(stitching_grid.GridStitch(one, two, made))
    images, labels = torch.rand(16, 1, 32, 32), torch.arange(16) % 10
    loss, _ = stitching_grid.task_loss(grid, entries, l1=0.1)(None, images, labels, None)
    loss.backward()
    slow = 0
    for entry in entries:
        ours = {name: weight.grad for name, weight in entry.stitch.named_parameters()}
        logits, _ = grid.logits(entry, grid.sources(images))
        value = F.cross_entropy(logits, labels) + 0.1 * sum(weight.abs().sum() for weight in entry.stitch.parameters())
        expected = torch.autograd.grad(value, list(entry.stitch.parameters()))
        slow += value.item()
        assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(ours.values(), expected, strict=True))
    assert loss.item() == pytest.approx(slow, rel=1e-5)
    for network, known in zip(networks, before, strict=True):
        assert all(torch.equal(value, known[key]) for key, value in network.state_dict().items())
        assert not network.training and all(weight.grad is None for weight in network.parameters())


def test_training_improves_accuracy_repeats_itself_and_pairs_do_not_disturb_one_another(inside):
    words = ("auto", "auto", LAYERS[2], ",".join(LAYERS[1:]), "-b", "64", "-lr", "0.01")
    first, again = (by_pair(run(*words, "-e", "1")) for _ in range(2))
    assert first == again
    untrained = by_pair(run(*words, "-e", "0"))
    for pair, row in first.items():
        assert row["accuracy"] > untrained[pair]["accuracy"] + 0.2 and row["trained"] and row["epochs"] == 1
    alone = run(*words[:3], LAYERS[2], *words[4:], "-e", "1").rows[0]
    assert alone == {**first[LAYERS[2], LAYERS[2]], "stitch": 0}


def test_options_of_training_are_honoured(inside):
    words = ("auto", "auto", LAYERS[2], LAYERS[2], "-b", "64", "-lr", "0.01", "--max-examples", "200")
    plain = run(*words, "-e", "1")
    assert run(*words, "-e", "1", "-l1", "0.05").rows[0]["sparsity_1e-1"] > plain.rows[0]["sparsity_1e-1"]
    soft = run(*words, "-e", "1", "--soft-targets")
    assert not np.array_equal(soft.arrays["0.weight"], plain.arrays["0.weight"])
    normed = run(*words, "-e", "1", "--stitch-norm", "bn")
    assert normed.arrays["0.norm.num_batches_tracked"] == 4 and "0.norm.running_mean" in normed.arrays
    matched, still = run(*words, "-i", "pinv", "-e", "0"), run(*words, "-i", "pinv", "-e", "1", "-lr", "1e-30")
    assert np.allclose(still.arrays["0.weight"], matched.arrays["0.weight"], rtol=0, atol=1e-20)


def test_the_papers_command_runs_and_its_record_holds_the_stitch(siblings):
    done = script(
        "exec_stitch.py",
        "models/a/model_5.pt",
        "models/b/model_5.pt",
        "small_cnn",
        "small_cnn",
        "pool2",
        "pool1",
        "rc2c_pre",
        "-d",
        "digits",
        "-e",
        0,
        "-b",
        512,
        "-i",
        "pinv",
        "--mod-only-stitch",
        "-dir",
        "first",
        cwd=siblings,
    )
    assert done.returncode == 0 and "--mod-only-stitch has no effect" in done.stderr, done.stderr
    path = siblings / done.stdout.strip().splitlines()[-1]
    row = json.loads(path.read_text())["rows"][0]
    weight = np.load(path.with_suffix(".npz"))[f"{row['stitch']}.weight"]
    assert row["type"] == "rc2c_pre" and weight.shape == (16, 32) and row["data"] == "digits" and row["split"] == "test"
    assert "-first-" in path.name


@pytest.mark.parametrize(
    "words, status, fragments",
    [
        ((), 2, ("FRONT_PATH and END_PATH are required",)),
        (("models/b/model_5.pt", "auto", "auto", "pool1", "pool1", "c3c"), 2, ("c3c", "c2c")),
        (("models/b/model_5.pt", "auto", "auto", "pool1", "pool1", "auto", "-i", "pnv"), 2, ("-i pnv", "pinv")),
        (("models/b/model_5.pt", "auto", "auto", "pool1", "pol1"), 1, ("END_LAYER pol1", "pool1")),
        (("models/b/model_5.pt", "auto", "auto", "flatten", "pool1"), 1, ("FRONT_LAYER flatten", "vector")),
        (
            ("models/b/model_5.pt", "auto", "auto", "pool1", "pool2", "auto", "-i", "eye"),
            1,
            ("-i eye", "channels"),
        ),
        (
            ("models/b/model_5.pt", "auto", "auto", "pool1", "pool2", "auto", "-i", "perm"),
            1,
            ("-i perm", "permutation"),
        ),
        (("models/b/model_5.pt", "auto", "auto", "pool1", "pool2", "t2t"), 1, ("t2t does not join maps",)),
        (
            (
                "models/b/model_5.pt",
                "auto",
                "auto",
                "pool1",
                "pool1",
                "auto",
                "-i",
                "pinv",
                "-pinv-samples",
                "1443",
            ),
            1,
            ("-pinv-samples 1443", "only 1442"),
        ),
        (
            ("models/b/model_5.pt", "auto", "auto", "pool1", "pool1", "auto", "-pinv-samples", "0"),
            2,
            ("-pinv-samples 0", "or all"),
        ),
        (
            ("models/b/model_5.pt", "auto", "auto", "pool1", "pool1", "auto", "--front-stitch-rank", "99"),
            1,
            ("--front-stitch-rank 99", "channels"),
        ),
        (
            ("models/b/model_5.pt", "auto", "auto", "pool1", "pool1", "auto", "--front-pinv-rank", "2"),
            2,
            ("--front-pinv-rank",),
        ),
        (
            ("models/b/model_5.pt", "auto", "auto", "pool1", "pool1", "auto", "--solver", "reference"),
            2,
            ("--solver reference",),
        ),
        (
            ("models/b/model_5.pt", "auto", "auto", "pool1", "pool1", "auto", "--stitch-norm", "bn", "-i", "pinv"),
            2,
            ("--stitch-norm bn", "-i rand"),
        ),
        (
            ("models/b/model_5.pt", "auto", "auto", "pool1", "pool1", "auto", "-d", "digits-wo3"),
            1,
            ("9 classes, the end network 10",),
        ),
        (
            ("models/b/model_5.pt", "auto", "auto", "pool1", "pool1", "auto", "-d", "digits:test"),
            2,
            ("without a split",),
        ),
    ],
)
def test_bad_input_of_stitching_is_one_sentence(inside, words, status, fragments):
    words = ["models/a/model_5.pt", *words] if words else []
    with pytest.raises(UserError) as refused:
        given = cli.parse(StitchConfig, [*words, *([] if "-d" in words else ["-d", "digits"])])
        if given.answer() is None:
            stitch(given)
    message = str(refused.value)
    assert refused.value.status == status and all(fragment in message for fragment in fragments), message
    assert "\n" not in message
