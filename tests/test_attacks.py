"""Attacks and robust losses: inside the ball, exact on linear networks, leaving the network as it was."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import script
from torch import nn

from lib import models
from lib.attacks import pgd
from lib.attacks.pgd import Ball
from lib.core.errors import UsageError
from lib.core.registry import resolve
from lib.experiments.config.train import TrainConfig
from lib.experiments.train import train
from lib.models.normalized import Normalized
from lib.models.paper_names import settings
from lib.training.flags import LOSSES
from lib.training.repeated_pass import repeatable
from lib.training.robust_losses import kl, mix, trades_images


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(name: str) -> torch.Generator:
    return generator(len(name))


def config(**changes) -> SimpleNamespace:
    return SimpleNamespace(
        **{
            "norm": "2",
            "radius": 0.5,
            "attack_steps": 5,
            "step_size": 0.2,
            "beta": 6.0,
            "box": True,
            "label_smoothing": 0.0,
            **changes,
        }
    )


def loss_of(name: str, **changes):
    return resolve(LOSSES[name])(config(**changes))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Normalized(models.build("resnet20", 10), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).train()


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, 3, 32, 32, generator=generator(1))


LABELS = torch.arange(6)


@pytest.mark.parametrize("norm, radius", [("2", 0.7), ("inf", 0.03), ("2", 0.0), ("inf", 0.0)])
@pytest.mark.parametrize("kind", ["at", "trades"])
def test_an_attack_stays_in_its_ball_and_box_and_leaves_the_network_as_it_was(network, images, norm, radius, kind):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.body.bn1.eval()
    network.body.conv1.weight.requires_grad_(False)
    ball = Ball(norm, radius)
    if kind == "trades":
        found = trades_images(network, images, ball, 3, radius, generator())
    else:
        found = pgd.pgd(
            network,
            images,
            pgd.cross_entropy(LABELS),
            ball,
            steps=3,
            step_size=radius,
            start=ball.uniform_start(images, generator()),
            generator=generator(),
        )
    distance = (found - images).flatten(1).norm(dim=1) if norm == "2" else (found - images).abs().amax((1, 2, 3))
    assert bool((distance <= (radius * (1 + 1e-5) if norm == "2" else radius + 1e-6)).all())
    assert bool((found >= 0).all() and (found <= 1).all()) and found.grad_fn is None and not found.requires_grad
    assert radius == 0 or float(distance.min()) > 0.5 * radius
    assert radius > 0 or torch.equal(found, images)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.training and not network.body.bn1.training and network.body.layer1.training
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == ["body.conv1.weight"] and all(parameter.grad is None for parameter in network.parameters())
    network.body.bn1.train()
    network.body.conv1.weight.requires_grad_(True)


def test_the_network_is_as_it_was_after_an_error_too(network):
    with pytest.raises(RuntimeError), pgd.attacked(network):
        raise RuntimeError
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_zero_gradients_give_no_nan(norm, images):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    nn.init.zeros_(flat[1].weight)
    found = pgd.pgd(
        flat, images, pgd.cross_entropy(LABELS), Ball(norm, 0.5), start=images, steps=3, step_size=0.3, generator=generator()
    )
    moved = (found - images).flatten(1).norm(dim=1)
    assert bool(torch.isfinite(found).all()) and bool((moved > 0.1).all() if norm == "2" else (moved == 0).all())


def test_pgd_finds_the_best_point_of_a_linear_network():
    torch.manual_seed(3)
    linear = nn.Linear(50, 2).double()
    points, radius = torch.rand(20, 50, dtype=torch.float64, generator=generator(2)), 0.3
    labels = torch.arange(20) % 2
    found = pgd.pgd(
        linear,
        points,
        lambda logits: F.cross_entropy(logits, labels, reduction="none"),
        Ball("2", radius, box=False),
        start=points,
        steps=5,
        step_size=2 * radius / 5,
        generator=generator(),
    )
    weight = (linear.weight[1] - linear.weight[0]).detach()
    sign = (labels * 2 - 1)[:, None]
    expected = -radius * sign * weight / weight.norm()
    assert bool((F.cosine_similarity(found - points, expected) > 0.9999).all())
    margin = sign.squeeze() * (linear(points) @ torch.tensor([-1.0, 1.0], dtype=torch.float64)).detach()
    after = sign.squeeze() * (linear(found) @ torch.tensor([-1.0, 1.0], dtype=torch.float64)).detach()
    assert torch.allclose(margin - after, radius * weight.norm().expand(20), rtol=1e-4)


@pytest.mark.parametrize("norm, radius", [("2", 2.0), ("inf", 0.3)])
def test_an_attack_starts_where_noise_shortened_to_the_ball_and_then_cut_off_by_the_box_leads(norm, radius):
    dark = torch.rand(4, 3, 32, 32, generator=generator(1)).pow(4)
    noise = radius * (torch.rand(dark.shape, generator=generator(2)) * 2 - 1)
    if norm == "2":
        noise = torch.stack([one * min(1, radius / one.norm().item()) for one in noise])
    found = Ball(norm, radius).uniform_start(dark, generator(2))
    assert torch.allclose(found, (dark + noise).clamp(0, 1), atol=1e-6)
    shorter = pgd.lengths(found - dark).flatten()
    assert bool((shorter < 0.95 * pgd.lengths(noise).flatten()).all())  # the box takes some away, which nothing makes up for


def test_an_attack_of_one_image_does_not_depend_on_its_neighbours(network, images):
    ball = Ball("inf", 0.03)
    options = {"steps": 3, "step_size": 0.01, "generator": generator()}
    together = pgd.pgd(network, images, pgd.cross_entropy(LABELS), ball, start=images, **options)
    alone = pgd.pgd(network, images[2:3], pgd.cross_entropy(LABELS[2:3]), ball, start=images[2:3], **options)
    assert torch.allclose(together[2:3], alone, atol=1e-6)


def gradients(network, loss, images, labels=LABELS):
    network.zero_grad()
    value, logits = loss(network, images, labels, draws)
    value.backward()
    return value.detach(), logits, torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def smooth_network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 20), nn.Tanh(), nn.Linear(20, 10))


def test_trades_without_its_divergence_is_cross_entropy(images):
    network = smooth_network()
    plain, _, expected = gradients(network, loss_of("ce"), images)
    value, logits, found = gradients(network, loss_of("trades", beta=0.0), images)
    assert value == pytest.approx(float(plain), rel=1e-6) and torch.allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert torch.equal(logits, network(images))


def test_trades_adds_beta_times_the_divergence_of_the_attacked_images(images):
    network = smooth_network()
    attacked = trades_images(network, images, Ball("2", 0.5), 5, 0.2, draws("attack"))
    with torch.no_grad():
        p, q, plain = network(images).softmax(1), network(attacked).softmax(1), F.cross_entropy(network(images), LABELS)
    divergence = (p * (p / q).log()).sum(1).mean()
    value, _, _ = gradients(network, loss_of("trades", beta=3.0), images)
    assert float(value) == pytest.approx(float(plain + 3 * divergence), rel=1e-5)
    assert float(divergence) > 1e-4


def test_the_divergence_is_zero_only_for_equal_answers_and_ignores_constants():
    logits = torch.randn(8, 5, generator=generator(4)) * 20
    others = torch.randn(8, 5, generator=generator(5)) * 20
    assert float(kl(logits, logits)) == pytest.approx(0, abs=1e-6)
    assert float(kl(others, logits)) > 1
    assert float(kl(others + 7, logits - 3)) == pytest.approx(float(kl(others, logits)), rel=1e-5)
    assert torch.allclose(pgd.divergence(logits)(others).mean(), kl(others, logits))


class OwnCount(nn.Linear):
    """A layer with a buffer that every pass changes."""

    def __init__(self):
        super().__init__(6, 6)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, input):
        self.passes += 1
        return super().forward(input)


REPEATED = {
    "nothing": (lambda: nn.ReLU(), 1),
    "batch normalisation": (lambda: nn.BatchNorm1d(6, momentum=0.3), 1),
    "frozen": (lambda: nn.BatchNorm1d(6).eval(), 1),
    "cumulative average": (lambda: nn.BatchNorm1d(6, momentum=None), 2),
    "dropout": (lambda: nn.Dropout(0.5), 2),
    "a count": (OwnCount, 2),
}


@pytest.mark.parametrize("kind", REPEATED)
def test_a_repeated_pass_is_computed_only_where_it_differs_and_moves_statistics_as_it_would(kind):
    make, passes = REPEATED[kind]

    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), make(), nn.Linear(6, 3))

    one, other, (x, y) = made(), made(), torch.randn(2, 8, 4)
    counted = []
    one[0].register_forward_hook(lambda *_: counted.append(1))
    torch.manual_seed(1)
    first, again = repeatable(one, x)
    between = one(y)
    last = again()
    torch.manual_seed(1)
    expected = other(x), other(y), other(x)
    for found, wanted in zip((first, between, last), expected, strict=True):
        assert torch.allclose(found, wanted)
    assert len(counted) == 1 + passes
    for name, value in other.state_dict().items():
        assert torch.allclose(one.state_dict()[name], value, rtol=1e-5), name
    (first.sum() + (between * last).sum()).backward()
    (expected[0].sum() + (expected[1] * expected[2]).sum()).backward()
    for found, wanted in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(found.grad, wanted.grad, atol=1e-5)


def test_an_attack_draws_a_direction_only_for_images_without_a_gradient():
    ball, gradient = Ball("2", 1.0), torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    generator_ = torch.Generator().manual_seed(0)
    before = generator_.get_state()
    assert torch.allclose(ball.direction(gradient, generator_).flatten(1).norm(dim=1), torch.ones(4))
    assert torch.equal(generator_.get_state(), before)
    gradient[2] = 0
    found = ball.direction(gradient, generator_)
    assert torch.allclose(found.flatten(1).norm(dim=1), torch.ones(4)) and not torch.equal(generator_.get_state(), before)


def test_trades_moves_batch_statistics_three_times_and_its_attack_not_at_all(network, images):
    before = int(network.body.bn1.num_batches_tracked)
    loss_of("trades")(network, images, LABELS, draws)
    assert int(network.body.bn1.num_batches_tracked) == before + 3
    loss_of("at")(network, images, LABELS, draws)
    assert int(network.body.bn1.num_batches_tracked) == before + 4


def test_adversarial_training_minimises_the_loss_of_attacked_images(images):
    network = smooth_network()
    plain, _, _ = gradients(network, loss_of("ce"), images)
    value, logits, _ = gradients(network, loss_of("at"), images)
    assert value > plain and float(F.cross_entropy(logits.detach(), LABELS)) == pytest.approx(float(value))
    tiny, _, _ = gradients(network, loss_of("at", eps=1e-6, step_size=1e-7), images)
    assert float(tiny) == pytest.approx(float(plain), rel=1e-4)


@pytest.mark.parametrize("n", [6, 5])
def test_mixup_mixes_the_halves_of_a_batch_with_their_labels(images, n):
    network = smooth_network()
    value, logits, _ = gradients(network, loss_of("mixup"), images[:n], LABELS[:n])
    share = torch.rand((), generator=draws("mixup"))
    targets = mix(F.one_hot(LABELS[:n], 10).float(), share)
    assert torch.allclose(targets.sum(1), torch.ones(3)) and len(logits) == n
    output = network(share * images[:3] + (1 - share) * images[n - 3 : n]).log_softmax(1)
    expected = torch.xlogy(targets, targets).sum(1) - (targets * output).sum(1)
    assert float(value) == pytest.approx(float(expected.detach().mean()), rel=1e-5)
    assert torch.equal(mix(images[:n], 1.0), images[:3])
    assert torch.equal(mix(F.one_hot(LABELS[:n], 10).float(), 1.0).argmax(1), LABELS[:3])


PLAIN = {"unnormalize": True, "augmentation": "none"}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("trades6ce-vtor2-WRN_40_10", {"model_type": "WRN_40_10", "loss": "trades", "beta": 6.0, **PLAIN}),
        ("trades100ce-vtor2-CNN002", {"model_type": "CNN002", "loss": "trades", "beta": 100.0, **PLAIN}),
        ("advce-vtor2-CNN002", {"model_type": "CNN002", "loss": "at", **PLAIN}),
        ("advK100ce-vtor2-CNN002", {"model_type": "CNN002", "loss": "at", "attack_steps": 100, **PLAIN}),
        ("mixupce-vtor2-CNN002", {"model_type": "CNN002", "loss": "mixup", **PLAIN}),
        ("ce-vtor2-CNN002", {"model_type": "CNN002", "loss": "ce", **PLAIN}),
        (
            "aug01-ce-vtor2-preact_resnet18",
            {"model_type": "preact_resnet18", "loss": "ce", "unnormalize": True, "augmentation": "crop-flip"},
        ),
        (
            "advce-vtor2-ResNet50Norm01",
            {
                "model_type": "ResNet50",
                "loss": "at",
                "augmentation": "none",
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
            },
        ),
        ("ce-vtor2-preResNet50Norm02", {"model_type": "ResNet50", "loss": "ce", "augmentation": "none", "pretrained": True}),
        ("resnet20", {}),
    ],
)
def test_the_papers_model_strings_set_type_and_loss(name, expected):
    assert settings(name) == expected
    if expected and expected["loss"] in ("ce", "mixup"):
        assert TrainConfig.stated(dict(model_type=name, directory="a", dataset="digits")).loss == expected["loss"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "cusgradce-vtor2-CNN002"}, "its loss is none of"),
        ({"model_type": "ce-vtor2-CNN999"}, "CNN002"),
        ({"model_type": "aug77-ce-vtor2-CNN002"}, "of augmentations aug01, aug09 are known"),
        ({"model_type": "ce-vtor2-ResNet50Norm03"}, "of normalisations Norm01, Norm02"),
        ({"mean": (0.5,)}, "--mean and --std go together"),
        ({"dataset": "aug10-imgnet100wo0", "image_size": 64}, "its images have 112 px, not 64"),
        ({"model_type": "advce-vtor2-CNN002", "loss": "trades", "eps": 1.0}, "disagree"),
        ({"loss": "at"}, "--eps is required"),
        ({"eps": 1.0}, "--eps is for --loss at and trades, not ce, which it would not change"),
        ({"beta": 3.0}, "--beta is for --loss trades, not ce"),
        ({"loss": "at", "eps": 1.0, "beta": 3.0}, "--beta is for --loss trades, not at"),
        ({"loss": "mixup", "norm": "inf"}, "--norm is for --loss at and trades, not mixup"),
        ({"attack_steps": 3}, "--attack-steps is for --loss at and trades"),
        ({"box": False}, "--no-box is for --loss at and trades"),
        ({"energy_lambda": 1.0}, "--energy-lambda is for --loss energy_layers, not ce"),
        ({"momentum": 0.5}, "--momentum is for -o sgd, not adam"),
        ({"lr_step": 3, "schedule": "none"}, "--lr-step and --lr-decay are for -sched step, not none"),
        ({"noise_seed": 3}, "--noise-seed is about --noise and --pixel-shuffle"),
        ({"loss": "trades", "eps": 0.0}, "--eps 0.0: 0.0 is not above 0"),
        ({"loss": "trades", "eps": -1.0}, "not above 0"),
        ({"loss": "trades", "eps": float("nan")}, "not above 0"),
        ({"loss": "trades", "eps": float("inf")}, "inf is not finite"),
        ({"loss": "mixup", "label_smoothing": 0.1}, "--label-smoothing is for --loss ce"),
        ({"norm": "1"}, "--norm 1"),
    ],
)
def test_bad_settings_of_robust_training_are_refused(changes, message):
    with pytest.raises(UsageError) as caught:
        TrainConfig.stated({"model_type": "CNN002", "directory": "a", "dataset": "digits", **changes})
    assert message in str(caught.value)


def test_the_papers_imagenet_100_has_112_pixels_and_its_normalisation():
    config = TrainConfig.stated(dict(model_type="ce-vtor2-ResNet50Norm01", directory="a", dataset="aug10-imgnet100wo0"))
    assert (config.dataset, config.image_size) == ("imagenet100-wo0", 112)
    assert config.mean == (0.485, 0.456, 0.406) and not config.unnormalize


def test_a_robust_network_is_trained_from_the_command_line(tmp_path):
    done = script(
        "exec_train.py",
        "trades6ce-vtor2-CNN002",
        "-d",
        "digits-wo9",
        "-dir",
        "robust",
        "-e",
        1,
        "--eps",
        1,
        "--attack-steps",
        2,
        "--max-examples",
        128,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    described = json.loads((tmp_path / "models" / "robust" / "model_1.json").read_text())
    assert described["architecture"] == "CNN002" and described["config"]["loss"] == "trades"


@pytest.mark.parametrize("loss, attack", [("at", {"eps": 0.5, "attack_steps": 2}), ("mixup", {})])
def test_the_other_robust_losses_train_too(tmp_path, loss, attack):
    found = train(
        TrainConfig(
            model_type="lenet",
            dataset="digits",
            directory="a",
            models_dir=str(tmp_path),
            loss=loss,
            **attack,
            epochs=2,
            learning_rate=3e-3,
            max_examples=256,
            gpu=-1,
            quiet=True,
        )
    )
    assert [row["epoch"] for row in found.rows] == [1, 2] and found.rows[1]["train_loss"] < found.rows[0]["train_loss"]
    assert all(0 <= row["train_accuracy"] <= 1 for row in found.rows)
