"""Files that outlive a process: known by content, whole or absent, and never taken for another run's."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from lib.core import saved_state
from lib.core.saved_state import RunFile


def test_the_key_is_the_hash_of_texts_and_numbers_one_after_another():
    images = torch.arange(5000 * 3, dtype=torch.uint8).view(5000, 3)
    expected = hashlib.sha256(b"about" + images.numpy().tobytes() + np.float32(2).tobytes()).hexdigest()
    assert saved_state.content_key("about", images, torch.tensor(2.0)) == expected
    assert saved_state.content_key("about", images.T.contiguous().T, torch.tensor(2.0, requires_grad=True)) == expected
    assert saved_state.content_key("about", images.flip(0), torch.tensor(2.0)) != expected
    assert saved_state.content_key(torch.empty(0, 3)) == hashlib.sha256().hexdigest()


def test_arrays_are_read_as_they_were_written_and_damaged_ones_not_at_all(tmp_path):
    path = tmp_path / "deep" / "arrays.npz"
    assert saved_state.read_arrays(path) is None
    arrays = {"squared": np.arange(6).reshape(2, 3), "robust": np.array([True, False])}
    saved_state.write_arrays(path, arrays)
    found = saved_state.read_arrays(path)
    assert found is not None and found.keys() == arrays.keys()
    assert all(np.array_equal(found[key], value) and found[key].dtype == value.dtype for key, value in arrays.items())
    whole = path.read_bytes()
    for damaged in (b"", whole[:40], whole[:-30], b"not an archive"):
        path.write_bytes(damaged)
        assert saved_state.read_arrays(path) is None
    assert [entry.name for entry in path.parent.iterdir()] == ["arrays.npz"]


def test_a_run_reads_its_own_file_and_no_other(tmp_path):
    own, other = (RunFile(tmp_path / "it.partial", key) for key in ("own", "other"))
    assert own.read() is None
    own.write(images=3, cells=torch.ones(2))
    state = own.read()
    assert state is not None and state["images"] == 3 and torch.equal(state["cells"], torch.ones(2))
    assert other.read() is None
    whole = own.path.read_bytes()
    for damaged in (b"", whole[:100], b'{"key": "own", "images": 3}'):
        own.path.write_bytes(damaged)
        assert own.read() is None
    own.remove()
    own.remove()
    assert not own.path.exists()


def test_a_damaged_state_is_told_from_an_absent_one(tmp_path):
    assert saved_state.read_state(tmp_path / "resume.pt") is None
    (tmp_path / "resume.pt").write_bytes(b"half")
    with pytest.raises((RuntimeError, KeyError, pickle.UnpicklingError)):
        saved_state.read_state(tmp_path / "resume.pt")
