"""Minimal perturbations: the closed form on linear networks, points that are wrong, never worse by another attack."""

import math

import pytest
import torch
from torch import nn

from lib import models
from lib.attacks.minimum_norm import ATTACKS, _Best, minimal_radii


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(classes: int, features: int, box: bool):
    torch.manual_seed(classes)
    linear = nn.Linear(features, classes)
    scale = 1 if not box else 1 / 20  # small weights around the middle: the box does not bind
    points = torch.rand(64, features, generator=generator(1)) * 0.2 + 0.4 if box else torch.randn(64, features) * 3
    with torch.no_grad():
        linear.weight *= scale
        linear.bias -= linear(points.mean(0, keepdim=True)).squeeze(0) * 1.0
    return linear, points, linear(points).argmax(1)


def closed_form(linear, points, labels):
    logits, weight = linear(points).double(), linear.weight.double()
    margins = logits.gather(1, labels[:, None]) - logits
    norms = (weight[labels][:, None] - weight[None]).norm(dim=2)
    return (margins / norms).masked_fill(norms == 0, torch.inf).min(1).values.detach()


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("classes, features", [(2, 100), (10, 784)])
def test_the_distance_to_the_boundaries_of_a_linear_network_is_the_closed_form(classes, features, box):
    linear, points, labels = problem(classes, features, box)
    linear, points = linear.double(), points.double()
    found = minimal_radii(linear, points, labels, box=box, generator=generator())
    ratio = found.distances.double() / closed_form(linear, points, labels)
    assert bool(found.succeeded.all()) and float(ratio.min()) > 1 - 1e-4
    assert float(ratio.mean()) <= 1.01 and (classes > 2 or float(ratio.max()) <= 1.01)
    assert bool((linear(found.points).argmax(1) != labels).all())
    assert torch.allclose((found.points - points).norm(dim=1), found.distances, rtol=1e-3)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    body = models.build("lenet", 5, 1, 16)
    with torch.no_grad():  # logits whose order depends on the image
        images = torch.rand(200, 1, 16, 16, generator=generator(3))
        body.classifier[-1].bias -= body.eval()(images).mean(0)
    return body.train()


@pytest.fixture(scope="module")
def images():
    return torch.rand(24, 1, 16, 16, generator=generator(2))


def answers(network, images):
    network.eval()
    labels = network(images).argmax(1)
    network.train()
    return labels


def test_points_of_a_convolutional_network_are_wrong_and_those_a_little_closer_are_right(network, images):
    labels = answers(network, images)
    found = minimal_radii(network, images, labels, generator=generator())
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    assert bool((found.points >= 0).all() and (found.points <= 1).all()) and found.points.grad_fn is None
    assert float(found.succeeded.double().mean()) > 0.9
    network.eval()
    chosen = found.succeeded
    assert bool((network(found.points[chosen]).argmax(1) != labels[chosen]).all())
    closer = images + (1 - 1e-3) * (found.points - images)
    assert bool((network(closer[chosen]).argmax(1) == labels[chosen]).all())
    network.train()
    assert set(found.won[chosen].tolist()) <= {1, 2}


def test_points_are_compared_by_where_the_way_to_them_crosses_the_boundary():
    """At angles of 30 and 10 degrees to the boundary's normal, the second seen from a fifth behind it."""
    linear = nn.Linear(2, 2).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        linear.bias.copy_(torch.tensor([0.0, -1.0]))  # the boundary is where the first coordinate is 1
    labels, best = (
        torch.zeros(1, dtype=torch.int64),
        _Best(linear, torch.zeros(1, 2).double(), torch.zeros(1, dtype=torch.int64)),
    )
    kept = []
    for angle, behind in ((30, 1.01), (10, 1.2), (11, 1.001)):
        way = torch.tensor([[1.0, math.tan(math.radians(angle))]], dtype=torch.float64)
        best.offer_crossing(linear, labels, behind * way, torch.tensor([True]), torch.tensor([0]))
        kept.append(best.distances.item())
    expected = [1 / math.cos(math.radians(angle)) for angle in (30, 10, 10)]
    assert kept == pytest.approx(expected, rel=1e-3) and min(a / b for a, b in zip(kept, expected, strict=True)) >= 1


def test_more_attacks_and_steps_never_increase_the_distance(network, images):
    labels = answers(network, images)
    distances = [
        torch.where(found.succeeded, found.distances, torch.inf)
        for found in (
            minimal_radii(network, images, labels, steps=20, polish=polish, generator=generator()) for polish in (0, 3, 10)
        )
    ]
    assert bool((distances[1] <= distances[0]).all())
    assert bool((distances[2] <= distances[1] * (1 + 1e-5)).all())  # each ends in a bisection of its own
    assert bool((distances[2] < distances[0]).any())


def test_an_image_that_is_wrong_has_distance_zero_and_no_attack(network, images):
    labels = (answers(network, images) + 1) % 5
    found = minimal_radii(network, images, labels, steps=2, polish=1, generator=generator())
    assert not found.distances.any() and bool(found.succeeded.all()) and not found.won.any()
    assert ATTACKS[0] == "none" and torch.equal(found.points, images)


def test_an_image_that_is_wrong_does_not_change_what_is_found_for_the_others(network, images):
    labels = answers(network, images)
    alone = minimal_radii(network, images[1:], labels[1:], steps=20, polish=4, generator=generator())
    wrong = labels.clone()
    wrong[0] = (wrong[0] + 1) % 5
    beside = minimal_radii(network, images, wrong, steps=20, polish=4, generator=generator())
    assert beside.distances[0] == 0 and torch.allclose(beside.distances[1:], alone.distances, rtol=1e-4)


def test_a_network_that_never_changes_its_answer_gives_a_bound_and_no_nan(images):
    constant = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
    nn.init.zeros_(constant[1].weight)
    with torch.no_grad():
        constant[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    found = minimal_radii(constant, images, torch.zeros(24, dtype=torch.int64), steps=5, polish=2, generator=generator())
    assert not found.succeeded.any() and bool(torch.isfinite(found.distances).all()) and float(found.distances.min()) > 1
    assert bool(torch.isfinite(found.points).all()) and not found.won.any()


def test_foolbox_finds_nothing_nearer_on_average(network, images):
    foolbox = pytest.importorskip("foolbox", reason="the optional second opinion is not installed")
    labels = answers(network, images)
    found = minimal_radii(network, images, labels, generator=generator())
    network.eval()
    attack = foolbox.attacks.DDNAttack(steps=100)
    _, points, success = attack(foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu"), images, labels, epsilons=None)
    network.train()
    theirs = (points - images).flatten(1).norm(dim=1)
    both = found.succeeded & success
    assert int(both.sum()) >= 20 and float(found.distances[both].mean()) <= float(theirs[both].mean()) * (1 + 1e-3)
