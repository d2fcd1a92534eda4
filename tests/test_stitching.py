"""Direct matching is least squares, resizing commutes with it, and what stitched networks are measured by."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, script

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


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def maps(b, c, side, seed=0):
    """Maps with correlated channels and a mean, as after a rectifier; float64."""
    mixing = normal(c, c, seed=seed + 9) * torch.logspace(0, -2, c, dtype=torch.float64)[:, None]
    return torch.einsum("bchw,cd->bdhw", normal(b, c, side, side, seed=seed), mixing).clamp_min(0) + 0.1


def statistics(x, y, kind="auto", ranks=False, parts=None, **options):
    empty = Stitch(kind, tuple(x.shape[1:]), tuple(y.shape[1:]), **options)
    found = least_squares.Statistics({("x", "y"): empty}, ranks=ranks)
    for part in parts or [len(x)]:
        found.add({"x": x[:part]}, {"y": y[:part]})
        x, y = x[part:], y[part:]
    return found


def matched(x, y, rank=None, **options):
    found = statistics(x, y, ranks=rank is not None, **options)
    problem = found.problem("x", "y")
    basis = None if rank is None else found.components("x", rank)[1]
    return problem, least_squares.exact(problem, basis)


def lstsq(x, y):
    augmented = np.concatenate([x, np.ones((len(x), 1))], 1)
    return augmented, np.linalg.lstsq(augmented, y, rcond=None)[0]


def rows(activation):
    return activation.movedim(1, -1).reshape(-1, activation.shape[1]).numpy()


@pytest.mark.parametrize(
    "shapes",
    [((6, 4), (5, 4)), ((6, 2), (5, 8)), ((6, 8), (5, 2)), ((6, 3), (5, 7))],
    ids=["same size", "enlarged", "reduced", "enlarged oddly"],
)
def test_direct_matching_solves_the_normal_equations(shapes):
    (p, before), (q, after) = shapes
    x, y = maps(40, p, before), maps(40, q, after, seed=1)
    problem, solution = matched(x, y)
    resized = stitching_layer.resize(x, (after, after), "bilinear")
    z, v = lstsq(rows(resized), rows(y))
    target = rows(y)
    slow = ((z @ v - target) ** 2).sum() / (target**2).sum()
    residual = problem.residual(solution.weight, solution.bias)
    assert residual == pytest.approx(slow, abs=1e-8) and solution.effective_rank == p
    ours = np.concatenate([solution.weight.numpy(), solution.bias.numpy()[None]])
    error = z @ ours - target
    assert np.linalg.norm(z.T @ error) / (np.linalg.norm(z) * np.linalg.norm(target)) <= 1e-10
    whole, fitted, left = (target**2).sum(), ((z @ ours) ** 2).sum(), (error**2).sum()
    assert whole == pytest.approx(fitted + left, rel=1e-9)  # Pythagoras
    assert residual == pytest.approx(1 - (z.T @ target * ours).sum() / whole, abs=1e-9)
    made = Stitch("auto", x.shape[1:], y.shape[1:])
    statistics(x, y).install(made, "x", "y", solution)
    assert torch.allclose(
        made(x.float()), torch.from_numpy(z @ v).view(40, after, after, q).movedim(-1, 1).float(), atol=1e-4
    )


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("before, after", [(2, 8), (8, 2), (3, 7), (5, 3), (4, 4)])
def test_products_at_the_smaller_resolution_are_those_of_the_resized_maps(before, after, mode):
    x, y = maps(30, 6, before), maps(30, 5, after, seed=1)
    whole = statistics(x, y, upsample=mode, parts=[13, 17]).problem("x", "y")
    flat = rows(stitching_layer.resize(x, (after, after), mode)), rows(y)
    means = [one.mean(0) for one in flat]
    one, two = (value - mean for value, mean in zip(flat, means, strict=True))
    for ours, slow in (
        (whole.x_mean, means[0]),
        (whole.y_mean, means[1]),
        (whole.xx, one.T @ one),
        (whole.xy, one.T @ two),
        (whole.yy, (two**2).sum(0)),
    ):
        assert np.linalg.norm(ours.numpy() - slow) <= 1e-9 * np.linalg.norm(slow)
    assert whole.rows == 30 * after**2


def test_direct_matching_ignores_invertible_maps_of_the_source():
    x, y = maps(60, 6, 4), maps(60, 5, 4, seed=1)
    left, right = (torch.linalg.qr(normal(6, 6, seed=seed)).Q for seed in (3, 4))
    mixing = left @ torch.diag(torch.logspace(0, 3, 6, dtype=torch.float64)) @ right
    moved = torch.einsum("bchw,cd->bdhw", x, mixing) + 7
    outputs = []
    for source in (x, moved):
        solution = matched(source, y)[1]
        outputs.append(torch.einsum("bchw,cd->bdhw", source, solution.weight) + solution.bias[:, None, None])
    assert (outputs[0] - outputs[1]).norm() / outputs[0].norm() <= 1e-7


@pytest.mark.parametrize("side", [4, 2, 9])
def test_statistics_of_parts_add_up(side):
    x, y = maps(50, 6, side), maps(50, 5, 4, seed=1)
    whole = statistics(x, y, ranks=True)
    parts = statistics(x, y, ranks=True, parts=[1, 7, 30, 12])
    others = [statistics(x[:20], y[:20], ranks=True), statistics(x[20:], y[20:], ranks=True)]
    others[0].merge(others[1])
    for other in (parts, others[0]):
        assert other.images == 50
        for key, sums in whole.sums.items():
            found = other.sums[key]
            assert found.rows == sums.rows
            for name in ("x", "y", "xy"):
                one, two = getattr(sums, name), getattr(found, name)
                assert (one - two).norm() <= 1e-12 * one.norm()


def test_directions_too_small_for_squared_sums_are_solved_from_the_rows():
    x = normal(300, 5)
    x = torch.cat([x, x[:, :1] + 3e-7 * normal(300, 1, seed=1)], 1)
    y = (x[:, 5:] - x[:, :1]) * 1e6 + normal(300, 1, seed=2)
    sums = statistics(x[:, None], y[:, None], "t2t")
    problem = sums.problem("x", "y")
    coarse = least_squares.exact(problem)
    assert coarse.doubtful and coarse.effective_rank == 5
    triangle = least_squares.Triangle()
    for part in (slice(0, 11), slice(11, 300)):
        triangle.add(x[part], y[part])
    solution = triangle.solve(6)
    z, v = lstsq(x.numpy(), y.numpy())
    ours = z @ np.concatenate([solution.weight.numpy(), solution.bias.numpy()[None]])
    assert solution.effective_rank == 6 and np.abs(ours - z @ v).max() < 1e-6
    assert not least_squares.exact(statistics(normal(40, 3, 4), normal(40, 3, 2, seed=1), "t2t").problem("x", "y")).doubtful


def test_a_network_that_puts_out_dead_and_repeated_channels_is_matched_without_them():
    x = maps(40, 4, 4)
    x = torch.cat([x, x[:, :2], 0 * x[:, :1]], 1)
    y = maps(40, 3, 4, seed=1)
    problem, solution = matched(x, y)
    assert solution.effective_rank == 4 and solution.weight.abs().max() < 1e3
    fewer, expected = matched(x[:, :4], y)
    assert problem.residual(solution.weight, solution.bias) == pytest.approx(
        fewer.residual(expected.weight, expected.bias), abs=1e-9
    )


def test_the_reference_solver_drops_directions_that_are_there_and_more_with_more_rows():
    x = maps(400, 16, 8) + 3
    y = torch.einsum("bchw,cd->bdhw", x, normal(16, 4, seed=5))
    flat = [torch.from_numpy(rows(z)) for z in (x, y)]
    few, many = (least_squares.reference(*(z[:count] for z in flat)) for count in (64 * 10, 64 * 400))
    assert few.effective_rank > many.effective_rank
    problem, solution = matched(x, y)
    assert solution.effective_rank == 16
    exact = problem.residual(solution.weight, solution.bias)
    assert exact < 1e-12 < problem.residual(many.weight, many.bias)


@pytest.mark.parametrize("rank", [1, 2, 4, 6])
@pytest.mark.parametrize("side", [4, 2])
def test_rank_limited_matching_equals_matching_the_truncated_source(rank, side):
    x, y = maps(50, 6, side), maps(50, 5, 4, seed=1)
    _, solution = matched(x, y, rank)
    flat = rows(x)
    mean = flat.mean(0)
    u, s, v = np.linalg.svd(flat - mean, full_matrices=False)
    limited = torch.from_numpy((u[:, :rank] * s[:rank]) @ v[:rank] + mean).view(50, side, side, 6).movedim(-1, 1)
    z, expected = lstsq(rows(stitching_layer.resize(limited, (4, 4), "bilinear")), rows(y))
    ours = z @ np.concatenate([solution.weight.numpy(), solution.bias.numpy()[None]])
    assert np.abs(ours - z @ expected).max() <= 1e-8 and solution.effective_rank == rank


def test_a_rank_limit_keeps_the_mean_and_the_largest_components():
    x = maps(80, 6, 4)
    found = statistics(x, x, ranks=True)
    flat = torch.from_numpy(rows(x))
    values = torch.linalg.eigvalsh((flat - flat.mean(0)).T @ (flat - flat.mean(0))).flip(0)
    for rank in (0, 1, 3, 6):
        mean, basis = found.components("x", rank)
        limit = stitching_layer.RankLimit(mean, basis).double()
        limit.mean, limit.basis = mean, basis
        limited = limit(x)
        assert (limited - x).square().sum().item() == pytest.approx(values[rank:].sum().item(), rel=1e-6, abs=1e-9)
        assert torch.allclose(limit(limited), limited, atol=1e-10)
        assert torch.allclose(limited[:7], limit(x[:7]))  # no batch enters it
        assert torch.allclose(limited.mean((2, 3)), limit(x.mean((2, 3))[:, :, None, None])[:, :, 0, 0], atol=1e-10)
        tokens = limit(x.flatten(2).transpose(1, 2))
        assert torch.allclose(tokens, limited.flatten(2).transpose(1, 2), atol=1e-12)
    assert torch.allclose(limited, x, atol=1e-10)


def test_resizing_reads_and_keeps_what_it_should():
    x = normal(2, 3, 32, 32)
    assert stitching_layer.resize(x, (32, 32), "bilinear") is x
    constant = stitching_layer.resize(torch.ones_like(x), (5, 5), "bilinear")
    assert torch.allclose(constant, torch.ones_like(constant), atol=1e-6)
    cells = x.unflatten(2, (4, 8)).unflatten(4, (4, 8))
    assert torch.allclose(
        stitching_layer.resize(x, (4, 4), "bilinear"), cells[:, :, :, 3:5, :, 3:5].mean((3, 5)), atol=1e-12
    )
    assert torch.equal(stitching_layer.resize(x, (4, 4), "nearest"), cells[:, :, :, 0, :, 0])


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("sizes", [(4, 32), (32, 4), (7, 3), (1, 8)])
def test_the_resizing_matrix_and_its_adjoint(mode, sizes):
    before, after = sizes
    matrix = stitching_layer.resize_matrix(before, after, mode)
    x, y = normal(2, 3, before, before), normal(2, 3, after, after, seed=1)
    resized = matrix @ x @ matrix.T
    assert torch.allclose(resized, stitching_layer.resize(x, (after, after), mode), atol=1e-12)
    assert (resized * y).sum().item() == pytest.approx((x * (matrix.T @ y @ matrix)).sum().item(), abs=1e-9)


@pytest.mark.parametrize("kind", ["rc2c_pre", "rc2c_post"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("side", [9, 2, 4])
def test_resizing_before_and_after_the_map_is_the_same_stitch(kind, mode, side):
    x, size = normal(2, 6, 4, 4).float(), (side, side)
    made = Stitch(kind, (6, 4, 4), (5, *size), upsample=mode)
    stitching_layer.initialise(made, "rand", torch.Generator().manual_seed(0))
    weight, bias = made.weight.detach()[:, :, None, None], made.bias.detach()
    before = F.conv2d(stitching_layer.resize(x, size, mode), weight, bias)
    after = stitching_layer.resize(F.conv2d(x, weight, bias), size, mode)
    assert torch.allclose(made(x), before, atol=1e-5) and torch.allclose(made(x), after, atol=1e-5)


@pytest.mark.parametrize(
    "kind, shape", [("c2c", (6, 4, 4)), ("rc2c_pre", (6, 4, 4)), ("rc2c_post", (6, 4, 4)), ("t2t", (17, 6))]
)
def test_the_identity_changes_nothing(kind, shape):
    made = Stitch(kind, shape, shape)
    stitching_layer.initialise(made, "eye", torch.Generator())
    x = normal(3, *shape).float()
    assert torch.equal(made(x), x)


def test_the_identity_between_tokens_and_maps_moves_patches():
    tokens = normal(3, 17, 6).float()
    to_maps, to_tokens = Stitch("t2c", (17, 6), (6, 4, 4)), Stitch("c2t", (6, 4, 4), (17, 6))
    for made in (to_maps, to_tokens):
        stitching_layer.initialise(made, "eye", torch.Generator())
    assert torch.equal(to_maps(tokens)[:, :, 1, 2], tokens[:, 1 + 4 + 2])
    back = to_tokens(to_maps(tokens))
    assert torch.equal(back[:, 1:], tokens[:, 1:]) and torch.allclose(back[:, 0], tokens[:, 1:].mean(1))
    only = Stitch("t2c", (17, 6), (6, 2, 2), from_class="only")
    stitching_layer.initialise(only, "eye", torch.Generator())
    assert torch.allclose(only(tokens)[:, :, 1, 1], tokens[:, 0])
    add = Stitch("t2c", (17, 6), (6, 4, 4), from_class="add")
    stitching_layer.initialise(add, "eye", torch.Generator())
    assert torch.allclose(add(tokens)[:, :, 0, 0], tokens[:, 1] + 0.1 * tokens[:, 0])
    assert {name for name, _ in add.named_parameters()} == {"weight", "bias", "cls_weight"}


@pytest.mark.parametrize(
    "source, target, options",
    [
        ((5, 4, 4), (17, 6), {}),
        ((5, 4, 4), (17, 6), {"to_class_token": "learn"}),
        ((5, 4, 4), (16, 6), {}),
        ((17, 5), (6, 4, 4), {}),
        ((17, 5), (6, 8, 8), {"from_class": "add"}),
        ((17, 5), (17, 6), {}),
    ],
)
def test_direct_matching_reaches_tokens_too(source, target, options):
    made = Stitch("auto", source, target, **options)
    x = normal(60, *source).float()
    stitching_layer.initialise(made, "rand", torch.Generator().manual_seed(1))
    y = made(x).detach()
    again = Stitch("auto", source, target, **options)
    found = statistics(x, y, **options)
    problem = found.problem("x", "y")
    solution = least_squares.exact(problem)
    found.install(again, "x", "y", solution)
    assert problem.residual(solution.weight, solution.bias) < 1e-10
    assert torch.allclose(again(x), y, atol=1e-3)


@pytest.mark.parametrize(
    "kind, source, target, options, fragment",
    [
        ("c2c", (6, 4, 4), (6, 2, 2), {}, "rc2c_pre resizes"),
        ("t2t", (17, 6), (16, 6), {}, "17 tokens"),
        ("rc2c_pre", (17, 6), (6, 4, 4), {}, "t2c does"),
        ("auto", (6,), (6, 4, 4), {}, "neither maps nor tokens"),
        ("c2t", (6, 4, 4), (17, 6), {"to_class_token": "none"}, "would take a patch for it"),
        ("t2c", (16, 6), (6, 4, 4), {"from_class": "add"}, "have no class token"),
        ("t2c", (13, 6), (6, 4, 4), {}, "no square grid"),
    ],
)
def test_shapes_that_a_type_cannot_join_are_refused(kind, source, target, options, fragment):
    with pytest.raises(UserError, match=fragment):
        Stitch(kind, source, target, **options)


def test_the_number_of_trained_parameters_is_that_of_an_affine_map():
    assert Stitch("auto", (512, 4, 4), (512, 4, 4)).parameters_counted() == 262_656
    assert sum(p.numel() for p in Stitch("auto", (65, 192), (65, 192)).parameters()) == 37_056


def test_sparsity_counts_biases():
    made = Stitch("auto", (8, 2, 2), (8, 2, 2))
    torch.nn.init.ones_(made.bias)
    assert stitching_layer.sparsity(made, (0.0, 1.0)) == [8 / 9, 1.0]


def test_perm_finds_the_order_of_shuffled_channels():
    x = maps(30, 7, 4)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    solution = least_squares.permutation(statistics(x, 3 * x[:, order] + 1).problem("x", "y"))
    assert torch.equal(solution.weight.argmax(0), order) and solution.weight.sum() == 7


# stitched networks

LAYERS = ["features.3", "features.6", "features.9"]  # 16 x 16 x 16, 32 x 8 x 8, 64 x 4 x 4
GRID = ("auto", "auto", ",".join(LAYERS), ",".join(LAYERS))


@pytest.fixture
def inside(siblings, monkeypatch):
    monkeypatch.chdir(siblings)


def run(*words, end="b"):
    return stitch(
        cli.parse(
            StitchConfig,
            ["models/a/model_2.pt", f"models/{end}/model_2.pt", *words, "-d", "digits", "--quiet", "-gpu", "-1"],
        )
    )


def by_pair(result):
    return {(row["front_layer"], row["end_layer"]): row for row in result.rows}


def donors(layers):
    networks = [checkpoints.load(f"models/{name}/model_2.pt").network for name in "ab"]
    return stitching_grid.Donors(*networks, layers, layers), networks


def digits():
    return datasets.load("digits", "data", "test")


def test_matched_with_itself_a_network_is_itself(inside):
    result = run(*GRID, "-i", "pinv", "-e", "0", end="a")
    found = by_pair(result)
    assert len(found) == 9 and result.rows[0]["end_accuracy"] > 0.8
    for layer in LAYERS:
        row = found[layer, layer]
        assert row["matching_residual"] <= 1e-8 and row["normalized_difference"] <= 1e-6
        assert row["agreement"] >= 0.999 and abs(row["penalty"]) <= 0.001 and row["samples"] == 100
        assert row["accuracy"] == max(found[layer, other]["accuracy"] for other in LAYERS)
    assert set(result.figures) == {""}
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
        same = stitching_grid.Donors(grid.front, grid.front, ["features.3"], ["features.3"])
        values = [
            stitching_grid.evaluate(
                same,
                [stitching_grid.GridStitch("features.3", "features.3", made)],
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
    with pytest.warns(UserWarning, match="--front-pinv-rank 50: left out for layer features.3"):
        result = run(*words, "--front-stitch-rank", "16", "2", "--front-pinv-rank", "16", "2", "50")
    found = {(row["stitch_rank"], row["pinv_rank"]): row for row in result.rows}
    assert len(found) == 4 and found[16, 2]["effective_rank"] == 2 and "3.limit.basis" in result.arrays
    full = run(*words).rows[0]
    assert found[16, 16]["normalized_difference"] == pytest.approx(full["normalized_difference"], rel=1e-4)
    assert found[2, 2]["normalized_difference"] == pytest.approx(found[16, 2]["normalized_difference"], rel=1e-4)
    assert full["normalized_difference"] < found[2, 2]["normalized_difference"]


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
        "models/a/model_2.pt",
        "models/b/model_2.pt",
        "small_cnn",
        "small_cnn",
        "features.6",
        "features.3",
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
    assert done.returncode == 0, done.stderr
    path = siblings / done.stdout.strip().splitlines()[-1]
    row = json.loads(path.read_text())["rows"][0]
    weight = np.load(path.with_suffix(".npz"))[f"{row['stitch']}.weight"]
    assert row["type"] == "rc2c_pre" and weight.shape == (16, 32) and row["data"] == "digits" and row["split"] == "test"
    assert "-first-" in path.name


def published_calls():
    """The commands of the README's table of published calls; those of the detectors are run elsewhere."""
    table = (ROOT / "README.md").read_text().partition("| published call | here |\n|---|---|\n")[2].partition("\n\n")[0]
    found = [line.split(" | ")[1].split("`")[1] for line in table.splitlines()]
    return [call for call in found if "ood" not in call.split()[0]]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, marks=() if call.split()[0] in ("exec_stitch.py", "exec_similarity.py") else pytest.mark.slow)
        for call in published_calls()
    ],
    ids=lambda call: call.split()[0],
)
def test_the_readmes_counterpart_of_a_published_call_runs(siblings, call):
    meanings = {
        "MODEL": "models/a/model_2.pt",
        "M1": "models/a/model_2.pt",
        "M2": "models/b/model_2.pt",
        "DATA": "digits",
        **dict.fromkeys(("TYPE", "T1", "T2"), "small_cnn"),
        "L1": LAYERS[0],
        "L2": LAYERS[0],
        "imagenet": "digits",
        "90": "1",
    }
    words = [meanings.get(word, word) for word in call.split()]
    if "train" in words[0]:
        words = [word.replace("DIR", f"published/{words[1]}") for word in words] + ["-e", "1"]
    done = script(*words, *([] if "tables" in words[0] else ["--max-examples", "120", "-gpu", "-1"]), cwd=siblings)
    assert done.returncode == 0, done.stderr


