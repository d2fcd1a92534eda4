"""Detectors of outliers at every layer: each beside a slow and obvious way, and beside a library's on the last features."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import script
from sklearn.covariance import ledoit_wolf
from torch import nn

from lib.core.errors import UserError
from lib.ood import comparison, feature_detectors, layer_choice, layer_detectors, standardize
from lib.ood.flags import DETECTORS

NAMES = tuple(DETECTORS)


def drawn(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + torch.arange(d) / d


def classes(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def known() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (200, 6) of three classes with their labels, a tenth of them unknown, and features (40, 6) to score."""
    labels = classes(200)
    features = drawn(200, 6, 1) + 2 * torch.nn.functional.one_hot(labels, 6)
    labels[::10] = -1
    return features, labels, drawn(40, 6, 2) * 3


def test_knn_is_the_fiftieth_of_all_distances_on_the_sphere(known):
    features, _, tested = known
    found = feature_detectors.knn(features)(tested)
    for score, point in zip(found.tolist(), tested.numpy(), strict=True):
        distances = [np.linalg.norm(point / np.linalg.norm(point) - one / np.linalg.norm(one)) for one in features.numpy()]
        assert score == pytest.approx(sorted(distances)[49], abs=1e-5)


def slow_means(features: torch.Tensor, labels: torch.Tensor) -> tuple[list[np.ndarray], np.ndarray]:
    """The class means, and the labelled features less theirs."""
    points, of = features.double().numpy(), labels.numpy()
    means = [points[of == label].mean(0) for label in range(3)]
    return means, np.stack([point - means[label] for point, label in zip(points, of, strict=True) if label >= 0])


@pytest.mark.parametrize("relative", [False, True])
def test_mahalanobis_is_the_form_with_the_shrunk_covariance(known, relative):
    features, labels, tested = known
    means, centred = slow_means(features, labels)
    inverse = np.linalg.inv(ledoit_wolf(centred, assume_centered=True)[0])
    everything = features.double().numpy()[labels.numpy() >= 0]
    middle = everything.mean(0)
    background = np.linalg.inv(ledoit_wolf(everything - middle, assume_centered=True)[0])
    fit = feature_detectors.relative_mahalanobis if relative else feature_detectors.mahalanobis
    found = fit(features, labels, "x")(tested)
    for score, point in zip(found.tolist(), tested.double().numpy(), strict=True):
        expected = min((point - mean) @ inverse @ (point - mean) for mean in means)
        expected -= (point - middle) @ background @ (point - middle) if relative else 0
        assert score == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_prototype_is_minus_the_largest_cosine_with_a_class_mean(known):
    features, labels, tested = known
    means, _ = slow_means(features, labels)
    found = feature_detectors.prototype(features, labels, "x")(tested)
    for score, point in zip(found.tolist(), tested.double().numpy(), strict=True):
        cosines = [point @ mean / np.linalg.norm(point) / np.linalg.norm(mean) for mean in means]
        assert score == pytest.approx(-max(cosines), rel=1e-9) and -1 <= score <= 1


@pytest.mark.parametrize("form", [(4, 3, 5, 2), (4, 7, 3), (4, 3)])
@pytest.mark.parametrize("size", [1.0, 1e6])
def test_gram_sums_are_the_row_sums_of_gram_matrices(form, size):
    output = torch.randn(form, generator=torch.Generator().manual_seed(0)) * size
    found = layer_detectors.gram_sums(output)
    maps = output.double().reshape(4, 3, -1) if output.ndim != 3 else output.double().transpose(1, 2)
    for image in range(4):
        for place, power in enumerate(range(1, 11)):
            raised = maps[image] ** power
            sums = (raised @ raised.T).sum(1)
            expected = sums.sign() * sums.abs() ** (1 / power)
            assert torch.allclose(found[image, place].double(), expected, rtol=1e-5)


def test_gram_counts_how_far_sums_leave_the_range_of_the_predicted_class():
    sums, predicted = drawn(60, 8, 3).reshape(60, 2, 4), classes(60)
    tested, as_class = 2 * drawn(30, 8, 4).reshape(30, 2, 4), torch.cat([classes(20, 1), torch.full((10,), 5)])
    found = layer_detectors.gram(sums, predicted)(tested, as_class)
    for image in range(30):
        total, label = 0.0, int(as_class[image])
        for power in range(2):
            for channel in range(4):
                values = sums[predicted == label] if label < 3 else sums  # nothing was predicted as class 5
                low, high = values[:, power, channel].min().item(), values[:, power, channel].max().item()
                value = tested[image, power, channel].item()
                total += max(low - value, 0) / abs(low + 1e-6) + max(value - high, 0) / abs(high + 1e-6)
        assert found[image].item() == pytest.approx(total, rel=1e-4)
    assert (layer_detectors.gram(sums, predicted)(sums, predicted) == 0).all()


