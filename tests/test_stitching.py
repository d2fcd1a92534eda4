"""Direct matching is least squares, resizing commutes with it, and what stitched networks are measured by."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.core.errors import UserError
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
    streamed_qr = least_squares.StreamedQR()
    for part in (slice(0, 11), slice(11, 300)):
        streamed_qr.add(x[part], y[part])
    solution = streamed_qr.solve(6)
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
