"""Training with the energies of inner layers: the loss by hand, its two traps, and the scripts around it."""

import math
import signal

import numpy as np
import pytest
import torch
from conftest import script, stopped_script
from torch import nn

from lib import datasets, models
from lib.core.errors import UserError
from lib.core.randomness import generator
from lib.core.registry import resolve
from lib.datasets.batching import Batching
from lib.experiments.config.train import TrainConfig
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.ood.layer_energies import energy
from lib.training import energy_loss, loop
from lib.training.flags import LOSSES
from lib.training.losses import cross_entropy


def config(**changes) -> TrainConfig:
    values = {
        "model_type": "lenet",
        "dataset": "digits",
        "directory": "x",
        "loss": "energy_layers",
        "outliers": "patches",
        "augmentation": "none",
    } | changes
    return TrainConfig.stated(values)


def network() -> Normalized:
    """Convolution, normalisation and dropout, small."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 6, 3, 2),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(392, 10),
    )
    return Normalized(body, (0.3,), (0.3,))


def trained(loss, steps: int = 4) -> nn.Module:
    """The small network after some steps of SGD on digits."""
    found = network()
    split = datasets.load("digits", "data", "train").subset(torch.arange(32 * steps))
    recipe = loop.Recipe(loss=loss, learning_rate=lambda time: 0.05, seed=0, batching=Batching(batch_size=32, quiet=True))
    optimizer = torch.optim.SGD(found.parameters(), lr=0.05, momentum=0.9)
    assert loop.train_epoch(found, split, optimizer, recipe, loop.Position(), loop.Stopping())
    return found


def largest_difference(first: nn.Module, second: nn.Module) -> float:
    return max(
        (a.double() - b.double()).abs().max().item()
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def loss(**changes):
    return resolve(LOSSES["energy_layers"])(config(**changes))


@pytest.mark.parametrize("changes", [{"energy_lambda": 0.0}, {"energy_lambda": 1e-30, "outlier_batches": "separate"}])
def test_without_weight_the_training_is_the_plain_one_step_for_step(changes):
    plain = trained(cross_entropy(config(loss="ce", outliers="")))
    assert largest_difference(trained(loss(**changes)), plain) < 1e-7
    assert largest_difference(trained(loss(energy_lambda=1.0, outlier_batches="separate")), plain) > 1e-4


def test_outliers_in_the_batch_change_the_running_statistics_and_by_themselves_do_not():
    plain = trained(cross_entropy(config(loss="ce", outliers="")), 1).body[1].running_mean
    joint = trained(loss(energy_lambda=1e-30), 1).body[1].running_mean
    separate = trained(loss(energy_lambda=1e-30, outlier_batches="separate"), 1).body[1].running_mean
    assert torch.equal(separate, plain) and (joint - plain).abs().max() > 1e-3


def test_hinges_are_zero_beyond_their_margins_and_squared_within():
    inside, outside = torch.tensor([[-3.0, 0.5]]), torch.tensor([[5.0, 6.0], [4.5, 7.0]])
    assert energy_loss.hinge(inside, outside, 1.0, 4.0) == 0
    inside, outside = torch.tensor([[2.0, 0.0], [4.0, 0.0]]), torch.tensor([[3.0, 9.0]])
    assert energy_loss.hinge(inside, outside, 1.0, 4.0).item() == pytest.approx(((1 + 9) / 2 + 1) / 2)


def test_contrastive_term_is_the_mean_over_pairs():
    inside, outside = torch.randn(3, 2), torch.randn(4, 2)
    expected = np.mean(
        [
            math.log1p(math.exp(3 + inside[i, layer].item() - outside[j, layer].item()))
            for i in range(3)
            for j in range(4)
            for layer in range(2)
        ]
    )
    assert energy_loss.contrastive(inside, outside, 1.0, 4.0).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_reaches_the_layer_as_minus_softmax():
    activations = torch.randn(2, 12, requires_grad=True)
    found = energy(activations, (2.0,))
    (gradient,) = torch.autograd.grad(found.sum(), activations)
    assert torch.allclose(gradient, -(activations / 2).softmax(1), atol=1e-6)


@pytest.mark.parametrize("form", ["hinge", "contrastive"])
@pytest.mark.parametrize("batches", ["joint", "separate"])
def test_the_loss_is_cross_entropy_and_the_weighted_term(form, batches):
    found, given = (
        network().train(),
        loss(
            form=form,
            outlier_batches=batches,
            energy_lambda=0.5,
            margins_in="raw",
            energy_margins=(-6.0, -4.0),
            energy_layers=("1", "8"),
        ),
    )
    images, labels = torch.rand(16, 1, 32, 32), torch.arange(16) % 10

    def draws(name, device=None):
        return generator(3, name)

    torch.manual_seed(0)
    total, logits = given(found, images, labels, draws)
    patches = datasets.load("patches", "data", "train")
    chosen = torch.randint(len(patches), (16,), generator=draws("outliers"))
    others, _, _ = next(patches.subset(chosen).batches(16, channels=1, size=32))
    torch.manual_seed(0)
    with cutting.record(found, ["1", "8"]) as outputs:
        if batches == "joint":
            expected = found(torch.cat([images, others]))[:16]
            inside, outside = (
                [-outputs[name][part].flatten(1).logsumexp(1) for name in ("1", "8")] for part in (slice(16), slice(16, 32))
            )
        else:
            expected = found(images)
            inside = [-outputs[name].flatten(1).logsumexp(1) for name in ("1", "8")]
            found(others)
            outside = [-outputs[name].flatten(1).logsumexp(1) for name in ("1", "8")]
    term = energy_loss.FORMS[form](torch.stack(inside, 1), torch.stack(outside, 1), -6.0, -4.0)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert total.item() == pytest.approx((nn.functional.cross_entropy(expected, labels) + 0.5 * term).item(), rel=1e-5)


def test_units_of_the_data_ignore_the_scale_of_a_layer_and_run_along():
    inside, outside = torch.randn(50, 3), 2 + torch.randn(40, 3)
    state = {}
    found = energy_loss._in_units_of_data(inside, outside, state)
    assert torch.allclose(found[0].mean(0), torch.zeros(3), atol=1e-5) and torch.allclose(
        found[0].std(0, correction=0), torch.ones(3), atol=1e-5
    )
    scaled = energy_loss._in_units_of_data(100 * inside - 7, 100 * outside - 7, {})
    assert torch.allclose(scaled[1], found[1], atol=1e-4)
    before = state["mean"].clone()
    energy_loss._in_units_of_data(inside + 10, outside, state)
    assert torch.allclose(state["mean"], before + 0.1 * 10, atol=1e-4)


def test_the_running_statistics_are_all_that_continuing_needs():
    images, labels = torch.rand(4, 8, 1, 32, 32), torch.zeros(8, dtype=torch.int64)

    def values(given, found, steps):
        return [
            given(found, images[step], labels, lambda name, device=None, step=step: generator(step, name))[0].item()
            for step in steps
        ]

    through = values(loss(), network().eval(), range(4))
    first, second = loss(), loss()
    values(first, network().eval(), range(2))
    second.state.update({key: value.clone() for key, value in first.state.items()})
    assert values(second, network().eval(), range(2, 4)) == through[2:]


def test_layers_before_a_normalisation_are_found_and_refused_in_raw_units():
    found = Normalized(models.build("resnet20", 10, 3))
    images = torch.rand(2, 3, 32, 32)
    before = {key: value.clone() for key, value in found.state_dict().items()}
    convolutions = {name for name, module in found.body.named_modules() if isinstance(module, nn.Conv2d)}
    assert energy_loss.before_batchnorm(found, images) == convolutions
    assert all(torch.equal(value, before[key]) for key, value in found.state_dict().items())
    with pytest.raises(UserError, match="conv1 feeds a batch normalisation"):
        energy_loss.choose_layers(found, images, ("conv1",), raw=True)
    chosen = energy_loss.choose_layers(found, images, (), raw=True)
    assert len(chosen) == sum(isinstance(module, nn.BatchNorm2d) for module in found.modules()) + 1 and chosen[-1] == "fc"
    activated = Normalized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=False), nn.BatchNorm2d(4)))
    assert energy_loss.before_batchnorm(activated, images) == {"1"}
    with pytest.raises(UserError, match="--energy-layers nothing"):
        energy_loss.choose_layers(found, images, ("nothing",), raw=False)


def test_a_pass_that_fails_leaves_every_module_in_the_mode_it_was_in():
    found = network().train()
    found.body[1].eval()
    before = [module.training for module in found.modules()]
    with pytest.raises(RuntimeError):  # images of three channels
        energy_loss.before_batchnorm(found, torch.rand(2, 3, 32, 32))
    assert [module.training for module in found.modules()] == before


def test_outliers_that_are_data_are_refused():
    with pytest.raises(UserError, match="355 of its images are in digits:test"):
        loss(outliers="digits:test")


def test_training_separates_outliers_in_the_layers_it_names():
    def gap(given):
        found = trained(given, 12).eval()
        data = datasets.load("digits", "data", "test").subset(torch.arange(100))
        with torch.no_grad(), cutting.record(found, ["4", "8"], reduce=energy) as outputs:
            found(next(data.batches(100))[0])
            inside = torch.cat(list(outputs.values()), 1)
            found(next(datasets.load("patches", "data", "test").subset(torch.arange(0, 700, 7)).batches(100, channels=1))[0])
            outside = torch.cat(list(outputs.values()), 1)
        return ((outside.mean(0) - inside.mean(0)) / inside.std(0)).min().item()

    assert gap(loss(energy_layers=("4", "8"), energy_lambda=1.0, outlier_batches="separate")) > 1 + gap(
        cross_entropy(config(loss="ce", outliers=""))
    )


def test_fine_tuning_with_the_loss_starts_at_the_checkpoint_and_continues_bit_for_bit(trained, tmp_path):
    place = tmp_path / "models"

    def words(name):
        return (
            "exec_train.py",
            "lenet",
            "-d",
            "digits",
            "-dir",
            name,
            "--models-dir",
            place,
            "-e",
            2,
            "-lr",
            "1e-3",
            "--loss",
            "energy_layers",
            "--outliers",
            "patches",
            "--energy-layers",
            "features.*,classifier.6",
            "--resume-from",
            trained / "models/a/model_2.pt",
            "--max-examples",
            600,
        )

    def weights(name):
        return torch.load(place / name, weights_only=True)

    done = script(*words("whole"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    start = torch.load(trained / "models/a/model_2.pt", weights_only=True)
    assert all(torch.equal(value, start[key]) for key, value in weights("whole/init.pt").items())
    stopped = stopped_script(*words("stopped"), cwd=tmp_path, number=signal.SIGTERM, once=place / "stopped" / "best.pt")
    assert stopped.returncode == 75 and not (place / "stopped" / "model_2.pt").exists(), stopped.stderr
    state = torch.load(place / "stopped" / "resume.pt", weights_only=True)["loss"]
    assert state["mean"].shape == state["variance"].shape and len(state["mean"]) == 16  # of as many layers
    continued = script(*words("stopped"), cwd=tmp_path)
    assert continued.returncode == 0 and "continuing" in continued.stderr, continued.stderr
    expected = weights("whole/model_2.pt")
    assert all(torch.equal(value, expected[key]) for key, value in weights("stopped/model_2.pt").items())
    assert not all(torch.equal(value, start[key]) for key, value in expected.items())
