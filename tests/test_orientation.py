"""Orientation of filters and rank correlation: the acceptance checks of the hyperplanes paper, by their numbers."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lib import models
from lib.core.errors import UserError
from lib.metrics import binomial, filter_projections, rank_correlation
from lib.models import checkpoints, filters
from lib.runs import input_files


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def description(name: str, classes: int = 10, channels: int = 3) -> checkpoints.Description:
    size = 224 if name == "alexnet" else 32
    return checkpoints.Description(
        architecture=name, classes=tuple(map(str, range(classes))), channels=channels, image_size=size
    )


def test_masses_of_gaussian_filters_lie_in_the_null_band_as_often_as_it_says():  # check 1
    low, high = binomial.null_band(512)
    assert (round(low, 3), round(high, 3)) == (0.457, 0.543)
    masses = [filter_projections.mass(filter_projections.projections(draw(512, 27, seed=seed))) for seed in range(200)]
    assert abs(np.mean([low <= share <= high for share in masses]) - 0.95) <= 0.045


@pytest.mark.parametrize(
    "n, band",
    [
        (6, (0.167, 0.833)),
        (16, (0.25, 0.75)),
        (64, (0.375, 0.625)),
        (128, (0.414, 0.586)),
        (256, (0.4375, 0.5625)),
        (512, (0.457, 0.543)),
        (5504, (0.4868, 0.5132)),
    ],
)
def test_null_bands_are_those_of_the_table(n, band):
    assert binomial.null_band(n) == pytest.approx(band, abs=6e-4)


def test_cosines_are_in_their_range_for_any_weights():  # check 2
    for scale in (1e-20, 1, 1e15):
        found = filter_projections.projections(scale * draw(50, 3, 5, 5) + scale, normalize=True)
        assert np.abs(found).max() <= 1 + 1e-6


def test_projections_of_constant_zero_sum_and_zero_filters():  # check 3
    filters_ = torch.stack([torch.full((4,), 0.3), torch.full((4,), -2.0), torch.tensor([1.0, -1, 1, -1]), torch.zeros(4)])
    cosines, sums = filter_projections.projections(filters_, normalize=True), filter_projections.projections(filters_)
    assert cosines[:3] == pytest.approx([1, -1, 0], abs=1e-6) and np.isnan(cosines[3])
    assert sums == pytest.approx([1.2, -8, 0, 0], abs=1e-6)
    assert [filter_projections.mass(sums[place : place + 1]) for place in range(4)] == [0, 1, 1, 1]
    assert filter_projections.mass(cosines) == 2 / 3  # the filter without a direction is not counted


def test_scaling_and_turning_filters_round():  # check 4
    weight = draw(64, 3, 3, 3)
    sums, cosines = filter_projections.projections(weight), filter_projections.projections(weight, normalize=True)
    assert filter_projections.projections(3.5 * weight) / sums == pytest.approx(3.5, rel=1e-5)
    assert filter_projections.projections(3.5 * weight, normalize=True) == pytest.approx(cosines, abs=1e-6)
    assert (sums != 0).all() and filter_projections.mass(-sums) == 1 - filter_projections.mass(sums)


def test_the_order_inside_a_filter_is_of_no_consequence():  # check 5
    weight = draw(8, 4, 3, 3)
    order = torch.randperm(36, generator=torch.Generator().manual_seed(1))
    for normalize in (False, True):
        expected = filter_projections.projections(weight, normalize)
        assert filter_projections.projections(weight.flatten(1)[:, order], normalize) == pytest.approx(expected, abs=1e-6)
        assert filter_projections.projections(weight.permute(0, 3, 1, 2), normalize) == pytest.approx(expected, abs=1e-6)


def circular(inward: int, outward: int) -> nn.Conv2d:
    conv = nn.Conv2d(inward, outward, 3, padding=1, padding_mode="circular").double()
    with torch.no_grad():
        conv.weight.copy_(draw(*conv.weight.shape))
        conv.bias.copy_(draw(outward, seed=1))
    return conv


def test_projections_are_the_row_sums_of_the_circulant_matrix():  # check 6
    conv = circular(2, 3)
    with torch.no_grad():
        columns = conv(torch.eye(50, dtype=torch.float64).view(50, 2, 5, 5)) - conv.bias.view(1, -1, 1, 1)
    rows = columns.flatten(1).T  # (3 * 25, 50): the matrix of the layer
    norms = np.repeat(conv.weight.detach().flatten(1).norm(dim=1).numpy(), 25)
    expected = np.repeat(filter_projections.projections(conv.weight, normalize=True), 25) * np.sqrt(18) * norms
    assert rows.sum(1).numpy() == pytest.approx(expected, abs=1e-6)


def test_all_hyperplanes_of_a_filter_meet_the_identity_line_in_one_point():  # check 7
    conv = circular(2, 4)
    places = -conv.bias.detach().numpy() / filter_projections.projections(conv.weight)
    for filter_, place in enumerate(places):
        with torch.no_grad():
            assert conv(torch.full((1, 2, 5, 5), place, dtype=torch.float64))[0, filter_].abs().max() < 1e-5


def initial_variance(name: str, module) -> float:
    """Var(p) of a fresh layer by the table of section 2.4."""
    weight = module.weight
    inward, outward, taps = weight.shape[1], weight.shape[0], weight[0][0].numel() if weight.ndim == 4 else 1
    if name == "vgg19_orig" or name.startswith("vgg") and weight.ndim == 2:
        return 1e-4 * taps * inward
    if name == "alexnet":
        return 1 / 3
    if name == "lenet":
        return 4 * inward / (inward + outward)
    return 2 * inward / outward


@pytest.mark.parametrize(
    "name",
    [
        "lenet",
        "mlp",
        "vgg11",
        "alexnet",
        pytest.param("vgg19_orig", marks=pytest.mark.slow),
        pytest.param("vgg19", marks=pytest.mark.slow),
    ],
)
def test_projections_of_fresh_networks_vary_as_their_initialisation_says(name):  # checks 8 and 9
    body = checkpoints.fresh(description(name), 0, "init").body
    checked = 0
    for module in body.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and len(module.weight) >= 64:
            n, allowed = len(module.weight), 5 * (2 / len(module.weight)) ** 0.5
            sums = filter_projections.projections(module.weight)
            cosines = filter_projections.projections(module.weight, normalize=True)
            assert abs((sums**2).mean() / initial_variance(name, module) - 1) < allowed, n
            assert abs((cosines**2).mean() * module.weight[0].numel() - 1) < allowed, n
            checked += 1
    assert checked >= 3


LAYOUTS = {  # filters of convolutions, with linear layers, blocks per stage
    "lenet": (172, 386, [2, 2, 2]),
    "alexnet": (1152, 9354, [1, 1, 3]),
    "vgg11": (2752, 10954, [1, 1, 2, 2, 2]),
    "vgg13": (2944, 11146, [2, 2, 2, 2, 2]),
    "vgg16": (4224, 12426, [2, 2, 3, 3, 3]),
    "vgg19": (5504, 13706, [2, 2, 4, 4, 4]),
    "vgg16bn": (4224, 12426, [2, 2, 3, 3, 3]),
    "mlp": (0, 19466, []),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_stages_and_blocks_are_numbered_as_the_paper_does(name):  # check 10
    convolutional, together, blocks = LAYOUTS[name]
    network = checkpoints.skeleton(description(name))
    found = filters.layers(network, with_linear=True)
    own = dict(network.body.named_modules())
    conv = [layer for layer in found if layer.kind == "Conv2d"]
    assert sum(len(own[layer.name].weight) for layer in conv) == convolutional
    assert sum(len(own[layer.name].weight) for layer in found) == together
    expected = [(str(stage), str(block)) for stage, count in enumerate(blocks) for block in range(count)]
    linear = 8 if name == "mlp" else 3
    expected += [(str(len(blocks)), str(block)) for block in range(linear)]
    assert [(layer.stage, layer.block) for layer in found] == expected
    if name == "mlp":
        with pytest.raises(UserError, match="--with-linear"):
            filters.layers(network)


PARAMETERS = {  # with 10, 100 and 1000 classes; None: the paper gives no number
    "lenet": (130160, 137810, 214310),
    "alexnet": (57044810, 57413540, 61100840),
    "vgg11": (128807306, 129176036, 132863336),
    "vgg13": (128991818, 129360548, 133047848),
    "vgg16": (134301514, 134670244, 138357544),
    "vgg19": (139611210, 139979940, 143667240),
    "vgg19_orig": (139611210, 139979940, 143667240),
    "vgg11bn": (128812810, None, None),
    "vgg13bn": (128997706, None, None),
    "vgg16bn": (134309962, None, None),
    "vgg19bn": (139622218, None, None),
    "mlp": (37809162, None, None),
    "mlp_bn": (37841930, None, None),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_as_many_parameters_as_the_papers(name):  # check 11
    for classes, expected in zip((10, 100, 1000), PARAMETERS[name], strict=True):
        network = checkpoints.skeleton(description(name, classes))
        assert expected in (None, sum(parameter.numel() for parameter in network.parameters()))
    assert sum(p.numel() for p in checkpoints.skeleton(description("lenet", 10, 1)).parameters()) == 130052


def test_1x1_convolutions_take_no_number():
    network = checkpoints.skeleton(description("resnet18"))
    plain, with_1x1 = filters.layers(network), filters.layers(network, with_1x1=True)
    extra = [layer for layer in with_1x1 if layer not in plain]
    assert len(extra) == 3 and all(layer.stage is None and layer.block is None for layer in extra)
    assert [layer for layer in with_1x1 if layer in plain] == plain
    assert len(filters.layers(checkpoints.skeleton(description("vit_tiny_patch4_32")), with_linear=True)) == 1 + 12 * 4 + 1


def test_distances_from_the_initial_weights():  # check 12
    weight = draw(64, 3, 3, 3)
    assert filter_projections.distances(weight, weight) == (0, 0)
    for factor in (0.25, 3.0):
        assert filter_projections.distances(factor * weight, weight) == pytest.approx((abs(factor - 1),) * 2, abs=1e-6)
    # two fresh layers are independent of one another
    first, second = (checkpoints.fresh(description("lenet"), seed, "init").body for seed in (0, 1))
    for a, b in zip(first.modules(), second.modules(), strict=True):
        if isinstance(a, nn.Conv2d | nn.Linear) and a.weight.numel() >= 1728:
            assert filter_projections.distances(a.weight, b.weight)[0] == pytest.approx(2**0.5, abs=0.06)
    assert filter_projections.distances(draw(64, 64, 3, 3), draw(64, 64, 3, 3, seed=1))[0] == pytest.approx(2**0.5, abs=0.03)


@pytest.mark.parametrize(
    "name, epoch",
    [
        ("x_39.tar", 40),
        ("x_40.pt", 40),
        ("x_init_0.pt", 0),
        ("x_pretrained_0.pt", -1),
        ("x_pretrained_40.pt", 40),
        ("init.pt", 0),
        ("model_7.pt", 7),
        ("best.pt", None),
    ],
)
def test_epochs_are_read_off_file_names_without_collisions(name, epoch, tmp_path):  # check 19
    assert input_files.epoch_of(tmp_path / name) == epoch


def test_folding_batch_normalisation_flips_the_signs_of_negative_gammas_only():  # check 29
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64)
    with torch.no_grad():
        norm.weight.copy_(torch.where(torch.arange(64) % 2 == 0, -1.0, 1.0) * torch.rand(64).add(0.1))
        norm.running_var.copy_(torch.rand(64) + 0.1)
    scale = filter_projections.folding({"weight": norm.weight, "running_var": norm.running_var}, norm.eps)
    folded = filter_projections.fold(conv.weight, scale)
    plain = filter_projections.projections(conv.weight)
    found = filter_projections.projections(folded)
    sign = norm.weight.sign().detach().numpy()
    assert (np.sign(found) == sign * np.sign(plain)).all()
    assert filter_projections.mass(found) == (sign * plain <= 0).mean()
    images = draw(2, 3, 8, 8)
    norm.eval()
    shift = norm.bias - norm.running_mean * scale.float()
    with torch.no_grad():
        assert torch.allclose(norm(conv(images)), nn.functional.conv2d(images, folded) + shift.view(1, -1, 1, 1), atol=1e-5)


@pytest.mark.parametrize(
    "name, norm_of_first",
    [("vgg11bn", "features.1"), ("resnet20", "bn1"), ("mlp_bn", "hidden1.bn"), ("preact_resnet18", "layer_0.0.batchnorm_0")],
)
def test_a_layer_is_folded_with_the_normalisation_that_takes_its_output(name, norm_of_first):
    network = checkpoints.skeleton(description(name))
    found = filters.norms(network, description(name))
    first = filters.layers(network, with_linear=True)[0].name
    assert found[first][0] == norm_of_first
    kinds = dict(network.body.named_modules())
    if name == "preact_resnet18":
        assert found["layer_0.0.conv_2d_1"][0] == "layer_0.0.batchnorm_1" and "layer_0.0.conv_2d_2" not in found
    assert all(isinstance(kinds[norm], nn.BatchNorm2d | nn.BatchNorm1d) for norm, _ in found.values())


class PostActivation(nn.Sequential):
    """An activation in place stands between the convolution and the normalisation."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))


