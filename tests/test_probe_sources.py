"""Features that are kept, mapped, augmented or computed again: the probes are the same, the memory is bounded."""

import dataclasses
import os
import threading
from collections import OrderedDict

import pytest
import readme
import torch
from conftest import script
from test_probe_script import probe, rows
from test_probes import TAP, blobs, collected, images, network

from lib.core.errors import UserError
from lib.core.randomness import generator
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models import cutting
from lib.models.reducers import reducer
from lib.probing.feature_sources import ProbeSite, StreamedSource, limited_in_batch
from lib.probing.fit import Group, ProbeRecipe, fit
from lib.probing.solvers import GramRidge, ridge
from lib.probing.stacked_probes import Setting, Stack, initial
from lib.probing.streamed_fit import fit_streamed
from lib.probing.training_sets import TrainingSet
from lib.representations import feature_cache, principal_components
from lib.representations.features import Features, Tap, Views, layer_reducer
from lib.representations.passes import View

FEW = ("-ood", "digits-c/fog-3", "digits-c/contrast-3", "--protocol", "few-shot", "--fraction", "0.2")


@pytest.mark.parametrize(
    "words",
    [
        ("-ood", "digits-c/fog-3", "-lr", "1e-3", "1e-2", "--standardise", "-s", "0", "1"),
        ("-ood", "digits-c/fog-3", "--solver", "ridge", "--l2", "0.01", "1", "--standardise"),
        ("-l", "features.9", "features.14", "-ranks", "2", "16", "-lr", "1e-2"),
        (*FEW, "--keep-epochs", "1"),
        (*FEW, "--tuning", "shared", "--solver", "sgd"),
    ],
    ids=lambda words: " ".join(words),
)
def test_streamed_probes_are_those_of_kept_features(trained, words):
    common = (
        "models/a/model_2.pt",
        "-e",
        "3",
        "--reduce",
        "gap",
        "--cache-type",
        "fp32",
        *(() if "-l" in words else ("-l", "features.4", "features.14")),
        *words,
    )
    kept = probe(trained, *common, "--name", "kept", "--overwrite")
    streamed = probe(trained, *common, "--cache-limit", "0", "--name", "streamed", "--overwrite")
    assert len(kept["rows"]) == len(streamed["rows"]) > 3
    for one, other in zip(kept["rows"], streamed["rows"], strict=True):
        assert {key: one[key] for key in ("probe", "layer", "rank", "selected_by", "seed", "n")} == {
            key: other[key] for key in ("probe", "layer", "rank", "selected_by", "seed", "n")
        }
        if one["correct"] is not None:
            assert abs(one["correct"] - other["correct"]) <= 1  # an image between two classes, by rounding


def test_half_precision_features_that_are_kept_answer_like_streamed_ones(trained):
    common = (
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "-l",
        "features.4",
        "features.14",
        "-e",
        "5",
        "--select",
        "none",
    )
    kept, streamed = (
        probe(trained, *common, *words, "--overwrite", "--name", "half")
        for words in (("--cache-type", "fp16"), ("--cache-limit", "0"))
    )
    for one, other in zip(rows(kept, probe="probe"), rows(streamed, probe="probe"), strict=True):
        assert one["layer"] == other["layer"] and abs(one["correct"] - other["correct"]) <= 1  # of 355 images


def test_probes_that_train_together_in_one_stream_are_those_that_train_alone():
    whole, split, recipe = network(), images(40), ProbeRecipe(epochs=2, batch_size=16)
    taps = [Tap("layer1", "gap"), Tap("layer3", "gap")]

    def trained_on(chosen):
        reduce = {tap.layer: layer_reducer({tap: reducer(tap.reduce)}) for tap in chosen}
        source = StreamedSource(whole, split, reduce, {taps[0]: 16, taps[1]: 64}, Batching(quiet=True))
        learnt = TrainingSet(0, 0, torch.arange(40), split.labels, split.groups)
        sites = {tap: [ProbeSite(tap)] for tap in chosen}
        fitted = fit_streamed(source, learnt, sites, [Setting(1e-2)], 10, recipe, {}, {})
        return {tap: probes.of_group(0).weights for tap, probes in fitted.items()}

    together = trained_on(taps)
    for tap in taps:
        assert torch.equal(trained_on([tap])[tap], together[tap])


