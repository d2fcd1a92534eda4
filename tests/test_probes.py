"""Probes: features in one pass, stacked training, solvers, roles, rules; the claims of the papers' acceptance checks."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import ResNet50_Weights

from lib import models
from lib.core.errors import UsageError, UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import checkpoints, cutting, reducer_names, reducers
from lib.models.normalized import Normalized
from lib.probing import export, selection, training_sets
from lib.probing.feature_sources import CachedSource
from lib.probing.feature_transform import Directions
from lib.probing.fit import Group, ProbeRecipe, check_memory, fit, predictions
from lib.probing.layers import head_of
from lib.probing.options import ProbeProtocol
from lib.probing.roles import CLEAN, divide, draw_balanced, draw_fraction, draw_shots, refuse_overlap
from lib.probing.shifts import Shift
from lib.probing.solvers import _slope, lbfgs, proximal, ridge, violation
from lib.probing.stacked_probes import Linear, Setting, Stack, _error, initial, initial_mlp
from lib.probing.study_fit import class_means
from lib.probing.training_sets import TrainingSet
from lib.representations import pca_reducers, principal_components
from lib.representations.features import Collected, Features, Storage, Tap, collect, dimensions, reducers_of

TAP = Tap("layer", "gap")


def network(name: str = "resnet20", classes: int = 10, size: int = 32) -> Normalized:
    torch.manual_seed(0)
    return Normalized(models.build(name, classes, 3, size), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).eval()


def images(n: int = 13, size: int = 32, seed: int = 1) -> Split:
    found = torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Split(name="noise", split="all", images=found, labels=torch.arange(n) % 10)


def collected(
    whole: torch.nn.Module,
    split: Split,
    wanted: list[Tap],
    *,
    batch_size=256,
    reducers=None,
    moments=False,
    view=None,
    **kept,
) -> Collected:
    """Features of taps by their names, or by fitted reducers; `kept` are fields of `Storage`."""
    batching = Batching(batch_size=batch_size, quiet=True)
    made = reducers_of(wanted) | (reducers or {})
    return collect(whole, split, made, batching, Storage(**kept), moments=moments, view=view)


def blobs(n: int = 300, d: int = 6, k: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k, (n,), generator=draw)
    centres = 2 * torch.randn(k, d, generator=torch.Generator().manual_seed(99))
    return centres[labels] + torch.randn(n, d, generator=draw), labels


# --- features


@pytest.mark.parametrize("name", ["flatten", "gap", "gmp", "grid:2", "random:5"])
def test_features_of_all_layers_are_the_reduced_outputs_of_the_cuts(name):
    whole, split = network(), images()
    wanted = [Tap(layer, name) for layer in ("conv1", "layer2.1", "layer3")]
    found = collected(whole, split, wanted, dtype="fp32", batch_size=5).features
    reduce = reducers.reducer(name)
    for tap in wanted:
        with torch.no_grad():
            expected = reduce(cutting.cut(whole, tap.layer)[0](split.images.float() / 255))
        assert torch.allclose(found[tap].rows(), expected, atol=1e-5) and len(found[tap]) == len(split)


def test_collecting_leaves_network_and_statistics_as_they_were():
    whole, split = network(), images()
    before, logits = {key: value.clone() for key, value in whole.state_dict().items()}, whole(split.images / 255)
    collected(whole, split, [Tap("layer1", "gap")], batch_size=5)
    assert all(torch.equal(value, before[key]) for key, value in whole.state_dict().items())
    assert torch.equal(whole(split.images / 255), logits)
    assert not any(module._forward_hooks for module in whole.modules())


@pytest.mark.parametrize(
    "name, size, dims",
    [
        ("cifar_resnet18_maxpool", 32, (65536, 16384, 16384, 8192, 4096, 2048, 512)),
        ("tv_resnet18", 64, (65536, 16384, 16384, 8192, 4096, 2048, 512)),
    ],
)
def test_flattened_features_have_the_published_sizes(name, size, dims):
    layers = ("relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
    found = collected(
        network(name, size=size), images(2, size), [Tap(layer, "flatten") for layer in layers], batch_size=2
    ).features
    assert tuple(kept.dim for kept in found.values()) == dims


def test_a_resnet50_at_224_has_the_published_sizes_and_cost():
    layers = ("maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
    whole, split = network("tv_resnet50", size=224), images(1, 224)
    made = {Tap(layer, name): reducers.reducer(name) for layer in layers for name in ("flatten", "gap")}
    found = dimensions(whole, made, split, Batching())
    assert tuple(found[Tap(layer, "flatten")] for layer in layers) == (200704, 802816, 401408, 200704, 100352, 2048)
    assert tuple(found[Tap(layer, "gap")] for layer in layers) == (64, 256, 512, 1024, 2048, 2048)
    listed = cutting.layers(whole, torch.zeros(1, 3, 224, 224))
    macs = sum(layer.macs for layer in listed if layer.kind in ("Conv2d", "Linear"))
    published = ResNet50_Weights.IMAGENET1K_V1.meta["_ops"]  # for 1,000 classes
    assert macs / 1e9 == pytest.approx(published - 2048 * 990 / 1e9, abs=1e-3)


def test_kept_features_are_reused_and_only_new_taps_are_computed(tmp_path):
    whole, split = network(), images()
    options = dict(cache_dir=tmp_path, batch_size=5)
    first = collected(whole, split, [Tap("conv1", "gap")], moments=True, **options)
    again = collected(whole, split, [Tap("conv1", "gap")], moments=True, **options)
    assert first.images_seen == 13 and again.images_seen == 0
    assert torch.equal(first.features[Tap("conv1", "gap")].rows(), again.features[Tap("conv1", "gap")].rows())
    assert torch.equal(first.moments["conv1"].covariance, again.moments["conv1"].covariance)
    assert collected(whole, split, [Tap("conv1", "gap"), Tap("conv1", "gmp")], **options).images_seen == 13
    assert collected(whole, images(13, seed=2), [Tap("conv1", "gap")], **options).images_seen == 13
    mapped = collected(whole, split, [Tap("conv1", "gap")], gib=1e-9, **options).features[Tap("conv1", "gap")]
    assert torch.equal(mapped.rows(torch.tensor([3, 1])), first.features[Tap("conv1", "gap")].rows()[[3, 1]])
    with torch.no_grad():
        whole.body.conv1.weight += 1
    assert collected(whole, split, [Tap("conv1", "gap")], **options).images_seen == 13
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("kind, bound", [("fp16", 1e-3), ("bf16", 8e-3), ("fp32", 1e-6)])
def test_half_precision_keeps_features_of_any_size_within_its_rounding(kind, bound, tmp_path):
    class Growing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Linear(1, 1)
            self.tapped = torch.nn.Identity()

        def forward(self, x):
            return self.tapped(x.flatten(1) * 1e-3 * 10.0 ** (x[:, 0, 0, :1] * 20))

    split = images(40, 4)
    split.images[:, 0, 0, 0] = torch.arange(40) * 6  # later batches are up to 1e19 times larger than the first
    wanted = [Tap("tapped", "flatten")]
    kept = collected(Growing(), split, wanted, dtype=kind, batch_size=4, cache_dir=tmp_path).features
    found = kept[wanted[0]].rows()
    expected = Growing()(split.images.float() / 255)
    largest = expected.abs().max()
    assert torch.isfinite(found).all() and ((found - expected).abs() <= bound * expected.abs() + 1e-6 * largest).all()


def test_reducers_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="did you mean"):
        reducer_names.check("gapp")
    for name in ("grid", "gap:3", "grid:0", "pca:x"):
        with pytest.raises(UsageError, match="reducers are"):
            reducer_names.check(name)
    with pytest.raises(UsageError, match="tokens"):
        collected(network(), images(), [Tap("conv1", "cls")], batch_size=5)
    with pytest.raises(UserError, match="at most 12 principal directions"):
        pca_reducers.fit(network(), images(), [Tap("conv1", "pca:40")], Batching(batch_size=5, quiet=True))


def test_principal_components_are_those_of_a_singular_value_decomposition():
    whole, split, tap = network(), images(), Tap("layer3", "pca:4")
    fitted = pca_reducers.fit(whole, split, [tap], Batching(batch_size=5, quiet=True))
    found = collected(whole, split, [tap], reducers=fitted, dtype="fp32", batch_size=5).features[tap].rows()
    flat = collected(whole, split, [Tap("layer3", "flatten")], dtype="fp32", batch_size=5)
    rows = flat.features[Tap("layer3", "flatten")].rows()
    left, lengths, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    assert torch.allclose(found.abs(), (left * lengths)[:, :4].abs(), atol=1e-3)


def test_tokens_are_reduced_to_the_class_token_or_their_mean():
    whole, split = network("vit_tiny_patch4_32"), images(3)
    found = collected(
        whole, split, [Tap("blocks.1", "cls"), Tap("blocks.1", "mean-token")], dtype="fp32", batch_size=3
    ).features
    with torch.no_grad():
        tokens = cutting.cut(whole, "blocks.1")[0](split.images.float() / 255)
    assert torch.allclose(found[Tap("blocks.1", "cls")].rows(), tokens[:, 0], atol=1e-5)
    assert torch.allclose(found[Tap("blocks.1", "mean-token")].rows(), tokens.mean(1), atol=1e-5)


# --- low rank (stitching paper, checks 10, 11, 15)


def activations() -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    mixed = torch.randn(20, 6, 4, 4, generator=draw, dtype=torch.float64)
    return torch.einsum("bchw,cd->bdhw", mixed, torch.randn(6, 6, generator=draw, dtype=torch.float64)) + 1


def moments_of(found: torch.Tensor, batch: int = 20) -> principal_components.Moments:
    moments = principal_components.Moments()
    for part in found.split(batch):
        moments += principal_components.Moments.of(principal_components.channel_rows(part))
    return moments


@pytest.mark.parametrize("rank", [1, 2, 4, 6])
def test_directions_from_the_covariance_are_those_of_the_singular_value_decomposition(rank):
    found = activations()
    moments, rows = moments_of(found), principal_components.channel_rows(found)
    left, lengths, right = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    slow = (left[:, :rank] * lengths[:rank]) @ right[:rank] + rows.mean(0)
    fast = principal_components.project(rows, moments.mean, principal_components.basis(moments.covariance), rank)
    assert torch.allclose(fast, slow, atol=1e-8)
    assert torch.allclose((fast - rows).square().sum(), lengths[rank:].square().sum(), rtol=1e-6, atol=1e-9)


def test_projecting_keeps_the_mean_is_idempotent_and_independent_of_batching():
    found = activations()
    moments, rows = moments_of(found), principal_components.channel_rows(found)
    basis = principal_components.basis(moments.covariance)
    assert torch.allclose(principal_components.project(rows, moments.mean, basis, 6), rows, atol=1e-9)
    assert torch.allclose(principal_components.project(rows, moments.mean, basis, 0), moments.mean.expand_as(rows))
    once = principal_components.project(rows, moments.mean, basis, 3)
    assert torch.allclose(principal_components.project(once, moments.mean, basis, 3), once)
    again = moments_of(found, batch=3)
    assert torch.allclose(
        principal_components.project(rows, again.mean, principal_components.basis(again.covariance), 3), once
    )


def test_pooling_and_projecting_commute():
    found = activations()
    moments = moments_of(found)
    basis = principal_components.basis(moments.covariance)
    rows = principal_components.project(principal_components.channel_rows(found), moments.mean, basis, 2)
    first = rows.view(20, 4, 4, 6).mean((1, 2))
    assert torch.allclose(principal_components.project(found.mean((2, 3)), moments.mean, basis, 2), first)


def test_a_probe_of_full_rank_is_the_unrestricted_one_and_one_of_rank_r_reads_r_directions():
    features, labels = blobs()
    moments = principal_components.Moments.of(features)
    directions = Directions(moments.mean, principal_components.basis(moments.covariance))
    rows = torch.arange(300)
    ranked = fit(
        TAP,
        [Features(features)],
        [Group(rows, labels, rank=rank) for rank in (6, 2, 0)],
        [Setting(1e-2)],
        3,
        ProbeRecipe(epochs=5),
        directions,
    )
    plain = fit(TAP, [Features(features)], [Group(rows, labels)], [Setting(1e-2)], 3, ProbeRecipe(epochs=5))
    logits = [ranked.of_group(place).logits(features)[0] for place in range(3)]
    assert torch.allclose(logits[0], plain.of_group(0).logits(features)[0], atol=1e-4)
    centred = logits[1] - logits[1].mean(0)
    assert torch.linalg.matrix_rank(centred, atol=1e-3) <= 2
    assert torch.allclose(logits[2], logits[2][:1].expand(300, 3), atol=1e-4)


# --- stacked training


def test_stacked_adam_equals_separate_runs_of_torchs():
    features, labels = blobs()
    settings = [Setting(1e-2), Setting(1e-3, l1=1e-2), Setting(3e-3, l2=0.1), Setting(1e-3)]
    stack = Stack(initial(6, 3, [0, 1], 4), settings, weight_decay=1e-2)
    probes = []
    for seed in (0, 1):
        for number, setting in enumerate(settings):
            probe = torch.nn.Linear(6, 3)
            start = initial(6, 3, [seed], 1)
            probe.weight.data, probe.bias.data = start.weights[0, 0].clone(), start.biases[0, 0].clone()
            optimizer = torch.optim.Adam(probe.parameters(), lr=setting.lr, weight_decay=1e-2)
            probes.append((seed, number, setting, probe, optimizer))
    for step in range(50):
        rows = [torch.randperm(300, generator=torch.Generator().manual_seed(10 * step + seed))[:16] for seed in (0, 1)]
        stack.step(torch.stack([features[part] for part in rows]), torch.stack([labels[part] for part in rows]))
        for seed, _, setting, probe, optimizer in probes:
            loss = F.cross_entropy(probe(features[rows[seed]]), labels[rows[seed]])
            loss = loss + setting.l1 * probe.weight.abs().sum() + setting.l2 / 2 * probe.weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for seed, number, _, probe, _ in probes:
        assert torch.allclose(stack.probes.weights[seed, number], probe.weight, atol=1e-5)
        assert torch.allclose(stack.probes.biases[seed, number], probe.bias, atol=1e-5)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_large_probes_are_updated_as_small_ones_are(solver, monkeypatch):
    features, labels = blobs(40, d=50)
    found = []
    for large in (7, 10**6):
        monkeypatch.setattr("lib.probing.stacked_probes.LARGE", large)
        stack = Stack(initial(50, 3, [0, 1], 2), [Setting(1e-2, l1=1e-2), Setting(1e-3, l2=0.1)], solver, weight_decay=0.1)
        for _ in range(5):
            stack.step(features.expand(2, 40, 50), labels.expand(2, 40), 0.5)
        found.append(stack.now())
    assert torch.allclose(found[0].weights, found[1].weights, atol=1e-6)
    assert torch.allclose(found[0].biases, found[1].biases, atol=1e-6)


def stated_loss(probe, features, labels, setting) -> torch.Tensor:
    """L of `lib.probing.stacked_probes` of one probe, as it stands there."""
    logits = probe.logits(features).log_softmax(1)
    weights = [value for name, value in vars(probe).items() if "weights" in name]
    loss = -logits[torch.arange(len(labels)), labels].mean()
    loss = loss + setting.norm * torch.cat([one.flatten() for one in weights]).norm()
    return loss + sum(setting.l1 * one.abs().sum() + setting.l2 / 2 * one.square().sum() for one in weights)


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("large", [1, 10**6])
def test_gradients_are_those_of_the_stated_loss(hidden, large, monkeypatch):
    monkeypatch.setattr("lib.probing.stacked_probes.LARGE", large)
    settings = [Setting(0.1, norm=0.4), Setting(0.2, l1=0.3), Setting(0.05, l2=0.7), Setting(1.0, l1=0.1, l2=0.2, norm=0.3)]
    start = initial_mlp(6, hidden, 3, [0, 1], 4) if hidden else initial(6, 3, [0, 1], 4)
    features, labels = (values.view(2, 16, *values.shape[1:]) for values in blobs(32))
    values = [value.clone().requires_grad_() for value in vars(start).values()]
    for group in range(2):
        for number, setting in enumerate(settings):
            probe = type(start)(*[value[group, number] for value in values])
            stated_loss(probe, features[group], labels[group], setting).backward()
    stack = Stack(start, settings, "sgd", momentum=0)
    stack.step(features, labels)
    rates = torch.tensor([setting.lr for setting in settings])
    for before, after in zip(values, stack.values, strict=True):
        moved = (before.detach() - after) / rates.view(1, 4, *[1] * (before.ndim - 2))
        assert torch.allclose(moved, before.grad, atol=1e-5)


def test_the_norm_itself_pulls_by_its_weight_however_long_the_weights_are_and_not_at_zero():
    features, labels = torch.zeros(1, 8, 6), torch.zeros(1, 8, dtype=torch.int64)  # no slope but that of the penalty
    for length in (0.0, 1e-3, 1.0, 100.0):
        start = Linear(torch.full((1, 1, 3, 6), length / 18**0.5), torch.zeros(1, 1, 3))
        stack = Stack(start, [Setting(1e-3, norm=0.5)], "sgd", momentum=0)
        stack.step(features, labels)
        pulled = (start.weights - stack.probes.weights).norm().item() / 1e-3
        assert pulled == pytest.approx(0.5 if length else 0.0, rel=1e-2)


def test_the_slope_of_proximal_gradients_is_that_of_the_stated_loss():
    features, labels = blobs(40)
    ones, mask = torch.cat([features, torch.ones(40, 1)], 1).double(), torch.ones(7, dtype=torch.float64)
    mask[-1] = 0
    value = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()
    for number, l2 in enumerate((0.3, 0.0)):
        probe = Linear(value[number, :, :-1], value[number, :, -1])
        stated_loss(probe, features.double(), labels, Setting(l2=l2)).backward()
    slope = _slope(ones, labels, value.detach(), value.new_tensor([0.3, 0.0]).view(2, 1, 1), mask)
    assert torch.allclose(slope, value.grad, atol=1e-12)


def test_errors_that_underflow_are_none_and_change_no_update():
    logits = torch.tensor([0.0, -30.0, -50.0, -95.0]).view(1, 1, 1, 4)
    error = _error(logits, torch.tensor([[0]]))[0, 0, 0]
    expected = logits.double().softmax(-1)[0, 0, 0] - torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    assert torch.allclose(error.double(), expected, atol=1e-7)
    assert error[1] > 0 and error[2:].tolist() == [0, 0]


def test_stacked_sgd_equals_torchs_with_momentum():
    features, labels = blobs()
    stack = Stack(initial(6, 3, [0], 1), [Setting(1e-2)], solver="sgd", momentum=0.9)
    probe = torch.nn.Linear(6, 3)
    probe.weight.data, probe.bias.data = stack.probes.weights[0, 0].clone(), stack.probes.biases[0, 0].clone()
    optimizer = torch.optim.SGD(probe.parameters(), lr=1e-2, momentum=0.9)
    for step in range(30):
        part = slice(step * 10, step * 10 + 10)
        stack.step(features[None, part], labels[None, part])
        optimizer.zero_grad()
        F.cross_entropy(probe(features[part]), labels[part]).backward()
        optimizer.step()
    assert torch.allclose(stack.probes.weights[0, 0], probe.weight, atol=1e-5)


def test_a_probe_depends_on_no_other_layer_setting_seed_or_chunk():
    features, labels = blobs()
    rows = torch.arange(300)
    settings, recipe = [Setting(1e-2), Setting(1e-3)], ProbeRecipe(epochs=3)
    groups = [Group(rows, labels, seed) for seed in (0, 1)]
    together = fit(TAP, [Features(features)], groups, settings, 3, recipe).probes
    alone = fit(TAP, [Features(features)], groups[1:], settings[1:], 3, recipe).probes
    assert torch.allclose(together.weights[1, 1], alone.weights[0, 0], atol=1e-6)
    little_memory = fit(TAP, [Features(features)], groups, settings, 3, ProbeRecipe(epochs=3, gib=1e-9)).probes
    assert torch.equal(little_memory.weights, together.weights)
    fit(Tap("other", "gap"), [Features(features.flip(1))], groups, settings, 3, recipe)
    assert torch.equal(fit(TAP, [Features(features)], groups, settings, 3, recipe).probes.weights, together.weights)


def test_half_precision_features_give_the_accuracy_of_single_precision_ones():
    features, labels = blobs(3000, d=20, k=5)
    rows, found = torch.arange(1500), []
    for kept in (Features(features), Features((features / 2**-8).half(), 2.0**-8)):
        fitted = fit(TAP, [kept], [Group(rows, labels[:1500])], [Setting(1e-2)], 5, ProbeRecipe(epochs=5))
        found.append((predictions(fitted.of_group(0), kept)[0, 1500:] == labels[1500:]).double().mean().item())
    assert found[0] == pytest.approx(found[1], abs=0.001) and found[0] > 0.8


def test_a_probe_of_zeros_answers_the_first_class_with_the_loss_of_a_guess():
    for classes, loss in ((10, 2.302585), (2, 0.693147)):
        labels = torch.arange(60) % classes
        fitted = fit(
            TAP,
            [Features(torch.randn(60, 4))],
            [Group(torch.arange(60), labels)],
            [Setting()],
            classes,
            ProbeRecipe(epochs=0, start="zero"),
        )
        logits = fitted.of_group(0).logits(torch.randn(60, 4))[0]
        assert F.cross_entropy(logits, labels).item() == pytest.approx(loss, abs=1e-6)
        assert (logits.argmax(1) == labels).double().mean() == (labels == 0).double().mean()


@pytest.mark.parametrize("scales, bound", [((10, 1, 0.1, 1, 1, 0), 1e-4), ((1e3, 1, 1e-3, 1, 1, 0), 1e-3)])
def test_standardisation_is_folded_into_the_probe(scales, bound):
    features, labels = blobs()
    features = features * torch.tensor(scales) + 5
    mean, deviation = features.double().mean(0), features.double().std(0, correction=0)
    deviation[5] = 1
    standard = ((features - mean) / deviation).float()
    rows = torch.arange(300)
    folded = fit(
        TAP, [Features(features)], [Group(rows, labels)], [Setting(1e-2)], 3, ProbeRecipe(epochs=3, standardise=True)
    )
    explicit = fit(TAP, [Features(standard)], [Group(rows, labels)], [Setting(1e-2)], 3, ProbeRecipe(epochs=3))
    assert torch.allclose(folded.of_group(0).logits(features), explicit.of_group(0).logits(standard), atol=bound)


def test_probes_of_separated_classes_reach_the_bayes_accuracy():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(4000) % 2
    features = torch.randn(4000, 5, generator=draw)
    features[:, 0] += 2.0 * labels - 1
    expected = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    for solver, setting in (
        ("adam", Setting(1e-2)),
        ("lbfgs", Setting(None, 0, 1e-3)),
        ("ridge", Setting(None, 0, 1e-3)),
        ("prox", Setting(None, 1e-3, 0)),
    ):
        fitted = fit(
            TAP,
            [Features(features)],
            [Group(torch.arange(2000), labels[:2000])],
            [setting],
            2,
            ProbeRecipe(solver=solver, epochs=5 if solver == "adam" else 500),
        )
        right = predictions(fitted.of_group(0), Features(features[2000:])) == labels[2000:]
        assert right.double().mean().item() == pytest.approx(expected, abs=3 * math.sqrt(0.84 * 0.16 / 2000)), solver


def test_shuffled_labels_leave_chance():
    features, labels = blobs(1000, k=10)
    shuffled = labels[torch.randperm(1000, generator=torch.Generator().manual_seed(5))]
    groups = [Group(torch.arange(500), shuffled[:500])]
    fitted = fit(TAP, [Features(features)], groups, [Setting(1e-2)], 10, ProbeRecipe(epochs=10))
    right = predictions(fitted.of_group(0), Features(features[500:])) == shuffled[500:]
    assert right.double().mean().item() == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 500))


def test_class_means_are_the_nearest_by_euclidean_distance():
    features, labels = blobs()
    learnt = TrainingSet(0, 0, torch.arange(300), labels, torch.zeros(300, dtype=torch.int64))
    linear = class_means(CachedSource({TAP: Features(features)}), [TAP], learnt, 3)[TAP]
    means = torch.stack([features[labels == label].mean(0) for label in range(3)])
    assert torch.equal(predictions(linear, Features(features))[0].long(), torch.cdist(features, means).argmin(1))


# --- solvers


def test_primal_and_dual_logistic_regression_agree():
    features, labels = blobs(40, d=90)
    primal, dual = (lbfgs(features, labels, 3, [1e-1, 1e-2], 2000, dual=dual) for dual in (False, True))
    assert torch.allclose(primal.logits(features.double()), dual.logits(features.double()), atol=1e-6)

    def objective(probe, place, penalty):
        loss = F.cross_entropy(probe.logits(features.double())[place], labels)
        return loss + penalty / 2 * probe.weights[place].square().sum()

    for place, penalty in enumerate((1e-1, 1e-2)):
        assert objective(primal, place, penalty) == pytest.approx(objective(dual, place, penalty).item(), abs=1e-8)


def test_too_few_iterations_of_lbfgs_are_named(recwarn):
    features, labels = blobs(200, d=20)
    lbfgs(features, labels, 3, [1e-1], 500)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="--solver lbfgs: 2 iterations leave a gradient of .*; more -e come nearer"):
        lbfgs(features, labels, 3, [1e-4], 2)


@pytest.mark.parametrize("n, d", [(60, 5), (20, 40)])
def test_ridge_solves_its_normal_equations_and_leaves_each_example_out_exactly(n, d):
    features, labels = blobs(n, d=d)
    solved = ridge(features, labels, 3, [0.1, 1e-3])
    x = torch.cat([features, torch.ones(n, 1)], 1).double()
    targets = F.one_hot(labels, 3).double()
    for place, penalty in enumerate((0.1, 1e-3)):
        shrink = n * penalty * torch.eye(d + 1, dtype=torch.float64)
        shrink[-1, -1] = 0
        slow = torch.linalg.solve(x.T @ x + shrink, x.T @ targets)
        assert torch.allclose(solved.linear.weights[place], slow[:-1].T, atol=1e-8)
        for out in range(n):
            keep = torch.arange(n) != out
            left = torch.linalg.solve(x[keep].T @ x[keep] + shrink, x[keep].T @ targets[keep])
            assert (x[out] @ left).argmax() == solved.left_out[place, out]


def test_the_proximal_solver_meets_the_optimality_conditions_with_exact_zeros():
    features, labels = blobs(200, d=12)
    penalties = [(0.05, 0.0), (0.01, 0.1)]
    linear = proximal(features, labels, 3, penalties, 5000)
    x = torch.cat([features, torch.ones(200, 1)], 1).double()
    value = torch.cat([linear.weights, linear.biases[..., None]], 2)
    l1, l2 = (x.new_tensor(column).view(-1, 1, 1) for column in zip(*penalties, strict=True))
    mask = x.new_ones(13)
    mask[-1] = 0
    assert (violation(x, labels, value, l1, l2, mask) <= 1e-4 * l1).all()
    assert (linear.weights[0] == 0).sum() > 0
    weight = linear.weights.clone().requires_grad_()
    logits = features.double() @ weight[0].T + linear.biases[0]
    F.cross_entropy(logits, labels).backward()
    nonzero = linear.weights[0] != 0
    assert torch.allclose(weight.grad[0][nonzero], -0.05 * linear.weights[0].sign()[nonzero], atol=5e-6)


def test_the_spatial_probe_fits_at_least_as_well_as_the_pooled_one_at_the_same_penalty():
    draw = torch.Generator().manual_seed(4)
    maps, labels = torch.randn(80, 3, 2, 2, generator=draw), torch.randint(0, 2, (80,), generator=draw)
    objectives = []
    for features in (maps.flatten(1), maps.mean((2, 3))):
        linear = proximal(features, labels, 2, [(0.01, 0.0)], 5000)
        loss = F.cross_entropy(linear.logits(features.double())[0], labels)
        objectives.append((loss + 0.01 * linear.weights.abs().sum()).item())
    assert objectives[0] <= objectives[1] + 1e-4


def test_a_probe_behind_the_pooling_is_a_spatial_one_with_tiled_weights():
    maps = torch.randn(7, 5, 3, 3)
    pooled = Linear(torch.randn(4, 5), torch.randn(4))
    tiled = Linear((pooled.weights / 9).repeat_interleave(9, 1), pooled.biases)
    assert torch.allclose(tiled.logits(maps.flatten(1)), pooled.logits(maps.mean((2, 3))), atol=1e-5)
    assert tiled.weights.abs().sum().item() == pytest.approx(pooled.weights.abs().sum().item(), rel=1e-6)


def test_the_networks_own_head_tiled_over_space_answers_for_the_layer_before_the_pool():
    whole, split = network(), images()
    head = head_of(whole, Tap("fc", "flatten"))
    layer, pool = Tap("layer3", "flatten"), Tap("avgpool", "flatten")
    found = collected(whole, split, [layer, pool], dtype="fp32").features
    space = found[layer].dim // found[pool].dim
    tiled = Linear((head.weights / space).repeat_interleave(space, 1), head.biases)
    own = whole(split.images.float() / 255)
    for probe, tap in ((tiled, layer), (head, pool)):
        assert torch.allclose(probe.logits(found[tap].rows()), own, atol=1e-5)
    assert tiled.weights.abs().sum().item() == pytest.approx(head.weights.abs().sum().item(), rel=1e-6)


def test_solvers_that_need_all_features_refuse_those_that_do_not_fit():
    features, labels = blobs()
    with pytest.raises(UserError, match="--cache-gib.*--reduce gap"):
        check_memory(TAP, *features.shape, ProbeRecipe(solver="lbfgs", gib=1e-6))
    with pytest.raises(UserError, match="Gram matrices take.*--reduce gap"):
        check_memory(TAP, *features.shape, ProbeRecipe(solver="ridge", gib=1e-6))
    check_memory(TAP, *features.shape, ProbeRecipe(solver="adam", gib=1e-6))
    check_memory(TAP, 10**9, 6, ProbeRecipe(solver="ridge", gib=1e-2))


# --- roles and rules


@pytest.mark.parametrize("protocol", sorted(CLEAN))
def test_roles_share_no_image_and_leave_none_out(protocol):
    shares = divide(torch.arange(100, 1100), protocol, "clean", seed=3).ids
    found = torch.cat(list(shares.values()))
    assert len(found) == 1000 and torch.equal(found.sort().values, torch.arange(100, 1100))


def nineteen_shifts() -> list[Shift]:
    """Corruptions of the same 10,000 images."""
    split = Split("made up", "test", torch.zeros(10000, 1, 1, 1, dtype=torch.uint8), torch.arange(10000) % 10)
    return [Shift(f"shift {number}", split, "made-up:test") for number in range(19)]


def test_the_papers_zero_shot_division_tests_on_all_10000_images_of_which_1000_choose_too():
    shifts = nineteen_shifts()
    shares = [shift.shares("zero-shot", "paper", 0) for shift in shifts]
    chosen = shifts[0].role("probe-val", shares[0])[1]
    assert len(chosen) == 1000
    for shift, of_shift in zip(shifts, shares, strict=True):
        assert torch.equal(shift.role("test", of_shift)[1], torch.arange(10000))
        assert all(torch.equal(shift.role(role, of_shift)[1], chosen) for role in ("probe-val", "layer-val"))


def test_clean_few_shot_images_are_each_under_one_corruption():
    shifts, protocol = nineteen_shifts(), ProbeProtocol(name="few-shot", shared=True)
    shares = {(number, 0): shift.shares("few-shot", "clean", 0) for number, shift in enumerate(shifts)}
    drawn = training_sets.outside(protocol, shifts, shares, 10)
    learnt = torch.cat([one.positions for one in drawn])
    assert len(learnt.unique()) == len(learnt) == 19 * 157


def test_the_papers_few_shot_division_draws_52_of_1000_images_for_each_corruption_and_tests_on_9000():
    shifts = nineteen_shifts()
    protocol = ProbeProtocol(name="few-shot", roles="paper", shared=True)
    shares = {(number, 0): shift.shares("few-shot", "paper", 0) for number, shift in enumerate(shifts)}
    drawn = training_sets.outside(protocol, shifts, shares, 10)
    (joined,), _ = training_sets.pooled(drawn)
    learnt = torch.cat([one.positions for one in drawn])
    assert {len(one.positions) for one in drawn} == {52} and len(joined.positions) == 988
    # as many different ones as independent draws leave: 1000 (1 - (1 - 0.052)^19) = 637
    assert 600 < len(learnt.unique()) < 670
    for number, shift in enumerate(shifts):
        _, tested = shift.role("test", shares[number, 0])
        assert len(tested) == 9000 and not torch.isin(tested, learnt).any()


def test_an_image_in_two_roles_is_refused():
    with pytest.raises(UserError, match="2 images of digits:train are probe-train as well as test"):
        refuse_overlap({"probe-train": {"digits:train": {1, 2, 3}}, "test": {"digits:train": {2, 3, 9}}})
    refuse_overlap({"probe-train": {"digits:train": {1, 2, 3}}, "test": {"digits:test": {2, 3, 9}}})


def test_draws_are_balanced_nested_and_never_empty():
    labels = torch.tensor([0] * 20 + [1] * 6 + [2] * 3)
    drawn = draw_balanced(torch.arange(29), labels, 0)
    assert torch.bincount(labels[drawn]).tolist() == [3, 3, 3]
    assert torch.bincount(labels[draw_shots(labels, torch.arange(29), 3, 2, 0)]).tolist() == [2, 2, 2]
    pool = torch.arange(50, 90)
    assert set(draw_fraction(pool, 5, 1).tolist()) < set(draw_fraction(pool, 20, 1).tolist())
    with pytest.raises(UserError, match="less than one image"):
        draw_fraction(pool, 0, 1)
    with pytest.raises(UserError, match="only 3 images of class 2"):
        draw_shots(labels, torch.arange(29), 3, 4, 0)


def test_rules_choose_by_their_own_images_and_count_what_they_searched():
    probe_val, layer_val = [[0.1, 0.5], [0.6, 0.2], [0.3, 0.4]], [[0.9, 0.2], [0.3, 0.9], [0.1, 0.8]]
    chosen = selection.choose("ood-val", probe_val, layer_val, 3)
    assert chosen == selection.Choice(2, (1, 0, 1), 6)
    assert selection.choose("last-but-one", probe_val, None, 3) == selection.Choice(1, (1, 0, 1), 2)
    assert selection.choose("oracle", [[float("nan"), 0.1], [0.1, float("nan")]], [[0, 0.1], [0.1, 0]], 2).site == 0
    assert selection.roles_of("ood-val", "zero-shot", {"probe-val", "layer-val", "test"}, 4) == ("probe-val", "layer-val")
    with pytest.raises(UserError, match="no images for it"):
        selection.roles_of("ood-val", "few-shot", {"test"}, 4)


# --- export


@pytest.mark.parametrize(
    "name, layer, reduce",
    [
        ("resnet20", "layer2.1", "gap"),
        ("resnet20", "layer1", "flatten"),
        ("vit_tiny_patch4_32", "blocks.1", "cls"),
        ("lenet", "features.4", "grid:2"),
    ],
)
def test_an_exported_network_is_the_front_with_the_probe_and_never_runs_the_rest(name, layer, reduce, tmp_path):
    whole, split = network(name), images(6)
    description = checkpoints.Description(
        architecture=name, classes=tuple("0123456789"), channels=3, image_size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
    )
    tap = Tap(layer, reduce)
    features = collected(whole, split, [tap], dtype="fp32", batch_size=6).features[tap]
    probe = Linear(torch.randn(4, features.dim), torch.randn(4))
    export.export(tmp_path / "probe.pt", whole, description, tap, probe, tuple("abcd"), 32)
    loaded = checkpoints.load(tmp_path / "probe.pt")
    with torch.no_grad():
        logits = loaded.network(split.images.float() / 255)
    assert torch.allclose(logits, probe.logits(features.rows()), atol=1e-4)
    names = {key for key, _ in loaded.network.body.named_modules() if key and not key.startswith("probe")}
    front = {key.removeprefix("network.body.") for key, _ in cutting.cut(whole, layer)[0].named_modules()}
    assert names == front - {"", "network", "network.body"}
    with torch.no_grad():
        front, back = cutting.cut(loaded.network, layer)
        assert torch.equal(back(front(split.images.float() / 255)), logits)
