"""What is only kept to save time is left out, with a warning, where there is no room for it: the numbers are the same."""

import errno
import json
import os
import warnings

import numpy as np
import pytest
import torch
from conftest import script
from PIL import Image

from lib.core import checked_arrays, files, saved_state
from lib.core.errors import UserError
from lib.representations import feature_files

SMALL = ("--max-examples", "60", "-gpu", "-1", "--overwrite", "--name", "a")


@pytest.fixture
def full(monkeypatch):
    """A disk without room for caches; records still find some."""
    whole = files.write_atomically

    def no_room(*words):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(path, fill):
        if ".cache" in path.parts:
            raise UserError(f"cannot write {path}: {os.strerror(errno.ENOSPC)}")
        whole(path, fill)

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    monkeypatch.setattr(files, "write_atomically", write)


def rows(folder, experiment):
    return json.loads((folder / "results" / experiment / "a.json").read_text())["rows"]


def left(folder) -> list[str]:
    """The kept arrays, and what is left of such."""
    return [path.name for path in (folder / ".cache").rglob("*") if path.suffix in (".npy", ".npz", ".tmp")]


@pytest.fixture
def folder(trained, tmp_path):
    """A network, and a folder of small images."""
    (tmp_path / "models").symlink_to(trained / "models")
    generator = np.random.default_rng(0)
    for number in range(10):
        (tmp_path / "tree" / "test" / str(number)).mkdir(parents=True)
        for image in range(3):
            pixels = generator.integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "tree" / "test" / str(number) / f"{image}.png")
    return tmp_path


@pytest.mark.parametrize(
    "words, warned",
    [
        (("-d", "folder=tree"), "in memory for now"),
        (("-d", "digits-c/fog-3"), "in memory for now"),
        (("--attack", "pgd", "--eps", "0.1"), "not kept"),
    ],
)
def test_a_cache_on_a_full_disk_is_a_warning_and_changes_no_number(folder, full, words, warned, monkeypatch):
    command = ("exec_eval.py", "models/a/model_2.pt", *words, *SMALL)
    done = script(*command, cwd=folder)
    assert done.returncode == 0 and f"warning: {'' if 'kept' in warned else '.cache'}" in done.stderr, done.stderr
    assert warned in done.stderr and "No space left" in done.stderr and not left(folder)
    without = rows(folder, "eval")
    monkeypatch.undo()
    done = script(*command, cwd=folder)
    assert done.returncode == 0 and warned not in done.stderr and len(left(folder)) == 1
    assert rows(folder, "eval") == without
    script(*command, cwd=folder)  # from the cache
    assert rows(folder, "eval") == without


def test_nearest_neighbours_and_probes_need_no_cache(nine, tmp_path, full):
    (tmp_path / "models").symlink_to(nine / "models")
    done = script("exec_ncg.py", "models/wo9/model_2.pt", *SMALL, cwd=tmp_path)
    assert done.returncode == 0 and "not kept" in done.stderr and not left(tmp_path), done.stderr
    done = script("exec_probe.py", "models/wo9/model_2.pt", "-d", "digits", "-l", "all", "-e", "1", *SMALL, cwd=tmp_path)
    assert done.returncode == 0 and not left(tmp_path), done.stderr


def test_an_array_that_cannot_be_kept_has_its_numbers_and_leaves_no_half_file(tmp_path, monkeypatch):
    def fill(array):
        array[:] = np.arange(12).reshape(3, 4)

    found = checked_arrays.kept(tmp_path / "whole.npy", (3, 4), np.uint8, fill)
    found[0, 0] = 99  # what is written into it does not reach the file
    assert checked_arrays.problem(tmp_path / "whole.npy") is None and np.load(tmp_path / "whole.npy")[0, 0] == 0
    monkeypatch.setattr(checked_arrays, "seal", lambda *words, **more: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.warns(UserWarning, match="full.*not kept"):
        late = checked_arrays.kept(tmp_path / "late.npy", (3, 4), np.uint8, fill)
    monkeypatch.setattr(os, "posix_fallocate", lambda *words: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.warns(UserWarning, match="full.*in memory for now"):
        early = checked_arrays.kept(tmp_path / "early.npy", (3, 4), np.uint8, fill)
    assert late.tolist() == early.tolist() == np.arange(12).reshape(3, 4).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["whole.npy"]


@pytest.mark.parametrize("when", ["early", "late"])
def test_features_that_cannot_be_kept_stay_in_memory(tmp_path, monkeypatch, when):
    def fail(*words, **more):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(*((os, "posix_fallocate") if when == "early" else (checked_arrays, "seal")), fail)
    writer = feature_files.FeatureFolder(tmp_path / "f").writer("a.npy", 4, torch.float32)
    with pytest.warns(UserWarning, match="full"):
        writer.add(torch.arange(8.0).reshape(4, 2))
        stored, scale = writer.finish()
    assert torch.equal(stored * scale, torch.arange(8.0).reshape(4, 2)) and not list((tmp_path / "f").iterdir())


def test_kept_arrays_that_cannot_be_written_are_a_warning(tmp_path, full):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        saved_state.write_arrays(tmp_path / ".cache" / "a.npz", {"x": np.ones(3)})
    assert "not kept" in str(said[0].message) and saved_state.read_arrays(tmp_path / ".cache" / "a.npz") is None
