"""Nearest neighbours: exact by every engine, one table for every question, MNIST's known answers."""

import numpy as np
import pytest
import torch
from conftest import SHARED_DATA

from lib import datasets
from lib.core.errors import UserError
from lib.datasets.split import join
from lib.nearest_category import search
from lib.nearest_category.neighbors import Points, cached_table, table

CLASSES = 4


def images(n: int, seed: int, shape=(3, 5, 5)) -> torch.Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def features(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 30, generator=torch.Generator().manual_seed(seed)).relu() + 100


def labels(n: int) -> torch.Tensor:
    return torch.randint(0, CLASSES, (n,), generator=torch.Generator().manual_seed(9))


def brute_force(queries, training, of, same=False):
    """(squared (n, k), indices (n, k)): a float64 loop over queries and classes."""
    squared, indices = np.full((len(queries), CLASSES), np.inf), np.full((len(queries), CLASSES), -1)
    queries, training = (values.flatten(1).double().numpy() for values in (queries, training))
    for row, query in enumerate(queries):
        distances = ((training - query) ** 2).sum(1)
        if same:
            distances[row] = np.inf
        for label in range(CLASSES):
            members = np.flatnonzero(of.numpy() == label)
            best = members[distances[members].argmin()]
            squared[row, label], indices[row, label] = distances[best], best
    return squared, indices


@pytest.mark.parametrize("engine", ["auto", "faiss", "torch"])
@pytest.mark.parametrize("make", [images, features])
def test_every_engine_finds_what_brute_force_in_float64_finds(engine, make):
    queries, training, of = make(1000, 0), make(700, 1), labels(700)
    units = "pixels" if make is images else "features"
    found = table(Points("q", queries, units), Points("t", training, units), of, CLASSES, engine=engine)
    squared, indices = brute_force(queries, training, of)
    assert np.array_equal(found.indices.numpy(), indices)
    assert np.allclose(found.squared.numpy(), squared, rtol=1e-12)
    assert found.squared.dtype == (torch.int64 if make is images else torch.float64)
    assert make is features or np.array_equal(found.squared.numpy(), squared)


@pytest.mark.parametrize("engine", ["faiss", "torch"])
def test_distances_too_close_for_float32_are_told_apart_in_float64(engine):
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    training = 1000 + torch.linspace(0, 1e-6, 60, dtype=torch.float64)[order, None].expand(60, 50).clone()
    training[::2] -= 2000  # far from the centre, so that float32 sees one value only
    query, of = torch.full((1, 50), 1000, dtype=torch.float64), torch.zeros(60, dtype=torch.int64)
    found = table(Points("q", query, "f"), Points("t", training, "f"), of, 1, engine=engine)
    assert found.indices[0, 0] == int(((training - 1000) ** 2).sum(1).argmin())


@pytest.mark.parametrize("engine", ["faiss", "torch"])
def test_ties_go_to_the_smallest_position(engine):
    training = images(40, 2).repeat(30, 1, 1, 1)
    of = torch.arange(40).repeat(30) % CLASSES
    found = table(Points("q", training[:40]), Points("t", training), of, CLASSES, engine=engine)
    nearest = found.nearest()
    assert torch.equal(nearest.indices, torch.arange(40)) and not nearest.squared.any()
    own = table(Points("t", training), Points("t", training), of, CLASSES, same=True, engine=engine).nearest()
    assert torch.equal(own.indices, torch.where(torch.arange(1200) < 40, torch.arange(1200) + 40, torch.arange(1200) % 40))


@pytest.mark.parametrize("engine", ["faiss", "torch"])
def test_a_stored_point_is_its_own_neighbour_unless_it_is_left_out(engine):
    training, of = images(300, 3), labels(300)
    points = Points("t", training)
    nearest = table(points, points, of, CLASSES, engine=engine).nearest()
    assert torch.equal(nearest.indices, torch.arange(300)) and torch.equal(nearest.labels, of)
    without = table(points, points, of, CLASSES, same=True, engine=engine)
    squared, indices = brute_force(training, training, of, same=True)
    assert np.array_equal(without.indices.numpy(), indices) and np.array_equal(without.squared.numpy(), squared)