def test_a_normalisation_behind_an_activation_is_not_folded():
    from lib.models import cutting

    assert cutting.followers(PostActivation(), torch.zeros(1, 3, 8, 8), nn.BatchNorm2d) == {"1": "2"}


def test_binomial_statistics_agree_with_scipys():
    for count, n in ((0, 6), (5, 6), (40, 64), (64, 64)):
        reference = stats.binomtest(count, n)
        interval = reference.proportion_ci(method="exact")
        assert binomial.interval(count, n) == pytest.approx((interval.low, interval.high))
        tails = [stats.binom.pmf(k, n, 0.5) for k in range(n + 1)]
        assert binomial.p_value(count, n) == pytest.approx(sum(p for p in tails if p <= tails[count] * (1 + 1e-7)))
    assert filter_projections.z_score(0.625, 64) == pytest.approx(2)


def test_rank_correlation_agrees_with_scipys_and_with_a_count_over_all_orders():
    generator = np.random.default_rng(0)
    for ties in (False, True):
        x, y = generator.normal(size=(2, 6)).round(0 if ties else 9)
        found = rank_correlation.spearman(x, y)
        assert found == pytest.approx(stats.spearmanr(x, y).statistic)
        orders = [abs(stats.spearmanr(np.array(order), y).statistic) for order in itertools.permutations(x)]
        expected = np.mean([value >= abs(found) - 1e-9 for value in orders])
        found = rank_correlation.spearman_p(x, y)
        assert found == pytest.approx((expected, np.mean([value >= max(orders) - 1e-9 for value in orders])))
    x, y = generator.normal(size=(2, 30))
    found = rank_correlation.spearman_p(x, y)
    assert found.p == pytest.approx(stats.spearmanr(x, y).pvalue, abs=0.02) and found.least == 1e-4