def test_features_are_means_over_positions_and_no_views():
    for form, expected in (((2, 3, 4, 5), (2, 3)), ((2, 7, 3), (2, 3)), ((2, 3), (2, 3))):
        output = torch.randn(form)
        pooled = layer_detectors.features(output).pooled
        wanted = output.mean((2, 3)) if output.ndim == 4 else output.mean(1) if output.ndim == 3 else output.clone()
        output.zero_()
        assert pooled.shape == expected and torch.equal(pooled, wanted)


# --- beside a library, where it is installed


@pytest.fixture
def library(known):
    """pytorch-ood, labelled features of the penultimate layer, and features to score."""
    detector = pytest.importorskip("pytorch_ood.detector", reason="the optional second opinion is not installed")
    features, labels, tested = known
    return detector, features[labels >= 0], labels[labels >= 0], tested


def test_knn_agrees_with_pytorch_ood(library):
    detector, features, labels, tested = library
    theirs = detector.KNN(None, k=50).fit_features(features, labels).predict_features(tested)
    assert torch.allclose(feature_detectors.knn(features)(tested), theirs.double(), atol=1e-5)


@pytest.mark.parametrize("name, factor", [("Mahalanobis", 2), ("RMD", 1)])
def test_mahalanobis_agrees_with_pytorch_ood_which_shrinks_nothing(library, monkeypatch, name, factor):
    detector, features, labels, tested = library
    monkeypatch.setattr(standardize, "shrunk_precision", lambda centred, flag: np.linalg.inv(centred.T @ centred))
    theirs = getattr(detector, name)(None).fit_features(features, labels).predict_features(tested)
    fit = {"Mahalanobis": feature_detectors.mahalanobis, "RMD": feature_detectors.relative_mahalanobis}[name]
    assert torch.allclose(fit(features, labels, "x")(tested), factor * theirs.double(), atol=1e-4)


def test_gram_agrees_with_pytorch_ood(library):
    detector, features, labels, tested = library
    maps, others = (part.reshape(-1, 3, 1, 2).relu() for part in (features, tested))
    head = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    theirs = detector.Gram(head, [nn.Identity()], 3, num_poles_list=list(layer_detectors.POWERS))
    theirs.validation_fraction = 0  # nothing is held out, so that the ranges are those of all images
    theirs.fit([(maps, labels)])
    predicted = head(others).argmax(1)
    ours = layer_detectors.gram(layer_detectors.gram_sums(maps), labels)(layer_detectors.gram_sums(others), predicted)
    scores = theirs.predict(others).double()
    assert torch.allclose(ours / ours.sum(), scores / scores.sum(), rtol=1e-3, atol=1e-6)


# --- through the command line


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    place = tmp_path_factory.mktemp("detectors")
    shutil.copytree(trained / "models", place / "models")
    words = (
        "-d",
        "digits",
        "-ood",
        "patches",
        "digits-c/fog-5",
        "--max-examples",
        "200",
        "--fit-examples",
        "300",
        "-gpu",
        "-1",
    )
    asked = ("--layer-detectors", "all", "--baselines", "knn,mahalanobis", "--choose", "entropy,mixture", "-T", "1", "2")
    for name, more in (("with", asked), ("without", ())):
        layers = ("-l", "features.?", "classifier.?")
        done = script("exec_ood_layers.py", "models/a/model_2.pt", *words, *layers, *more, "--name", name, cwd=place)
        assert done.returncode == 0, done.stderr
    return place


def rows(folder, name: str) -> list[dict]:
    return json.loads((folder / f"results/ood_layers/{name}.json").read_text())["rows"]


def test_every_layer_has_a_row_of_every_detector_with_its_interval(folder):
    found = rows(folder, "with")
    layers = [row["layer"] for row in found if row["score"] == "energy" and row["T"] == 1 and row["ood"] == "patches"]
    for ood in ("patches", "digits-c"):
        for name in NAMES:
            mine = [row for row in found if row["score"] == f"layer {name}" and row["ood"] == ood]
            assert [row["layer"] for row in mine] == layers and {row["T"] for row in mine} == {None}
            assert all(row["ci_low"] <= row["auroc"] <= row["ci_high"] and row["needs"] == DETECTORS[name] for row in mine)
            assert all(0 <= row["p_holm"] <= 1 and row["index"] is not None for row in mine)
    best = {name: max(row["auroc"] for row in found if row["score"] == f"layer {name}") for name in NAMES}
    assert all(value > 0.8 for value in best.values()), best


