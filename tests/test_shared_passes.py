"""Shared passes: the numbers are those of passes alone, an image is passed once, and a failure is that of one function."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from lib.core.errors import Interrupted, UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting, image_axis
from lib.models.normalized import Normalized
from lib.representations import passes, shared_passes
from lib.training import loop

QUIET = Batching(batch_size=16, quiet=True)


def network(seed: int = 0) -> Normalized:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return Normalized(body, (0.5,), (0.5,)).eval()


def split(n: int = 50, name: str = "drawn", seed: int = 0) -> Split:
    images = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Split(name, "test", images, torch.arange(n) % 3, classes=("a", "b", "c"))


def features(layer: str, images: Split, seed: int = 0):
    return lambda: passes.features(network(seed), images, layer, QUIET)


def logits(images: Split, seed: int = 0):
    return lambda: loop.predict(network(seed), images, QUIET)


def test_functions_get_what_they_would_get_alone_from_one_pass_for_all():
    functions = {"conv": features("0", split()), "pool": features("2", split()), "logits": logits(split())}
    outcomes, shared = shared_passes.run(functions)
    for name, function in functions.items():
        assert outcomes[name].error is None
        assert torch.equal(outcomes[name].value, function())
    assert (shared.images, shared.asked_images, shared.forwards, shared.asked_forwards) == (50, 150, 50, 150)


def test_a_pass_ends_behind_the_deepest_layer_that_somebody_wants():
    ran = []

    def watched(layer):
        def run():
            made = network()
            made.body[4].register_forward_hook(lambda *_: image_axis.measuring() or ran.append(1))
            return passes.features(made, split(), layer, QUIET)

        return run

    shared_passes.run({"conv": watched("0"), "pool": watched("2")})
    assert not ran
    shared_passes.run({"conv": watched("0"), "linear": watched("4")})
    assert ran


def test_some_of_the_images_are_taken_from_the_pass_over_all():
    few = split().subset(torch.arange(1, 50, 7))
    functions = {"all": features("2", split()), "few": features("2", few), "logits of few": logits(few)}
    outcomes, shared = shared_passes.run(functions)
    assert shared.images == 50 and shared.forwards == 50
    for name, function in functions.items():
        torch.testing.assert_close(outcomes[name].value, function(), rtol=1e-6, atol=1e-6)


def test_batches_are_no_larger_than_anybody_asks_for():
    def sizes(batching):
        return lambda: [len(images) for images, _ in batching.over(split(), "sizes")]

    outcomes, _ = shared_passes.run({"large": sizes(Batching(batch_size=32, quiet=True)), "small": sizes(QUIET)})
    assert outcomes["large"].value == outcomes["small"].value == [16, 16, 16, 2]


def test_what_depends_on_which_images_are_together_has_batches_of_its_own_size():
    """As the ratio of stitches that is a mean over batches, and principal directions of every batch."""

    def sizes(batching):
        return lambda: [len(images) for images, _ in batching.over(split(), "sizes")]

    own = Batching(batch_size=32, quiet=True, own=True)
    outcomes, _ = shared_passes.run({"own": sizes(own), "small": sizes(QUIET)})
    assert outcomes["own"].value == [32, 18] and outcomes["small"].value == [16, 16, 16, 2]


def test_other_images_of_the_same_name_are_not_taken_for_these():
    functions = {"one": features("2", split()), "other": features("2", split(seed=1))}
    outcomes, shared = shared_passes.run(functions)
    assert shared.images == shared.asked_images == 100
    assert all(torch.equal(outcomes[name].value, function()) for name, function in functions.items())


def test_networks_of_other_weights_have_forward_passes_of_their_own():
    functions = {"one": features("2", split()), "other": features("2", split(), seed=1)}
    outcomes, shared = shared_passes.run(functions)
    assert (shared.images, shared.forwards) == (50, 100)
    assert all(torch.equal(outcomes[name].value, function()) for name, function in functions.items())


def test_weights_that_change_between_passes_are_seen():
    def changing():
        made = network()
        before = passes.features(made, split(), "2", QUIET)
        with torch.no_grad():
            made.body[0].weight.mul_(2)
        return before, passes.features(made, split(), "2", QUIET)

    outcomes, _ = shared_passes.run({"steady": lambda: [features("2", split())() for _ in range(2)], "changing": changing})
    expected = changing()
    assert all(torch.equal(one, other) for one, other in zip(outcomes["changing"].value, expected, strict=True))
    assert all(torch.equal(one, expected[0]) for one in outcomes["steady"].value)


def test_an_order_of_ones_own_is_kept():
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))

    def shuffled():
        return torch.cat([positions for _, _, positions in QUIET.with_positions(split(), "shuffled", order=order)])

    outcomes, _ = shared_passes.run({"shuffled": shuffled, "straight": features("2", split())})
    assert torch.equal(outcomes["shuffled"].value, order)


def test_gradients_are_those_of_ones_own_network():
    def gradient():
        made = network()
        for images, _ in QUIET.over(split(), "with gradients"):
            cutting.outputs(made, images).sum().backward()
        return made.body[0].weight.grad

    outcomes, shared = shared_passes.run({"gradient": gradient, "features": features("2", split())})
    assert torch.equal(outcomes["gradient"].value, gradient()) and shared.forwards == 50


def test_a_pass_that_is_left_early_is_left_by_one_alone():
    def first():
        return next(iter(QUIET.over(split(), "the first batch")))[0]

    outcomes, _ = shared_passes.run({"first": first, "features": features("2", split())})
    assert len(outcomes["first"].value) == 16 and len(outcomes["features"].value) == 50


def test_functions_do_not_draw_from_one_anothers_generators():
    def draws():
        torch.manual_seed(3)
        drawn = []
        for _ in QUIET.over(split(), "between batches"):
            drawn.append(torch.rand(1).item())
        return drawn

    outcomes, _ = shared_passes.run({"one": draws, "two": draws})
    assert outcomes["one"].value == outcomes["two"].value == draws()


@pytest.mark.parametrize(
    "broken, sentence",
    [
        (features("9", split()), "no such layer"),
        (lambda: passes.represent(network(), split(), ["0"], QUIET, _fails).__next__(), "this reducer fails"),
    ],
    ids=["before the pass", "inside the pass"],
)
def test_a_failure_is_that_of_one_function(broken, sentence):
    outcomes, _ = shared_passes.run({"broken": broken, "whole": features("2", split())})
    assert sentence in str(outcomes["broken"].error)
    assert torch.equal(outcomes["whole"].value, features("2", split())())


def _fails(output):
    raise UserError("this reducer fails")


def test_an_interruption_leaves_every_function_by_way_of_its_own_end(monkeypatch):
    left = []

    def waits(name):
        def run():
            try:
                features("2", split())()
            finally:
                left.append(name)

        return run

    def interrupts():
        for _ in QUIET.over(split(), "interrupted"):
            raise KeyboardInterrupt

    outcomes, _ = shared_passes.run({"one": waits("one"), "stops": interrupts, "two": waits("two")})
    assert isinstance(outcomes["stops"].error, KeyboardInterrupt) and sorted(left) == ["one", "two"]
    left.clear()

    def signalled(*_):
        raise Interrupted("stopped by SIGTERM")

    # where the main thread is when a signal comes
    monkeypatch.setattr(shared_passes._Scheduler, "_forward", signalled)
    with pytest.raises(Interrupted):
        shared_passes.run({"one": waits("one"), "two": waits("two")})
    assert sorted(left) == ["one", "two"]


def test_an_interruption_during_a_shared_forward_pass_is_no_failure_of_a_function(monkeypatch):
    def interrupted(network, images):
        raise Interrupted("stopped by SIGTERM")

    monkeypatch.setattr(cutting, "run_alone", interrupted)
    with pytest.raises(Interrupted):
        shared_passes.run({"conv": features("0", split()), "logits": logits(split())})


def test_an_interruption_while_a_function_works_leaves_none_waiting():
    left = []

    def works():
        os.kill(os.getpid(), signal.SIGINT)  # the main thread waits for this one meanwhile
        time.sleep(0.2)
        try:
            features("2", split())()
        finally:
            left.append("works")

    with pytest.raises(KeyboardInterrupt):
        shared_passes.run({"works": works, "not begun": lambda: left.append("begun")})
    assert left == ["works"]


def test_a_function_is_told_its_seconds():
    outcomes, _ = shared_passes.run({"conv": features("0", split()), "told": shared_passes.seconds})
    assert all(outcome.seconds >= 0 for outcome in outcomes.values()) and shared_passes.seconds() == 0
    assert np.isfinite(outcomes["told"].value)