def test_every_published_script_has_its_line():
    assert len(published_calls()) >= 7 and {call.split()[0] for call in published_calls()} == {
        f"exec_{name}.py" for name in ("train", "eval", "stitch", "tables", "probe", "similarity")
    }


@pytest.mark.parametrize(
    "words, status, fragments",
    [
        ((), 2, ("FRONT_PATH and END_PATH are required",)),
        (("models/b/model_2.pt", "auto", "auto", "features.3", "features.3", "c3c"), 2, ("c3c", "c2c")),
        (("models/b/model_2.pt", "auto", "auto", "features.3", "features.3", "auto", "-i", "pnv"), 2, ("-i pnv", "pinv")),
        (("models/b/model_2.pt", "auto", "auto", "features", "feature.3"), 1, ("END_LAYER feature.3", "features.3")),
        (("models/b/model_2.pt", "auto", "auto", "flatten", "features.3"), 1, ("FRONT_LAYER flatten", "vector")),
        (
            ("models/b/model_2.pt", "auto", "auto", "features.3", "features.6", "auto", "-i", "eye"),
            1,
            ("-i eye", "channels"),
        ),
        (
            ("models/b/model_2.pt", "auto", "auto", "features.3", "features.6", "auto", "-i", "perm"),
            1,
            ("-i perm", "permutation"),
        ),
        (("models/b/model_2.pt", "auto", "auto", "features.3", "features.6", "t2t"), 1, ("t2t does not join maps",)),
        (
            (
                "models/b/model_2.pt",
                "auto",
                "auto",
                "features.3",
                "features.3",
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
            ("models/b/model_2.pt", "auto", "auto", "features.3", "features.3", "auto", "-pinv-samples", "0"),
            2,
            ("-pinv-samples 0", "or all"),
        ),
        (
            ("models/b/model_2.pt", "auto", "auto", "features.3", "features.3", "auto", "--front-stitch-rank", "99"),
            1,
            ("--front-stitch-rank 99", "channels"),
        ),
        (
            ("models/b/model_2.pt", "auto", "auto", "features.3", "features.3", "auto", "--front-pinv-rank", "2"),
            2,
            ("--front-pinv-rank",),
        ),
        (
            ("models/b/model_2.pt", "auto", "auto", "features.3", "features.3", "auto", "--solver", "reference"),
            2,
            ("--solver reference",),
        ),
        (
            ("models/b/model_2.pt", "auto", "auto", "features.3", "features.3", "auto", "--stitch-norm", "bn", "-i", "pinv"),
            2,
            ("--stitch-norm bn", "-i rand"),
        ),
        (
            ("models/b/model_2.pt", "auto", "auto", "features.3", "features.3", "auto", "-d", "digits-wo3"),
            1,
            ("9 classes, the end network 10",),
        ),
        (
            ("models/b/model_2.pt", "auto", "auto", "features.3", "features.3", "auto", "-d", "digits:test"),
            2,
            ("without a split",),
        ),
    ],
)
def test_bad_input_of_stitching_is_one_sentence(inside, words, status, fragments):
    words = ["models/a/model_2.pt", *words] if words else []
    with pytest.raises(UserError) as refused:
        given = cli.parse(StitchConfig, [*words, *([] if "-d" in words else ["-d", "digits"])])
        if given.answer() is None:
            stitch(given)
    message = str(refused.value)
    assert refused.value.status == status and all(fragment in message for fragment in fragments), message
    assert "\n" not in message