def test_streaming_leaves_no_features_behind_and_says_what_it_cannot_do(trained, tmp_path):
    common = (
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "-l",
        "features.9",
        "-e",
        "1",
        "--cache-limit",
        "0",
        "--cache-dir",
        str(tmp_path / "cache"),
    )
    probe(trained, *common, "--name", "streamed-alone", "--overwrite")
    assert not (tmp_path / "cache" / "features").exists()
    for words, fragment in (
        (("--solver", "lbfgs"), "--solver lbfgs: the 1298 x 1024 features of layer features.9"),
        (("--solver", "prox", "--l1", "1e-3"), "needs all of them at once"),
        (("--solver", "ridge", "--l2", "1", "--cache-gib", "0.01"), "its Gram matrices take"),
    ):
        with pytest.raises(UserError) as caught:
            probe(trained, *common, *words)
        assert fragment in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("n, d", [(60, 5), (20, 40)])
def test_ridge_from_streamed_gram_matrices_is_ridge_with_its_exact_leave_one_out(n, d):
    features, labels = blobs(n, d=d)
    penalties, gram = [1e-3, 0.1, 10.0], GramRidge(3)
    for part in torch.arange(n).split(7):
        gram.add(features[part], labels[part])
    whole, streamed = ridge(features, labels, 3, penalties), gram.solve(penalties)
    assert torch.allclose(streamed.linear.weights, whole.linear.weights, atol=1e-8)
    assert torch.allclose(streamed.linear.biases, whole.linear.biases, atol=1e-8)
    left_out = torch.cat([streamed.left_out(features[part], labels[part]) for part in torch.arange(n).split(11)], 1)
    assert torch.equal(left_out, whole.left_out)


def test_ridge_on_features_too_large_for_memory_goes_through_its_gram_matrix():
    features, labels = blobs(400, d=6)
    group, settings = [Group(torch.arange(400), labels)], [Setting(None, 0, 0.1)]
    plain, little = (
        fit(TAP, [Features(features)], group, settings, 3, ProbeRecipe(solver="ridge", gib=gib)) for gib in (1, 1e-5)
    )
    assert torch.allclose(plain.probes.weights, little.probes.weights, atol=1e-5)
    assert torch.equal(plain.left_out, little.left_out)


def test_the_readmes_example_probes_a_module_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    module = torch.nn.Sequential(
        OrderedDict(
            block1=torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()),
            block2=torch.nn.Conv2d(8, 4, 3),
            pool=torch.nn.AdaptiveAvgPool2d(1),
            flat=torch.nn.Flatten(),
            head=torch.nn.Linear(4, 10),
        )
    ).eval()
    bright = torch.arange(400) % 10
    split = Split("made up", "all", (25 * bright)[:, None, None, None].expand(400, 3, 8, 8).to(torch.uint8), bright)
    names = {"my_module": module, "train_split": split, "val_split": split.subset(torch.arange(50))}
    section = readme.documentation().partition("From Python, on any module")[2]
    exec(section.partition("```python\n")[2].partition("```")[0], names)
    table, short, images = names["table"], names["short"], split.images[:50] / 255
    best = max(value for row in table for value in row)
    assert 0.2 < best == table[names["choice"].site][names["setting"]]
    assert (short(images).argmax(1) == bright[:50]).double().mean().item() == pytest.approx(best, abs=0.021)
    assert not any(name.endswith("head") for name, _ in short.named_modules())


