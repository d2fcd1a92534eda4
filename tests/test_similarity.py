"""The indices ignore what they should ignore, and the shortcuts over layers and ranks equal brute force."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from conftest import script

from lib import datasets
from lib.core import randomness
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.experiments import EXPERIMENTS
from lib.experiments.config.similarity import SimilarityConfig
from lib.experiments.similarity import similarity as compare
from lib.metrics import image_permutations, similarity
from lib.models import checkpoints
from lib.representations import passes
from lib.representations import similarity as method
from lib.runs import cli
from lib.runs import script as script_

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
Y = X[:, :1]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(n=200, p=7, q=5, seed=0):
    x = normal(n, p, seed=seed)
    return x, x[:, :q] @ normal(q, q, seed=seed + 1) + 0.5 * normal(n, q, seed=seed + 2)


def rotation(size, seed=3):
    return torch.linalg.qr(normal(size, size, seed=seed)).Q


def invertible(size, seed=4):
    left, right = rotation(size, seed), rotation(size, seed + 1)
    return left @ torch.diag(torch.logspace(0, 2, size, dtype=torch.float64)) @ right


def test_known_answers_of_four_points():
    assert similarity.linear_cka(X, Y) == pytest.approx(math.sqrt(0.5), abs=1e-8)
    assert similarity.procrustes(X, Y) == pytest.approx(2 - math.sqrt(2), abs=1e-7)
    assert similarity.pwcca(X, Y) == pytest.approx(0.5, abs=1e-8)
    assert similarity.pwcca(Y, X) == pytest.approx(0, abs=1e-8)


def test_cka_is_one_for_itself_symmetric_and_ignores_rotation_scale_and_shift():
    x, y = correlated()
    assert similarity.linear_cka(x, x) == pytest.approx(1, abs=1e-9)
    reference = similarity.linear_cka(x, y)
    assert similarity.linear_cka(y, x) == pytest.approx(reference, abs=1e-9)
    assert similarity.linear_cka(3 * x @ rotation(7) + 5, y @ rotation(5) - 2) == pytest.approx(reference, abs=1e-9)
    assert similarity.linear_cka(x @ invertible(7), y) != pytest.approx(reference, abs=1e-2)


def test_cka_through_inputs_equals_cka_through_features():
    x, y = normal(30, 8), normal(30, 40, seed=1)
    wide = torch.cat([x, torch.zeros(30, 60, dtype=torch.float64)], 1)  # the same Gram matrix, more features than inputs
    slow = ((x - x.mean(0)).T @ (y - y.mean(0))).norm() ** 2
    slow /= ((x - x.mean(0)).T @ (x - x.mean(0))).norm() * ((y - y.mean(0)).T @ (y - y.mean(0))).norm()
    assert similarity.linear_cka(x, y) == pytest.approx(slow.item(), abs=1e-12)
    assert similarity.linear_cka(wide, y) == pytest.approx(slow.item(), abs=1e-12)


def test_debiased_cka_equals_the_sum_over_tuples_and_is_zero_in_the_mean_where_biased_cka_is_not():
    x, y = normal(7, 3), normal(7, 2, seed=1)
    first, second = x @ x.T, y @ y.T

    def hsic(k, m):
        """The U-statistic over all ordered quadruples of different inputs (Song et al. 2012, eq. 5, as it stands)."""
        total = 0.0
        for i, j, q, r in itertools.permutations(range(7), 4):
            total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        return total

    slow = hsic(first, second) / math.sqrt(hsic(first, first) * hsic(second, second))
    assert similarity.debiased_cka(x, y) == pytest.approx(float(slow), abs=1e-10)
    pairs = [(normal(40, 60, seed=seed), normal(40, 60, seed=seed + 50)) for seed in range(30)]
    assert np.mean([similarity.linear_cka(*pair) for pair in pairs]) > 0.5
    assert abs(np.mean([similarity.debiased_cka(*pair) for pair in pairs])) < 0.02


def test_procrustes_is_zero_up_to_rotation_symmetric_and_within_its_range():
    x, y = correlated(p=5)
    assert similarity.procrustes(x, 2 * x @ rotation(5) + 1) == pytest.approx(0, abs=1e-9)
    distance = similarity.procrustes(x, y)
    assert similarity.procrustes(y, x) == pytest.approx(distance, abs=1e-12) and 0 < distance < 2
    a, b = [(z - z.mean(0)) / (z - z.mean(0)).norm() for z in (x, y)]
    u, _, v = torch.linalg.svd(a.T @ b)
    assert (a @ u @ v - b).square().sum().item() == pytest.approx(distance, abs=1e-12)


def test_pwcca_ignores_invertible_maps_of_its_second_argument_only():
    x, y = correlated()
    assert similarity.pwcca(x, x) == pytest.approx(0, abs=1e-9)
    distance = similarity.pwcca(x, y)
    assert similarity.pwcca(x, y @ invertible(5)) == pytest.approx(distance, abs=1e-8)
    assert abs(similarity.pwcca(x @ invertible(7), y) - distance) > 1e-3
    assert abs(similarity.pwcca(y, x) - distance) > 1e-3


def test_pwcca_says_where_the_weighing_side_has_more_directions_than_the_published_rule_is_for():
    x, y = correlated()  # 7 and 5 directions
    x, y = x - x.mean(0), y - y.mean(0)
    sides = [similarity.Side(z.T @ z) for z in (x, y)]
    assert similarity.weighing(*sides) == "first, of more directions" and similarity.weighing(*sides[::-1]) == "first"
    padded = torch.cat([y, y @ invertible(5)], 1)  # ten features, five directions
    assert similarity.weighing(similarity.Side(padded.T @ padded), sides[1]) == "first"
    first, second = ({"l": method.representation(z)} for z in (x, y))
    rows = method.grid(first, second, ("pwcca",), {"l": [7, 3]}, {"l": [5]})
    assert [row["pwcca_weighs"] for row in rows] == ["first, of more directions", "first"]
    assert "pwcca_weighs" not in method.grid(first, second, ("cka",), {"l": [7]}, {"l": [5]})[0]


def test_distances_of_equal_representations_are_not_below_zero():
    x = normal(100, 5)
    for seed in range(60):
        assert similarity.pwcca(x @ invertible(5, seed=seed), x) >= 0
        assert similarity.procrustes(x @ torch.linalg.qr(invertible(5, seed=seed)).Q, x) >= 0


def test_the_debiased_index_of_fewer_than_four_inputs_is_refused():
    for n in (2, 3):
        with pytest.raises(ValueError, match=f"debiased CKA of {n} inputs does not exist; 4 are the fewest"):
            similarity.debiased_cka(normal(n, 4), normal(n, 3))
    assert similarity.debiased_cka(normal(4, 4), normal(4, 4)) == pytest.approx(1)


def test_pwcca_weights_are_those_of_the_variates():
    x, y = correlated(p=4, q=4)
    x, y = x - x.mean(0), y - y.mean(0)

    def root(m):
        values, vectors = torch.linalg.eigh(m)
        return vectors @ torch.diag(values**-0.5) @ vectors.T

    u, correlations, _ = torch.linalg.svd(root(x.T @ x) @ x.T @ y @ root(y.T @ y))
    variates = x @ root(x.T @ x) @ u  # (n, 4)
    weights = torch.stack([sum((variates[:, i] @ x[:, j]).abs() for j in range(4)) for i in range(4)])
    slow = 1 - (weights / weights.sum() * correlations).sum()
    assert similarity.pwcca(x, y) == pytest.approx(slow.item(), abs=1e-10)


def test_canonical_correlations_ignore_invertible_maps_of_either_side_and_null_directions():
    x, y = correlated()
    reference = similarity.canonical_correlations(x, y)
    assert reference.max() <= 1 + 1e-8 and len(reference) == 5
    mapped = similarity.canonical_correlations(x @ invertible(7), y @ invertible(5, seed=8))
    assert torch.allclose(mapped, reference, atol=1e-8)
    padded = similarity.canonical_correlations(torch.cat([x, x[:, :2], 0 * x], 1), y)
    assert torch.allclose(padded, reference, atol=1e-8)


def test_svcca_and_mean_cca_average_correlations():
    x, y = correlated()
    x, y = x - x.mean(0), y - y.mean(0)
    sides, cross = [similarity.Side(z.T @ z) for z in (x, y)], x.T @ y
    assert similarity.mean_correlation(*sides, cross) == pytest.approx(
        similarity.canonical_correlations(x, y).mean().item(), abs=1e-12
    )
    faint = torch.cat([x, 1e-3 * normal(200, 30, seed=9)], 1)  # noise that explains next to nothing
    side = similarity.Side(faint.T @ faint)
    assert side.leading(0.99) <= 7
    assert similarity.svcca(side, sides[1], faint.T @ y) == pytest.approx(
        similarity.svcca(sides[0], sides[1], cross), abs=1e-2
    )


def test_correlations_equal_those_of_orthonormal_bases():
    x, y = correlated(n=60, p=9, q=6)
    x[:, 5:] *= 1e-2  # beyond 99 % of the variance
    centred = [(z - z.mean(0)).numpy() for z in (x, y)]
    sides, cross = [similarity.Side(torch.from_numpy(z.T @ z)) for z in centred], torch.from_numpy(centred[0].T @ centred[1])
    bases = [np.linalg.qr(z)[0] for z in centred]
    slow = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).mean()
    assert similarity.mean_correlation(*sides, cross) == pytest.approx(slow, abs=1e-10)
    leading = []
    for z in centred:
        u, s, _ = np.linalg.svd(z, full_matrices=False)
        kept = next(k for k in range(1, len(s) + 1) if (s[:k] ** 2).sum() >= 0.99 * (s**2).sum())
        leading.append(u[:, :kept])
    assert leading[0].shape[1] < 9
    slow = np.linalg.svd(leading[0].T @ leading[1], compute_uv=False).mean()
    assert similarity.svcca(*sides, cross) == pytest.approx(slow, abs=1e-10)


def test_disagreement_counts_inputs_with_different_answers():
    first, second = normal(50, 4), normal(50, 4, seed=1)
    slow = (
        sum(
            max(range(4), key=lambda k: a[k]) != max(range(4), key=lambda k: b[k])
            for a, b in zip(first.tolist(), second.tolist(), strict=True)
        )
        / 50
    )
    assert similarity.disagreement(first, second) == slow and 0 < slow < 1


def test_the_bootstrap_is_the_deviation_over_resampled_images(trained, monkeypatch):
    monkeypatch.chdir(trained)
    paths, layer = ("models/a/model_1.pt", "models/a/model_2.pt"), "features.3"
    row = compare(
        cli.parse(
            SimilarityConfig,
            [
                *paths,
                "auto",
                "auto",
                layer,
                layer,
                "-n",
                "60",
                "--bootstrap",
                "4",
                "--measures",
                "cka",
                "procrustes",
                "--quiet",
                "-gpu",
                "-1",
            ],
        )
    ).rows[0]
    split = datasets.load("digits", "data", "test").spread(60)
    batching = Batching(batch_size=60, quiet=True)
    found = [passes.features(checkpoints.load(path).network, split, layer, batching) for path in paths]
    generator, draws = randomness.generator(0, "bootstrap"), []
    for _ in range(4):
        chosen = torch.randint(60, (60,), generator=generator)
        x, y = (one[chosen].double() for one in found)
        positions = [z.view(60, 6, -1).transpose(1, 2).flatten(0, 1) for z in (x, y)]
        draws.append((similarity.linear_cka(x, y), similarity.procrustes(*positions)))
    assert (row["cka_se"], row["procrustes_se"]) == pytest.approx(tuple(np.std(draws, 0, ddof=1)), rel=1e-6)


def test_rsa_and_neighbours_equal_a_loop_over_inputs(monkeypatch):
    from scipy.stats import spearmanr

    x, y = correlated(n=25)
    grams = [similarity.Grams([(z - z.mean(0)) @ (z - z.mean(0)).T]) for z in (x, y)]
    places = torch.triu_indices(25, 25, 1)
    expected = spearmanr(torch.cdist(x, x)[places[0], places[1]], torch.cdist(y, y)[places[0], places[1]]).statistic
    assert similarity.rsa_grid(*grams).item() == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr(similarity, "NEIGHBOURS", 3)
    overlaps = []
    for i in range(25):
        near = [set((z - z[i]).norm(dim=1).argsort()[1:4].tolist()) for z in (x, y)]
        overlaps.append(len(near[0] & near[1]) / len(near[0] | near[1]))
    assert similarity.knn_grid(*grams).item() == pytest.approx(np.mean(overlaps), abs=1e-12)


def activations(*shape, seed=0):
    """Correlated channels, float32, as a network would put them out."""
    values = normal(*shape, seed=seed)
    mixing = normal(shape[1], shape[1], seed=seed + 7) * torch.logspace(0, -1.5, shape[1], dtype=torch.float64)[:, None]
    mixed = torch.einsum("nc...,cd->nd...", values, mixing)
    return (mixed + 0.3).float()


def truncated(values, rank):
    """The best approximation of rank `rank` of the centred rows of (n, c, h, w), by a singular value decomposition."""
    rows = values.double().movedim(1, -1).reshape(-1, values.shape[1])
    mean = rows.mean(0)
    u, s, v = torch.linalg.svd(rows - mean, full_matrices=False)
    kept = (u[:, :rank] * s[:rank]) @ v[:rank] + mean
    return kept.view(len(values), *values.shape[2:], -1).movedim(-1, 1)


@pytest.mark.parametrize("second", [(40, 6, 4, 4), (40, 5, 2, 2)], ids=["same shape", "other shape"])
def test_all_ranks_from_one_decomposition_equal_truncating_each(second):
    a, b = activations(40, 6, 4, 4), activations(*second, seed=1)
    b = (b + 0.3 * a) if second == a.shape else b
    layers = {"a": method.representation(a)}, {"b": method.representation(b)}
    ranks = {"a": [6, 4, 2, 1]}, {"b": [5, 2, 1]}
    measures = ("cka", "cka_debiased", "pwcca", "procrustes", "mean_cca")
    rows = method.grid(*layers, measures, *ranks)
    assert [(row["rank1"], row["rank2"]) for row in rows] == [(r, s) for r in (6, 4, 2, 1) for s in (5, 2, 1)]
    for row in rows:
        x, y = truncated(a, row["rank1"]), truncated(b, row["rank2"])
        assert row["cka"] == pytest.approx(similarity.linear_cka(x.flatten(1), y.flatten(1)), abs=1e-8)
        assert row["cka_debiased"] == pytest.approx(similarity.debiased_cka(x.flatten(1), y.flatten(1)), abs=1e-8)
        if second == a.shape:
            x, y = [z.movedim(1, -1).flatten(0, 2) for z in (x, y)]
        else:
            x, y = x.mean((2, 3)), y.mean((2, 3))
        assert row["rows"] == ("positions" if second == a.shape else "images")
        assert row["procrustes"] == pytest.approx(similarity.procrustes(x, y), abs=1e-8)
        assert row["pwcca"] == pytest.approx(similarity.pwcca(x, y), abs=1e-7)
        assert row["mean_cca"] == pytest.approx(similarity.canonical_correlations(x, y).mean().item(), abs=1e-8)


def test_maps_tokens_and_vectors_are_compared_by_their_means_where_shapes_differ():
    maps, vectors = activations(60, 4, 3, 3), activations(60, 3, seed=2)
    tokens = activations(60, 5, 7, seed=1).transpose(1, 2)
    layers = {
        name: method.representation(values) for name, values in (("maps", maps), ("tokens", tokens), ("vectors", vectors))
    }
    widths = {"maps": [4], "tokens": [5], "vectors": [3]}
    rows = {(row["layer1"], row["layer2"]): row for row in method.grid(layers, layers, ("pwcca",), widths, widths)}
    assert {pair for pair, row in rows.items() if row["rows"] == "positions"} == {("maps", "maps"), ("tokens", "tokens")}
    assert rows["maps", "tokens"]["pwcca"] == pytest.approx(
        similarity.pwcca(maps.double().mean((2, 3)), tokens.double().mean(1)), abs=1e-8
    )
    assert rows["vectors", "vectors"]["pwcca"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("draws", [0, 19])
def test_batches_and_chunks_and_which_layers_are_multiplied_together_do_not_matter(monkeypatch, draws):
    """Of each network three layers of a shape and two of others, in no order."""
    shapes = {"a": (6, 4, 4), "b": (5, 3, 3), "c": (6, 4, 4), "d": (6,), "e": (6, 4, 4)}
    ranks = {name: [shape[0], 2] for name, shape in shapes.items()}

    def compared():
        layers = (
            {name: method.representation(activations(30, *shape, seed=place + 7 * side)) for place, (name, shape) in each}
            for side, each in enumerate((list(enumerate(shapes.items())), list(enumerate(reversed(shapes.items())))))
        )
        drawn = image_permutations.draw(30, draws, torch.Generator().manual_seed(0)) if draws else None
        return method.grid(*layers, ("cka", "pwcca", "procrustes"), ranks, ranks, drawn)

    whole = compared()
    monkeypatch.setattr(method, "CHUNK", 500)
    monkeypatch.setattr(method, "BLOCK", 7)
    monkeypatch.setattr(method, "MOMENTS", max(1, draws) * (2 * 6) ** 2)  # two layers and two others
    for one, other in zip(whole, compared(), strict=True):
        words = {name for name, value in one.items() if isinstance(value, str)}
        assert {name: one[name] for name in words} == {name: other[name] for name in words}
        for name in one.keys() - words:
            assert one[name] == pytest.approx(other[name], abs=1e-5 if "null" in name else 1e-10), name


def test_a_layer_is_centred_once_for_all_layers_that_it_is_compared_with(monkeypatch):
    """It took as long as comparing them."""
    first, second = (
        {str(layer): method.representation(activations(20, 4, 3, 3, seed=layer + begin)) for layer in range(5)}
        for begin in (0, 5)
    )
    centred, plain = [], method._by_channel
    monkeypatch.setattr(method, "_by_channel", lambda layers: centred.append(len(layers)) or plain(layers))
    widths = {name: [4] for name in first}
    assert len(method.grid(first, second, ("pwcca", "procrustes"), widths, widths)) == 25
    assert sum(centred) == 10


def read(done, folder):
    assert done.returncode == 0, done.stderr
    return json.loads((folder / done.stdout.strip().splitlines()[-1]).read_text())


def test_a_network_compared_with_itself_has_ones_on_the_diagonal(trained):
    done = script(
        "exec_similarity.py",
        "models/a/model_2.pt",
        "models/a/model_2.pt",
        "lenet",
        "auto",
        "features.*,classifier.1",
        "features.*,classifier.1",
        "-n",
        120,
        "--measures",
        "cka,cka_debiased,pwcca,procrustes",
        "rsa",
        "knn_jaccard",
        "disagreement",
        cwd=trained,
    )
    rows = read(done, trained)["rows"]
    layers = list(dict.fromkeys(row["layer1"] for row in rows))
    assert len(rows) == len(layers) ** 2 > 9 and all(row["n"] == 120 and row["disagreement"] == 0 for row in rows)
    for row in rows:
        assert row["rank1"] is None and row["data"] == "digits" and row["split"] == "test"
        if row["layer1"] == row["layer2"]:
            for name in ("cka", "cka_debiased", "rsa", "knn_jaccard"):
                assert row[name] == pytest.approx(1, abs=1e-9), name
            assert row["pwcca"] == pytest.approx(0, abs=1e-6) and row["procrustes"] == pytest.approx(0, abs=1e-6)
    assert len(list((trained / "results" / "similarity").glob("*.png"))) == 1


def test_single_layers_with_ranks_and_bootstrap(trained):
    done = script(
        "exec_similarity.py",
        "models/a/model_2.pt",
        "models/a/model_1.pt",
        "lenet",
        "lenet",
        "features.3",
        "features.3",
        "-m1r",
        6,
        2,
        99,
        "-m2r",
        6,
        2,
        "-n",
        100,
        "--bootstrap",
        5,
        "--null",
        19,
        cwd=trained,
    )
    rows = read(done, trained)["rows"]
    assert "-m1r 99: left out for layer features.3, which has 6 channels" in done.stderr
    assert [(row["rank1"], row["rank2"]) for row in rows] == [(6, 6), (6, 2), (2, 6), (2, 2)]
    assert all(0 < row[f"{name}_se"] < 0.2 for row in rows for name in ("cka", "pwcca", "procrustes"))
    assert rows[0]["cka"] > rows[1]["cka"]
    for row in rows:  # two epochs of one training
        assert row["cka_null_mean"] < row["cka_null_q95"] < row["cka"] and row["cka_p_null"] == row["cka_p_best"] == 0.05
        assert row["procrustes"] < row["procrustes_null_q95"] < row["procrustes_null_mean"]


@pytest.mark.parametrize(
    "words, status, fragments",
    [
        ((), 2, ("MODEL1_PATH and MODEL2_PATH are required",)),
        (("models/a/model_2.pt", "models/a/model_9.pt"), 1, ("no such checkpoint",)),
        (("models/a/model_2.pt", "models/a/model_1.pt", "resnet2"), 2, ("did you mean resnet20",)),
        (
            ("models/a/model_2.pt", "models/a/model_1.pt", "auto", "auto", "features.33"),
            1,
            ("LAYERS1 features.33", "features.3"),
        ),
        (
            ("models/a/model_2.pt", "models/a/model_1.pt", "auto", "auto", "features.3", "features.3", "-m1r", "7"),
            1,
            ("-m1r 7", "layer features.3 has only 6 channels"),
        ),
        (("models/a/model_2.pt", "models/a/model_1.pt", "--measures", "ckaa"), 2, ("--measures ckaa", "cka")),
        (("models/a/model_2.pt", "models/a/model_1.pt", "-n", "3"), 2, ("-n 3: 3 is below 4",)),
        (("models/a/model_2.pt", "models/a/model_1.pt", "--null", "5"), 2, ("--null 5", "19 are the least")),
    ],
)
def test_bad_input_of_similarity_is_one_sentence(trained, monkeypatch, words, status, fragments):
    monkeypatch.chdir(trained)
    with pytest.raises(UserError) as refused:
        script_.run(EXPERIMENTS, "similarity", cli.parse(SimilarityConfig, list(words)), ["exec_similarity.py", *words])
    message = str(refused.value)
    assert refused.value.status == status and all(fragment in message for fragment in fragments), message
    assert "\n" not in message