def test_a_translation_changes_no_neighbour():
    queries, training, of = images(200, 4) // 2, images(300, 5) // 2, labels(300)
    found = table(Points("q", queries), Points("t", training), of, CLASSES)
    moved = table(Points("q", queries + 100), Points("t", training + 100), of, CLASSES)
    assert torch.equal(found.indices, moved.indices) and torch.equal(found.squared, moved.squared)


def test_a_class_left_out_of_the_table_is_a_search_without_it():
    queries, training, of = images(200, 6), images(500, 7), labels(500)
    found = table(Points("q", queries), Points("t", training), of, CLASSES)
    for left_out in range(CLASSES):
        kept = (of != left_out).nonzero().squeeze(1)
        direct = ((queries.flatten(1)[:, None].int() - training[kept].flatten(1)[None].int()) ** 2).sum(2)
        nearest = found.nearest(without=left_out)
        assert torch.equal(nearest.indices, kept[direct.argmin(1)]) and torch.equal(nearest.squared, direct.min(1).values)
        assert torch.equal(nearest.labels, of[nearest.indices])


def test_the_other_class_is_never_the_own_one():
    training, of = images(200, 8), labels(200)
    other = table(Points("t", training), Points("t", training), of, CLASSES, same=True).other(of)
    assert bool((other.labels != of).all())
    distances = ((training.flatten(1)[:, None].int() - training.flatten(1)[None].int()) ** 2).sum(2)
    distances[of[:, None] == of[None]] = 2**30
    assert torch.equal(other.indices, distances.argmin(1))


def test_the_margin_is_zero_for_a_tie_between_classes():
    training = torch.tensor([[0, 10], [0, 20], [0, 80]], dtype=torch.uint8)
    queries = torch.tensor([[0, 15], [0, 10], [0, 50]], dtype=torch.uint8)
    found = table(Points("q", queries), Points("t", training), torch.tensor([1, 0, 1]), 2)
    assert found.margin().tolist() == [0, 1, 0] and found.nearest().labels.tolist() == [1, 1, 0]


def test_large_images_do_not_overflow():
    training = torch.zeros(3, 3, 130, 130, dtype=torch.uint8)
    training[1], training[2] = 255, 254
    found = table(Points("q", 255 - training), Points("t", training), torch.arange(3), 3)
    assert found.squared[0].tolist() == [255**2 * 50700, 0, 50700]
    assert found.nearest().indices.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "queries, units, message",
    [
        (images(4, 0, (1, 5, 5)), "p", "q has shape 1 x 5 x 5 and t 3 x 5 x 5"),
        (images(4, 0), "features of b", "q is in features of b"),
        (images(4, 0).float(), "p", "torch.float32"),
        (images(0, 0), "p", "q is empty"),
    ],
)
def test_points_of_other_shapes_or_units_are_refused(queries, units, message):
    with pytest.raises(UserError, match=message):
        table(Points("q", queries, units), Points("t", images(9, 1), "p"), labels(9), CLASSES)


def test_a_query_that_is_the_only_training_example_has_no_neighbour():
    points = Points("t", images(1, 0))
    with pytest.raises(UserError, match="no other training example"):
        table(points, points, torch.zeros(1, dtype=torch.int64), 2, same=True).nearest()


def test_the_table_is_computed_once_per_pair_of_sets(tmp_path, monkeypatch):
    queries, training, of = Points("q", images(50, 0)), Points("t", images(60, 1)), labels(60)
    first = cached_table(tmp_path, queries, training, of, CLASSES)
    monkeypatch.setattr(search, "searcher", None)
    monkeypatch.setattr("lib.nearest_category.neighbors.searcher", None)
    again = cached_table(tmp_path, Points("other name", queries.values.clone()), training, of, CLASSES)
    assert torch.equal(first.squared, again.squared) and torch.equal(first.indices, again.indices)
    for file in (tmp_path / "neighbors").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    monkeypatch.undo()
    whole = cached_table(tmp_path, queries, training, of, CLASSES)
    assert torch.equal(first.indices, whole.indices)
    assert len(list((tmp_path / "neighbors").iterdir())) == 1
    cached_table(tmp_path, queries, training, of.flip(0), CLASSES)
    assert len(list((tmp_path / "neighbors").iterdir())) == 2