class Flat(torch.nn.Module):
    """A network whose only layer hands its images on."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Linear(1, 1)
        self.tapped = torch.nn.Flatten()

    def forward(self, x):
        return self.tapped(x)


def anonymous_gib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 2**20


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's account of memory")
def test_memory_stays_within_the_limit_whatever_the_features_take(tmp_path):
    split, tap = images(1500, 128), Tap("tapped", "flatten")  # 1,500 x 49,152: 0.14 GiB kept, 0.27 GiB in single precision
    before, peak, done = anonymous_gib(), [0.0], threading.Event()

    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_gib() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    features = collected(Flat(), split, [tap], cache_dir=tmp_path, gib=0.05, batch_size=50).features[tap]
    found = fit(
        tap, [features], [Group(torch.arange(1500), split.labels)], [Setting(1e-4)], 10, ProbeRecipe(epochs=1, gib=0.05)
    ).of_group(0)
    done.set()
    watcher.join()
    assert found.weights.shape == (1, 10, 49152) and peak[0] < 0.15, peak


def test_directions_of_a_batch_are_those_of_its_own_decomposition_and_change_with_the_batch():
    whole, split = network(), images(6)
    with torch.no_grad():
        output = cutting.cut(whole, "layer3")[0](split.images.float() / 255)
    tap, ranks = Tap("layer3", "gap"), (1, 3, 64)
    limited = limited_in_batch({tap: reducer("gap")}, ranks)
    for batch in (output, output[:3]):
        found = limited(batch)
        positions = principal_components.channel_rows(batch)
        mean = positions.mean(0)
        left, lengths, right = torch.linalg.svd((positions - mean).double(), full_matrices=False)
        for rank in ranks:
            slow = (left[:, :rank] * lengths[:rank]) @ right[:rank] + mean
            pooled = slow.view(len(batch), -1, 64).mean(1)
            assert torch.allclose(found[ProbeSite(tap, rank)].double(), pooled, atol=1e-4)
        assert torch.equal(found[tap], batch.mean((2, 3)))
    assert not torch.allclose(limited(output)[ProbeSite(tap, 3)][:3], limited(output[:3])[ProbeSite(tap, 3)], atol=1e-3)


@pytest.mark.parametrize("rows, channels", [(12, 40), (40, 12), (1, 6), (5, 5)])
def test_directions_come_from_the_smaller_matrix_and_restrict_as_those_of_all_channels(rows, channels, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(rows, channels, generator=draw) * torch.logspace(0, -4, channels) + 3
    values[-1] = values[0]  # fewer directions than rows
    moments = principal_components.Moments.of(values)
    whole = principal_components.basis(moments.covariance)
    sizes, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: sizes.append(len(matrix)) or eigh(matrix))
    mean, found = principal_components.directions(values)
    assert sizes == [min(rows, channels)] and torch.allclose(mean, moments.mean)
    assert torch.allclose(found.T @ found, torch.eye(found.shape[1], dtype=torch.float64), atol=1e-12)
    for rank in (1, 3, channels):
        one, other = (principal_components.project(values.double(), mean, basis, rank) for basis in (found, whole))
        assert torch.allclose(one, other, atol=1e-6)


def test_ranks_per_batch_are_run_as_published_and_at_full_rank_are_the_plain_probe(trained):
    common = (
        "models/a/model_2.pt",
        "-l",
        "features.9",
        "features.14",
        "--reduce",
        "gap",
        "-e",
        "8",
        "-lr",
        "1e-2",
        "--cache-type",
        "fp32",
        "-ranks",
        "1",
        "2",
        "3",
        "4",
        "16",
    )
    fixed, batch = probe(trained, *common), probe(trained, *common, "--rank-basis", "per-batch")
    found = [
        {(row["layer"], row["rank"]): row["correct"] for row in rows(record, probe="probe")} for record in (fixed, batch)
    ]
    assert found[0].keys() == found[1].keys() and len(found[0]) == 10
    assert abs(found[0]["features.9", 16] - found[1]["features.9", 16]) <= 1  # all 16 channels
    assert any(found[0][key] != found[1][key] for key in found[0] if key[1] < 16)
    with pytest.raises(UserError, match="--rank-basis per-batch: for -ranks"):
        probe(trained, "models/a/model_2.pt", "--rank-basis", "per-batch")


def test_an_epoch_learns_from_its_view_and_views_differ(tmp_path):
    features, labels = blobs(40)
    other = features.flip(0)
    views, recipe = Views((Features(features), Features(other))), ProbeRecipe(epochs=3, batch_size=16)
    found = fit(TAP, [views], [Group(torch.arange(40), labels, views=2)], [Setting(1e-2)], 3, recipe).of_group(0)
    stack = Stack(initial(6, 3, [0], 1), [Setting(1e-2)])
    for epoch, seen in ((1, features), (2, other), (3, features)):
        order = torch.randperm(40, generator=generator(0, "probe order", epoch))
        for part in order.split(16):
            stack.step(seen[part][None], labels[part][None])
    assert torch.allclose(found.weights[0], stack.probes.weights[0, 0], atol=1e-6)
    split = dataclasses.replace(images(8), augmentation="crop-flip")
    taps = [Tap("conv1", "flatten")]
    kept = [
        collected(network(), split, taps, view=view, cache_dir=tmp_path).features[taps[0]].rows()
        for view in (None, View(0, 0), View(1, 0), View(0, 0))
    ]
    assert torch.equal(kept[1], kept[3]) and not torch.equal(kept[0], kept[1]) and not torch.equal(kept[1], kept[2])


def test_augmented_views_are_kept_and_validation_images_stay_as_they_are(trained):
    words = (
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "-l",
        "features.9",
        "features.14",
        "--reduce",
        "gap",
        "--select",
        "id-val",
        "--augment",
        "2",
    )
    kept = probe(trained, *words, "-e", "2")
    streamed = probe(trained, *words, "-e", "2", "--cache-limit", "0", "--name", "streamed-views")
    assert rows(kept, probe="gain")[0]["n"] == 319 and len(streamed["rows"]) == len(kept["rows"])
    # chosen by held-out images, since a view of an image that is left out is not left out
    assert rows(probe(trained, *words, "--solver", "ridge", "--l2", "0.1", "1"), probe="gain", selected_by="id-val")
    with pytest.raises(UserError, match="--augment: views are of in-distribution images"):
        probe(trained, "models/a/model_2.pt", *FEW, "--augment", "2")


def test_the_cache_forgets_what_was_used_longest_ago(tmp_path):
    whole, tap = network(), [Tap("conv1", "gap")]
    splits = [images(9, seed=seed) for seed in range(3)]
    for number, split in enumerate(splits):
        collected(whole, split, tap, cache_dir=tmp_path)
        os.utime(next(entry.path for entry in feature_cache.entries(tmp_path) if entry.used > 2000), (1000 + number,) * 2)
    collected(whole, splits[0], tap, cache_dir=tmp_path)  # reading counts as use
    listed = feature_cache.entries(tmp_path)
    assert len(listed) == 3 and all("on noise, all" in entry.about and entry.size > 0 for entry in listed)
    gone = feature_cache.prune(tmp_path, sum(entry.size for entry in listed) - 1)
    assert [entry.path for entry in gone] == [listed[0].path]
    seen = [collected(whole, split, tap, cache_dir=tmp_path).images_seen for split in splits]
    assert sorted(seen) == [0, 0, 9] and seen[0] == 0
    assert feature_cache.prune(tmp_path, 0) and not feature_cache.entries(tmp_path)


def test_the_cache_is_listed_pruned_and_cleared_from_the_command_line(trained, tmp_path):
    for part in ("one", "two"):
        (tmp_path / "features" / part).mkdir(parents=True)
        (tmp_path / "features" / part / "x.npy").write_bytes(bytes(2**20))
    listed = script("exec_data.py", "cache", "--cache-dir", tmp_path, cwd=trained)
    assert "2 in all" in listed.stdout and "0.002" in listed.stdout
    done = script("exec_data.py", "cache", "0.0015", "--cache-dir", tmp_path, cwd=trained)
    assert "removed 1 entries" in done.stdout and "1 in all" in done.stdout
    done = script("exec_data.py", "cache", "0", "--cache-dir", tmp_path, cwd=trained)
    assert "0 in all" in done.stdout and not list((tmp_path / "features").iterdir())
    assert script("exec_data.py", "cache", "much", cwd=trained).returncode == 2


def test_a_run_keeps_the_cache_within_its_limit(trained, tmp_path):
    cache = tmp_path / "cache"
    (cache / "features" / "old").mkdir(parents=True)
    (cache / "features" / "old" / "x.npy").write_bytes(bytes(2**22))
    os.utime(cache / "features" / "old", (1000, 1000))
    probe(
        trained,
        "models/a/model_2.pt",
        "-l",
        "features.14",
        "--reduce",
        "gap",
        "-e",
        "1",
        "--cache-dir",
        str(cache),
        "--cache-limit",
        "0.003",
        "--overwrite",
    )
    names = [entry.path.name for entry in feature_cache.entries(cache)]
    assert "old" not in names and len(names) == 2