def test_partial_correlation_takes_out_what_a_third_measure_explains():
    generator = np.random.default_rng(1)
    depth = np.arange(40.0)
    x, y = depth + generator.normal(size=40), depth + generator.normal(size=40)
    pairs = {"xy": (x, y), "xz": (x, depth), "yz": (y, depth)}
    rho = {name: rank_correlation.spearman(*pair) for name, pair in pairs.items()}
    expected = (rho["xy"] - rho["xz"] * rho["yz"]) / np.sqrt((1 - rho["xz"] ** 2) * (1 - rho["yz"] ** 2))
    assert rank_correlation.partial_spearman(x, y, depth) == pytest.approx(expected)
    assert rho["xy"] > 0.95 and abs(expected) < 0.4
    assert rank_correlation.partial_spearman_p(x, y, depth).p > 0.01 > rank_correlation.spearman_p(x, y).p
    assert rank_correlation.partial_spearman(depth, y, depth) is None  # nothing is left to correlate


def test_correlations_that_do_not_exist_are_none():
    for x, y in (([1.0, 2], [2.0, 1]), ([1.0, 1, 1], [1.0, 2, 3])):
        assert rank_correlation.spearman(np.array(x), np.array(y)) is None
        assert rank_correlation.spearman_p(np.array(x), np.array(y)) == (None, None)


