"""What probes are compared with: each baseline on data where its answer is known."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from test_probe_script import probe, rows
from test_probes import TAP, blobs

from lib import datasets
from lib.core.errors import UserError
from lib.metrics.neural_collapse import within_over_between
from lib.models import checkpoints
from lib.models.normalized import Normalized
from lib.probing import dfr
from lib.probing.batchnorm_adaptation import adapted
from lib.probing.evaluation import Metric
from lib.probing.feature_sources import CachedSource
from lib.probing.feature_transform import FeatureTransform
from lib.probing.fit import Group, ProbeRecipe, fit, predictions
from lib.probing.stacked_probes import Setting, Stack, initial_mlp
from lib.probing.training_sets import TrainingSet
from lib.representations.features import Features, SideBySide


def accuracy(probes, features, labels) -> float:
    return (predictions(probes, features)[0] == labels).double().mean().item()


def test_a_hidden_layer_solves_what_no_linear_probe_can():
    draw = torch.Generator().manual_seed(0)
    features = Features(torch.randn(2000, 2, generator=draw))
    labels = (features.stored.prod(1) > 0).long()  # exclusive or of the signs
    found = [
        fit(TAP, [features], [Group(torch.arange(2000), labels)], [Setting(1e-2)], 2, ProbeRecipe(epochs=10, hidden=hidden))
        for hidden in (0, 32)
    ]
    linear, deep = (accuracy(one.of_group(0), features, labels) for one in found)
    assert linear < 0.7 and deep > 0.97


def test_stacked_networks_with_a_hidden_layer_equal_separate_runs_of_torchs():
    features, labels = blobs()
    settings = [Setting(1e-2), Setting(1e-3, l1=1e-3), Setting(3e-3, l2=0.1)]
    start = initial_mlp(6, 5, 3, [0, 1], 3)
    stack, alone = Stack(start, settings), []
    for seed in (0, 1):
        for number, setting in enumerate(settings):
            net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
            for target, value in zip(net.parameters(), vars(start).values(), strict=True):
                target.data = value[seed, number].clone()
            alone.append((seed, number, setting, net, torch.optim.Adam(net.parameters(), lr=setting.lr)))
    for step in range(40):
        part = [torch.randperm(300, generator=torch.Generator().manual_seed(10 * step + seed))[:16] for seed in (0, 1)]
        stack.step(torch.stack([features[rows] for rows in part]), torch.stack([labels[rows] for rows in part]))
        for seed, _, setting, net, optimizer in alone:
            weights = [net[0].weight, net[2].weight]
            loss = torch.nn.functional.cross_entropy(net(features[part[seed]]), labels[part[seed]])
            loss = loss + sum(setting.l1 * one.abs().sum() + setting.l2 / 2 * one.square().sum() for one in weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for seed, number, _, net, _ in alone:
        for mine, theirs in zip(stack.values, net.parameters(), strict=True):
            assert torch.allclose(mine[seed, number], theirs, atol=1e-5)


def test_layers_that_know_half_of_the_label_each_know_it_together():
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (1200,), generator=draw)
    halves = [
        torch.nn.functional.one_hot(part, 2) * 4.0 + torch.randn(1200, 2, generator=draw)
        for part in (labels // 2, labels % 2)
    ]
    parts, group = [Features(half) for half in halves], [Group(torch.arange(1200), labels)]
    recipe = ProbeRecipe(epochs=20)
    single = [fit(TAP, [part], group, [Setting(1e-2)], 4, recipe).of_group(0) for part in parts]
    assert all(accuracy(one, part, labels) < 0.6 for one, part in zip(single, parts, strict=True))
    both = SideBySide(tuple(parts))
    assert both.dim == 4 and torch.equal(both.rows(torch.tensor([5, 2])), torch.cat(halves, 1)[[5, 2]])
    assert accuracy(fit(TAP, [both], group, [Setting(1e-2)], 4, recipe).of_group(0), both, labels) > 0.95


@pytest.mark.parametrize("strength", [0.3, 0.03])
def test_reweighting_solves_the_published_regression_and_averages_its_draws(strength, monkeypatch):
    features, labels = blobs(120, d=4)
    features, labels = features + 2, (labels > 0).long()  # far from the origin, so that the intercept matters
    monkeypatch.setattr(dfr, "STRENGTHS", (strength,))
    learnt = TrainingSet(0, 0, torch.arange(120), labels, torch.zeros(120, dtype=torch.int64))
    sizes = torch.tensor([120])
    linear, chosen = dfr.fit(TAP, Features(features), learnt, 2, Metric("accuracy", sizes), FeatureTransform(), 2, 1.0)
    balanced = [dfr.draw_balanced(torch.arange(120), labels, dfr.stream(0, "dfr", number)) for number in range(2)]
    assert chosen == strength and all(torch.bincount(labels[one]).unique().numel() == 1 for one in balanced)
    weights, intercepts = [], []
    for one in balanced:
        model = LogisticRegression(C=strength, l1_ratio=1, solver="liblinear", tol=1e-10, max_iter=100000)
        model.fit(features[one].double().numpy(), labels[one].numpy())
        weights.append(torch.tensor(model.coef_[0]))
        intercepts.append(float(model.intercept_[0]))
    # of two classes only the difference of both rows counts, and the least penalty divides it between them as it likes
    assert torch.allclose((linear.weights[0, 1] - linear.weights[0, 0]).double(), sum(weights) / 2, atol=2e-3)
    assert float(linear.biases[0, 1] - linear.biases[0, 0]) == pytest.approx(sum(intercepts) / 2, abs=4e-3)


def test_reweighting_repairs_a_spurious_feature_that_plain_training_trusts():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(1000) % 2
    spurious = torch.where(torch.rand(1000, generator=draw) < 0.95, labels, 1 - labels)
    sign = torch.stack([labels, spurious], 1) * 2.0 - 1
    features = sign * torch.tensor([1.0, 3.0]) + torch.randn(1000, 2, generator=draw)
    groups, everyone = 2 * labels + spurious, torch.arange(1000)
    metric = Metric("worst-group", torch.bincount(groups))
    plain = fit(
        TAP, [Features(features)], [Group(everyone, labels)], [Setting(None, 0, 1e-4)], 2, ProbeRecipe(solver="lbfgs")
    )
    source, learnt = CachedSource({TAP: Features(features)}), TrainingSet(0, 0, everyone, labels, groups)
    linear, _ = dfr.fit(TAP, Features(features), learnt, 2, metric, dfr.scale(source, TAP, everyone), 20, 1.0)
    worst = [metric.values(predictions(one, Features(features)) == labels, groups)[0] for one in (plain.of_group(0), linear)]
    assert worst[0] < 0.5 and worst[1] > 0.75


def test_adapted_statistics_undo_a_change_of_contrast_and_are_gone_afterwards():
    torch.manual_seed(0)
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False),
        torch.nn.BatchNorm2d(4, eps=1e-12),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 36, 3),
    )
    network = Normalized(body).eval()
    clean = torch.rand(64, 3, 8, 8)
    shifted = clean * 0.1  # the filters have no bias: every statistic shrinks by the same factor
    with adapted(network, [clean]):
        expected = network(clean)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with adapted(network, shifted.split(64)):
        assert torch.allclose(network(shifted), expected, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not torch.allclose(network(shifted), expected, atol=0.1) and not network.training


@pytest.mark.parametrize("block", [3, 4096])
def test_collapse_is_zero_on_class_means_and_the_trace_of_its_definition_elsewhere(block, monkeypatch):
    monkeypatch.setattr("lib.metrics.neural_collapse.BLOCK", block)
    features, labels = blobs(90, d=7, k=4)
    means = torch.stack([features[labels == label].mean(0) for label in range(4)]).double()
    assert within_over_between(means[labels], labels) == pytest.approx(0, abs=1e-12)
    inside = torch.stack([row - means[label] for row, label in zip(features.double(), labels, strict=True)])
    between = (means - means.mean(0)).T @ (means - means.mean(0)) / 4
    slow = torch.trace(inside.T @ inside / 90 @ torch.linalg.pinv(between, rtol=1e-8)).item() / 4
    assert within_over_between(features, labels) == pytest.approx(slow, rel=1e-5)
    turn = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(2)))[0]
    assert within_over_between(3 * features @ turn + 1, labels) == pytest.approx(slow, rel=1e-4)
    assert math.isnan(within_over_between(torch.ones(6, 3), torch.arange(6) % 2))  # means that coincide


def test_every_baseline_is_in_the_rows_with_the_search_of_the_plain_probes(grouped):
    words = (
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "-l",
        "pool2",
        "relu4",
        "avgpool",
        "--reduce",
        "gap",
        "-lr",
        "1e-3",
        "1e-2",
        "-e",
        "3",
        "--standardise",
        "--select",
        "ood-val",
        "id-val",
    )
    record = probe(grouped, *words, "--baselines", "all", "--untrained", "--name", "all-baselines")
    found = {(row["probe"], row["network"]) for row in record["rows"]}
    kinds = (
        "probe",
        "mlp",
        "concatenated",
        "averaged",
        "last-layer",
        "last-layer-warm",
        "dfr",
        "batch-norm",
        "collapse",
        "head",
        "class-means",
        "gain",
        "mlp-gain",
        "dfr-gain",
    )
    assert found == {(kind, network) for kind in kinds for network in ("trained", "untrained")}
    gains = {
        row["probe"]: row["candidates"]
        for row in rows(record, network="trained", selected_by="ood-val")
        if row["probe"].endswith("gain")
    }
    assert gains == {"gain": 4, "mlp-gain": 4, "dfr-gain": 2}  # relu4 and avgpool are one
    trained = {
        kind: next(row for row in rows(record, probe=kind, network="trained") if row["group"] == "all")
        for kind in kinds[:-3]
    }
    assert trained["last-layer"]["layer"] == "flatten" and trained["concatenated"]["layer"] == "all of them"
    assert {row["layer"] for row in rows(record, probe="dfr")} == {"pool2", "relu4", "avgpool"}
    collapse = rows(record, probe="collapse", network="trained")
    assert {row["split"] for row in collapse} == {"train", "test"} and all(row["nc1"] > 0 for row in collapse)
    deepest = {
        network: rows(record, probe="collapse", network=network, split="train", layer="avgpool")[0]["nc1"]
        for network in ("trained", "untrained")
    }
    assert deepest["trained"] < deepest["untrained"]


def test_a_warm_last_layer_that_is_not_trained_is_the_networks_head(grouped):
    record = probe(
        grouped,
        "models/bg/model_6.pt",
        "-ood",
        "digits-bg",
        "-l",
        "avgpool",
        "-e",
        "0",
        "--baselines",
        "last-layer",
        "--select",
        "none",
        "--cache-type",
        "fp32",
    )
    head, warm = (rows(record, probe=kind) for kind in ("head", "last-layer-warm"))
    assert [(row["group"], row["correct"]) for row in head] == [(row["group"], row["correct"]) for row in warm]


def test_an_untrained_network_is_probed_beside_the_trained_one_with_weights_of_its_own(trained):
    record = probe(trained, "models/a/model_2.pt", "-l", "features.14", "-e", "1", "--untrained", "--name", "untrained")
    images = datasets.load("digits", trained / "data", "test")
    described = checkpoints.load(trained / "models" / "a" / "model_2.pt").description
    torch.manual_seed(0)  # the seed of the run
    fresh = checkpoints.build(described).eval()
    with torch.no_grad():
        right = (fresh(images.images / 255).argmax(1) == images.labels).sum().item()
    heads = {name: rows(record, probe="head", network=name)[0]["correct"] for name in ("trained", "untrained")}
    assert heads["untrained"] == right != heads["trained"]
    probes = {name: rows(record, probe="probe", network=name)[0]["accuracy"] for name in ("trained", "untrained")}
    assert probes["untrained"] > right / 355  # random features are not nothing


def test_what_another_set_chose_is_tested_here(trained):
    record = probe(
        trained,
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "digits-c/impulse_noise-5",
        "-l",
        "features.4",
        "features.9",
        "features.14",
        "--reduce",
        "gap",
        "-lr",
        "1e-3",
        "1e-2",
        "-e",
        "3",
        "--standardise",
    )

    def chosen(rule, variant):
        return next(
            (row["layer"], row["lr"])
            for row in rows(record, probe="probe", selected_by=rule, variant=variant)
            if row["chosen"]
        )

    assert chosen("transfer", "fog-3") == chosen("ood-val", "impulse_noise-5")
    assert chosen("transfer", "impulse_noise-5") == chosen("ood-val", "fog-3")


@pytest.mark.parametrize(
    "words, fragment",
    [
        (("--baselines", "mlp", "--solver", "ridge", "--l2", "1"), "mlp: --solver ridge fits no hidden layer"),
        (("--baselines", "concatenated", "-l", "features.14"), "concatenated: it takes two or more layers"),
        (("--baselines", "batch-norm"), "batch-norm: the network has no batch normalisation"),
        (("--baselines", "mpl"), "did you mean mlp"),
        (("--baselines", "mlp", "-ranks", "3"), "leave out -ranks"),
        (("--baselines", "mlp", "--cache-limit", "0"), "works on kept features"),
        (("--select", "transfer"), "two or more OOD sets"),
    ],
)
def test_baselines_that_are_not_possible_say_why(trained, words, fragment):
    with pytest.raises(UserError) as caught:
        probe(trained, "models/a/model_2.pt", "-ood", "digits-c/fog-3", "-e", "1", *words)
    assert fragment in str(caught.value)


def test_layers_with_fewer_features_than_the_principal_components_asked_for_keep_them_all(trained):
    record = probe(
        trained,
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "-l",
        "features.9",
        "features.14",
        "classifier.3",
        "--reduce",
        "pca:100",
        "-e",
        "2",
        "--select",
        "oracle",
    )
    found = {row["layer"]: row["dim"] for row in rows(record, probe="probe")}
    assert found == {"features.9": 100, "features.14": 100, "classifier.3": 84}
