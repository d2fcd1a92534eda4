"""Passes over many images continue, after kill -9, behind the last batch that was kept, and come to the same bits."""

import json
import shutil

import background
import numpy as np
import pytest
import torch
from conftest import ROOT
from test_kill import contents
from torch import nn

from lib.core import checked_arrays, saved_state
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.representations import features
from lib.representations.feature_pass import FeaturePass
from lib.representations.features import Storage, Tap, collect, reducers_of

# runs a script that keeps what it has behind every batch, notes each batch, and kills itself when it asks for one more
KILLED = """
import os, runpy, signal, sys
stop, path = int(sys.argv[1]), sys.argv[2]
sys.argv[:3] = sys.argv[2:3]
from lib.core import saved_state
from lib.datasets.batching import Batching
saved_state.SAVE_EVERY = -1.0
passed, whole = [], Batching.with_positions

def noted(self, split, label, **more):
    for batch in whole(self, split, label, **more):
        if len(batch[2]) > 1:  # one image alone tells the sizes of layers
            passed.append(f"{label} {int(batch[2][0])}")
            open("passed", "a").write(passed[-1] + "\\n")
        yield batch
        if len(passed) == stop != 0:
            os.kill(os.getpid(), signal.SIGKILL)

Batching.with_positions = noted
runpy.run_path(os.path.join(ROOT, path), run_name="__main__")
"""

SETTINGS = ("--max-examples", "300", "-b", "64", "-gpu", "-1")
LAYERS = (
    "exec_ood_layers.py",
    "models/a/model_2.pt",
    *("-d", "digits", "-ood", "patches", "--baselines", "all", "--aggregate", "maha", "--choose", "jigsaw"),
    *("--fit-examples", "200", *SETTINGS),
)
PROBES = (
    "exec_probe.py",
    "models/a/model_2.pt",
    *("-d", "digits", "-ood", "digits-c/fog-3", "-l", "features.3,classifier.1", "-ranks", "2", "-e", "2", *SETTINGS),
)


@pytest.fixture(scope="module")
def killing(tmp_path_factory):
    """The script that runs another one, and kills itself."""
    path = tmp_path_factory.mktemp("killing") / "killing.py"
    path.write_text(f"ROOT = {str(ROOT)!r}\nimport sys\nsys.path.insert(0, ROOT)\n{KILLED}")
    return path


@pytest.fixture(scope="module")
def uninterrupted(trained, killing, tmp_path_factory):
    """A function: command -> the folder in which it ran to its end, and the batches that it passed."""
    made = {}

    def find(words):
        if words not in made:
            folder = tmp_path_factory.mktemp("whole") / "it"
            shutil.copytree(trained / "models" / "a", folder / "models" / "a")
            assert background.run([killing, 0, *words], folder) == 0, (folder / "log").read_text()
            made[words] = folder, (folder / "passed").read_text().splitlines()
        return made[words]

    return find


@pytest.mark.parametrize(
    ("words", "stops"),
    [(LAYERS, (2, 4)), (LAYERS, (6, 7)), (PROBES, (2, 1)), (PROBES, (4,))],
    ids=["layers: fitting images", "layers: later passes", "probes: first pass, twice", "probes: second pass"],
)
def test_a_killed_pass_continues_behind_the_last_batch(trained, killing, uninterrupted, tmp_path, words, stops):
    whole, batches = uninterrupted(words)
    shutil.copytree(trained / "models" / "a", tmp_path / "models" / "a")
    for stop in stops:
        assert background.run([killing, stop, *words], tmp_path) == -9
    assert not list((tmp_path / "results").rglob("*.json"))
    assert background.run([killing, 0, *words], tmp_path) == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "passed").read_text().splitlines() == batches  # each once, though of several processes
    assert contents(tmp_path) == contents(whole)
    assert kept_files(tmp_path) == kept_files(whole)


def kept_files(folder) -> dict[str, bytes | None]:
    """The files under the cache, with the numbers in those of features."""
    files = {str(path.relative_to(folder)): path for path in (folder / ".cache").rglob("*") if path.is_file()}
    return {name: path.read_bytes() if path.suffix == ".npy" else None for name, path in files.items()}


NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
BATCHES = Batching(batch_size=4, quiet=True)


def growing(n: int) -> Split:
    """Images that grow brighter, from almost black: the common factor of their features grows with them."""
    images = (2.0 ** (torch.arange(n).view(n, 1, 1, 1) / n * 8)).floor().expand(n, 3, 8, 8).to(torch.uint8)
    return Split("growing", "all", images.contiguous(), torch.zeros(n, dtype=torch.int64))


class Stopped(BaseException):
    """As if the process had been killed: nothing is tidied up."""