@pytest.mark.parametrize("n, slope", [(5, 0.0), (5, 1.5), (6, 3.0), (12, 3.0)])
def test_few_layers_that_share_nothing_but_depth_seldom_have_a_small_partial_p(n, slope):
    generator = np.random.default_rng(n)
    depth = np.arange(float(n))
    draws = (slope * (depth - depth.mean()) / depth.std() + generator.normal(size=(2, n)) for _ in range(300))
    found = [rank_correlation.partial_spearman_p(x, y, depth, draws=199).p for x, y in draws]
    assert np.mean([p is not None and p <= 0.05 for p in found]) < 0.07  # 0.11 with residuals in another order


def test_a_p_that_cannot_reach_the_level_is_none_and_its_least_value_is_stated():
    four, five = np.arange(4.0), np.arange(5.0)
    assert rank_correlation.spearman_p(four, four) == (None, pytest.approx(2 / 24))
    assert rank_correlation.spearman_p(five, five) == pytest.approx((2 / 120, 2 / 120))
    tied = np.array([0.0, 0, 0, 0, 0, 1])  # the 1 falls to either end of six
    assert rank_correlation.spearman_p(tied, np.arange(6.0)) == (None, pytest.approx(1 / 3))
    assert rank_correlation.partial_spearman_p(np.array([2.0, 0, 3, 1]), np.array([3.0, 1, 0, 2]), four).p is None
    for one_sided in (rank_correlation.spearman_one_sided, rank_correlation.kendall_one_sided):
        assert one_sided(five[:3], five[:3])[1] == (None, pytest.approx(1 / 6))
        assert one_sided(five, five)[1] == pytest.approx((1 / 120, 1 / 120))
        x, y = np.array([0.0, 0, 1, 1, 2]), np.array([0.0, 1, 1, 1, 2])
        orders = [one_sided(np.array(order), y)[0] for order in itertools.permutations(x)]
        assert one_sided(y, x)[1].least == pytest.approx(np.mean([value >= max(orders) - 1e-9 for value in orders]))


@pytest.mark.parametrize(
    "words, paths, kind",
    [
        (("a.pt", "b.pt"), ("a.pt", "b.pt"), ""),
        (("a.pt", "vgg11"), ("a.pt",), "vgg11"),
        (("lenet",), (), "lenet"),
        (("models/lenet",), ("models/lenet",), ""),
        (("a.pt", "timm:resnet10t"), ("a.pt",), "timm:resnet10t"),
        ((), (), ""),
    ],
)
def test_positionals_end_in_an_optional_type(words, paths, kind):
    assert input_files.split_type(words) == (paths, kind)
    assert kind == "" or kind in models.MODELS or ":" in kind