def test_detectors_change_no_energy_and_agree_with_the_last_layers_scores(folder):
    with_, without = rows(folder, "with"), rows(folder, "without")
    energies = [row for row in with_ if row["score"] == "energy" and row["T"] == 1]
    assert [row["auroc"] for row in energies] == [row["auroc"] for row in without if row["score"] == "energy"]
    for name in ("knn", "mahalanobis"):  # what the last layer sees is what the layer before it puts out
        for ood in ("patches", "digits-c"):
            (last,) = [row for row in with_ if row["score"] == name and row["ood"] == ood]
            (own,) = [
                row
                for row in with_
                if row["score"] == f"layer {name}" and row["ood"] == ood and row["layer"] == "classifier.4"
            ]
            assert own["auroc"] == pytest.approx(last["auroc"], abs=1e-6)


def test_scores_are_kept_by_image_and_give_the_rows(folder):
    arrays = np.load(folder / "results/ood_layers/with.npz")
    for name in NAMES:
        layers = list(arrays[f"layer {name}"])
        inside, outside = arrays[f"layer {name}_id"], arrays[f"layer {name}_patches"]
        measured = comparison.compare(inside, outside, 0)["auroc"]
        for row in rows(folder, "with"):
            if row["score"] == f"layer {name}" and row["ood"] == "patches":
                assert row["auroc"] == pytest.approx(measured[layers.index(row["layer"])])


@pytest.mark.parametrize(
    "words, status, told",
    [
        (("--layer-detectors", "nearest"), 2, "no such choice"),
        (("--layer-detectors", "knn", "--fit-examples", "20"), 1, "50th neighbour"),
    ],
)
def test_a_mistake_is_one_sentence(folder, words, status, told):
    given = ("-d", "digits", "-ood", "patches", "--max-examples", "60", "-gpu", "-1")
    done = script("exec_ood_layers.py", "models/a/model_2.pt", *given, *words, cwd=folder)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == status and told in last and "Traceback" not in done.stderr, done.stderr


def test_images_without_labels_are_refused_by_what_needs_them():
    labels = torch.full((60,), -1)
    features = {"a": layer_detectors.features(drawn(60, 4, 0))}
    with pytest.raises(UserError, match="--layer-detectors prototype: the fitting images have 0 classes"):
        layer_detectors.fit(("prototype",), features, labels, classes(60))


def test_a_layer_where_a_detector_cannot_be_fitted_is_left_out_with_a_warning():
    features = {"dead": layer_detectors.features(torch.zeros(60, 4)), "alive": layer_detectors.features(drawn(60, 4, 0))}
    with pytest.warns(UserWarning, match=r"without an inverse.*\(dead\); left out"):
        found = layer_detectors.fit(("mahalanobis", "knn"), features, classes(60), classes(60))
    assert list(found["mahalanobis"]) == ["alive"] and list(found["knn"]) == ["dead", "alive"]


# --- the choice by entropy


def test_entropy_chooses_the_layer_that_is_spread_most_evenly_whatever_its_units():
    draw = np.random.default_rng(0)
    fitted = np.stack([draw.standard_t(2, 400), draw.uniform(0, 1, 400), draw.normal(size=400), np.full(400, 3.0)], 1)
    assert layer_choice.by_entropy(fitted) == 1
    assert layer_choice.by_entropy(fitted * np.array([1e3, 1e-4, 5, 1]) + 7) == 1
    assert layer_choice.by_entropy(fitted[:, [2, 0, 3]]) == 0
    counts = np.histogram(fitted[:, 1], 20)[0] / 400
    assert -(counts[counts > 0] * np.log(counts[counts > 0])).sum() == pytest.approx(math.log(20), abs=0.05)


def test_the_layer_chosen_by_entropy_has_its_row_and_its_regret(folder):
    found = [row for row in rows(folder, "with") if row["score"] == "two-sided, chosen by entropy"]
    assert len(found) == 4 and len({(row["layer"], row["T"]) for row in found}) <= 2  # no outlier had a say
    assert all(row["regret"] >= 0 and row["needs"] == "ID images" for row in found)