needs_mnist = pytest.mark.skipif(not (SHARED_DATA / "MNIST").is_dir(), reason="no SHARED_DATA")

# the nearest-category page, section 8, check 7: n, mean distance, shares of the nearest labels, sum p^2, 1-NN accuracy
KNOWN = {
    0: (6903, 7.065, {6: 0.355, 5: 0.234, 9: 0.154, 2: 0.098}, 0.223, 0.9682),
    1: (7877, 4.326, {7: 0.577, 8: 0.197, 4: 0.070, 6: 0.055}, 0.383, 0.9692),
    2: (6990, 6.933, {3: 0.290, 7: 0.207, 1: 0.161, 0: 0.135}, 0.186, 0.9711),
    3: (7141, 6.290, {5: 0.511, 8: 0.246, 9: 0.105, 2: 0.074}, 0.339, 0.9734),
    4: (6824, 5.720, {9: 0.841, 7: 0.067, 1: 0.038, 6: 0.023}, 0.713, 0.9723),
    5: (6313, 6.290, {3: 0.418, 8: 0.239, 6: 0.131, 9: 0.111}, 0.264, 0.9728),
    6: (6876, 6.450, {0: 0.424, 5: 0.246, 4: 0.228, 1: 0.036}, 0.295, 0.9685),
    7: (7293, 5.514, {9: 0.684, 3: 0.094, 4: 0.077, 2: 0.064}, 0.491, 0.9729),
    8: (6825, 6.296, {3: 0.340, 5: 0.232, 2: 0.133, 9: 0.129}, 0.210, 0.9734),
    9: (6958, 5.154, {4: 0.526, 7: 0.395, 3: 0.021, 8: 0.018}, 0.434, 0.9745),
}


@pytest.fixture(scope="module")
def mnist():
    training, test = datasets.load("mnist", SHARED_DATA, "train"), datasets.load("mnist", SHARED_DATA, "test")
    points = Points("train", training.images)
    return (
        training,
        test,
        table(Points("test", test.images), points, training.labels, 10),
        table(points, points, training.labels, 10, same=True),
    )


@needs_mnist
@pytest.mark.slow
def test_mnist_has_its_known_neighbours(mnist):
    training, test, of_test, of_training = mnist
    for digit, (count, mean, shares, concentration, accuracy) in KNOWN.items():
        parts = [found.nearest(without=digit) for found in (of_training, of_test)]
        unseen = [split.labels == digit for split in (training, test)]
        squared = torch.cat([part.squared[chosen] for part, chosen in zip(parts, unseen, strict=True)])
        nearest = torch.cat([part.labels[chosen] for part, chosen in zip(parts, unseen, strict=True)])
        share = nearest.bincount(minlength=10) / count
        assert len(nearest) == count and squared.double().sqrt().mean() / 255 == pytest.approx(mean, abs=5e-4)
        assert share.topk(4).indices.tolist() == list(shares)
        assert share.topk(4).values.tolist() == pytest.approx(list(shares.values()), abs=5e-4)
        assert float(share.square().sum()) == pytest.approx(concentration, abs=5e-4)
        correct = (parts[1].labels == test.labels)[~unseen[1]].double().mean()
        assert float(correct) == pytest.approx(accuracy, abs=5e-5)
        if digit == 9:
            assert int(squared.sum()) == 12_300_856_494
    assert int((of_test.nearest().labels != test.labels).sum()) == 309
    other = of_training.other(training.labels).squared.double().sqrt() / 255
    assert float(other.min()) == pytest.approx(2.3987, abs=5e-5) and float(other.mean()) == pytest.approx(5.976, abs=5e-4)
    assert float(of_training.margin().min()) > 0  # no tie between labels, for any unseen digit


@needs_mnist
def test_mnist_without_nine_has_its_known_sum_of_squares():
    training = datasets.load("mnist-wo9", SHARED_DATA, "train")
    unseen = datasets.load("mnist-wo9:ood", SHARED_DATA)
    assert (len(training), len(unseen), len(join(training, unseen))) == (54051, 6958, 61009)
    found = table(Points("nines", unseen.images), Points("train", training.images), training.labels, 9)
    assert int(found.nearest().squared.sum()) == 12_300_856_494