def stopped(monkeypatch, after: int, words, **more):
    """`collect`, left as a kill leaves it behind so many batches; the locks of the process end with it."""
    held, passed = [], features.reduced_outputs

    def some(*given, **named):
        for number, one in enumerate(passed(*given, **named)):
            if number == after:
                raise Stopped
            yield one

    with monkeypatch.context() as patched:
        patched.setattr(features, "reduced_outputs", some)
        patched.setattr(FeaturePass, "discard", lambda self: held.append(self))
        patched.setattr(saved_state, "SAVE_EVERY", -1.0)
        with pytest.raises(Stopped):
            collect(NETWORK, *words, **more)
    for writer in held[0].writers.values():
        writer._array.array._held.close()


def unfinished(folder) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.is_file()]


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_features_whose_factor_grows_are_the_same_after_a_stop(tmp_path, monkeypatch, dtype):
    taps = reducers_of([Tap("0", "flatten"), Tap("3", "flatten")])
    split = growing(30)
    whole = collect(NETWORK, split, taps, BATCHES, Storage(cache_dir=tmp_path / "a", dtype=dtype), moments=True)
    storage = Storage(cache_dir=tmp_path / "b", dtype=dtype)
    for after in (3, 2, 2):
        stopped(monkeypatch, after, (split, taps, BATCHES, storage), moments=True)
    assert len(unfinished(tmp_path)) == 3  # two files and what is said of them
    again = collect(NETWORK, split, taps, BATCHES, storage, moments=True)
    for tap in taps:
        assert torch.equal(again.features[tap].stored, whole.features[tap].stored)
        assert again.features[tap].scale == whole.features[tap].scale
    first = collect(NETWORK, split.subset(range(4)), taps, BATCHES, Storage(dtype=dtype)).features[Tap("0", "flatten")]
    assert (whole.features[Tap("0", "flatten")].scale > first.scale) == (dtype == "fp16")
    for layer, moments in whole.moments.items():
        assert torch.equal(again.moments[layer].products, moments.products)
    assert not unfinished(tmp_path)


@pytest.mark.parametrize("other", ["layers", "batches"])
def test_what_cannot_be_continued_is_cleared(tmp_path, monkeypatch, other):
    split, storage = growing(30), Storage(cache_dir=tmp_path)
    stopped(monkeypatch, 3, (split, reducers_of([Tap("0", "flatten")]), BATCHES, storage))
    assert len(unfinished(tmp_path)) == 2
    batches = Batching(batch_size=5, quiet=True) if other == "batches" else BATCHES
    taps = reducers_of([Tap("0", "flatten"), Tap("1", "gap")] if other == "layers" else [Tap("0", "flatten")])
    found = collect(NETWORK, split, taps, batches, storage)
    expected = collect(NETWORK, split, taps, batches)
    assert all(torch.equal(found.features[tap].stored, expected.features[tap].stored) for tap in taps)
    assert not unfinished(tmp_path)


def test_what_a_living_process_writes_is_not_cleared(tmp_path):
    alive = checked_arrays.NewArray(tmp_path / "alive.npy", (4,), np.uint8)
    dead = checked_arrays.NewArray(tmp_path / "dead.npy", (4,), np.uint8)
    dead._held.close()
    checked_arrays.kept(tmp_path / "new.npy", (4,), np.uint8, lambda numbers: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.temporary.name, "new.npy"])
    with pytest.raises(UserError, match="not the unfinished file that it was"):
        checked_arrays.NewArray(tmp_path / "alive.npy", (5,), np.uint8, alive.temporary.name)


def test_a_journal_is_read_up_to_the_part_that_a_kill_has_cut_off(tmp_path):
    path = tmp_path / "it.partial"
    journal = saved_state.Journal(path, "key")
    sizes = []
    for number in range(3):
        journal.append(number=number, rows=torch.full((2,), float(number)))
        sizes.append(path.stat().st_size)
    content = path.read_bytes()
    for size in {*range(sizes[1], sizes[2], 97), sizes[2] - 1}:
        path.write_bytes(content[:size])
        assert [part["number"] for part in saved_state.Journal(path, "key").read()] == [0, 1]
        assert path.stat().st_size == sizes[1]
    broken = bytearray(content)
    broken[sizes[0] + 40] ^= 1
    path.write_bytes(broken)
    journal = saved_state.Journal(path, "key")
    assert [part["number"] for part in journal.read()] == [0]
    journal.append(number=7)
    assert [part["number"] for part in saved_state.Journal(path, "key").read()] == [0, 7]
    assert saved_state.Journal(path, "another").read() == [] and not path.exists()
    for noise in (b"", b"{", json.dumps({"key": "key"}).encode(), bytes(100)):
        path.write_bytes(noise)
        assert saved_state.Journal(path, "key").read() == []


def test_a_journal_that_cannot_be_written_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("")
    journal = saved_state.Journal(tmp_path / "file" / "it.partial", "key")
    with pytest.warns(UserWarning, match="will begin anew") as said:
        journal.append(number=1)
        journal.append(number=2)
    assert len(said) == 1 and journal.read() == []
