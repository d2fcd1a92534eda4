"""Broken and hostile files end in one sentence, at once, and write nothing outside their folder."""

import contextlib
import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import script
from layouts import tar

from lib.core import files
from lib.core.errors import UserError
from lib.datasets.sets import mnist
from lib.datasets.storage import unpack

SMALL = ("--max-examples", "20", "-gpu", "-1", "--quiet")


def refused(done, *fragments: str, status: int = 1, seconds: float = 5) -> None:
    """The command ended in one sentence with these words, soon."""
    assert done.returncode == status and done.fault() is None, done.stderr
    assert all(fragment in done.stderr for fragment in fragments) and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.seconds < seconds


# YAML


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    return "\n".join(lines + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)])


YAML = {
    "aliases": (bomb(9), "more aliases"),
    "aliases of a flag": (f"dataset: [{', '.join(['&a [x]'] + ['*a'] * 30)}]", "more aliases"),
    "brackets": ("dataset: " + "[" * 900 + "]" * 900, "more brackets in brackets"),
    "5,000 brackets": ("dataset: " + "[" * 5000 + "]" * 5000, "c.yaml"),  # libyaml has a limit of its own
    "braces": ("{a: " * 5000, "more brackets in brackets"),
    "size": ("dataset: " + "x" * 10_000_000, "larger than 64 KiB"),
    "digits": ("seed: " + "9" * 5000, "not a YAML file"),
    "date": ("dataset: 2024-99-99", "not a YAML file"),
    "tag": ("seed: !!timestamp x", "not a YAML file"),
    "itself": ("dataset: &x [*x]", "dataset: a list is not one value"),
    "set": ("dataset: !!set {a, b}", "dataset: a set is not one value"),
    "bytes": ("dataset: !!binary aGFsbG8=", "dataset: a bytes is not one value"),
    "object": ("dataset: !!python/object/apply:os.system [touch it-ran]", "not a YAML file"),
}


@pytest.mark.parametrize("name", YAML)
def test_a_yaml_file_that_is_large_deep_or_no_flags_is_refused_within_a_second(tmp_path, name):
    text, sentence = YAML[name]
    (tmp_path / "c.yaml").write_text(text)
    done = script("exec_eval.py", "m.pt", "--config", "c.yaml", cwd=tmp_path)
    refused(done, "--config c.yaml", sentence, status=2, seconds=1)
    assert not (tmp_path / "it-ran").exists()


def test_a_config_that_is_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "/dev/zero", str(tmp_path)):
        refused(script("exec_eval.py", "m.pt", "--config", path, cwd=tmp_path), "not a file", status=2, seconds=1)


# JSON


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "\xff", "1e999999", "9" * 5000])
def test_json_of_any_content_is_read_or_a_value_error(tmp_path, content):
    (tmp_path / "x.json").write_text(content, "latin-1")
    with contextlib.suppress(ValueError):
        files.read_json(tmp_path / "x.json")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a file"):
        files.read_json(tmp_path / "pipe")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"sha256":' * 100_000, "null", '{"sha256": 1, "schema": 1}'])
def test_a_sidecar_that_is_no_description_is_a_sentence(trained, tmp_path, content):
    (tmp_path / "m.pt").write_bytes((trained / "models/a/model_2.pt").read_bytes())
    (tmp_path / "m.json").write_text(content)
    refused(script("exec_eval.py", "m.pt", *SMALL, cwd=tmp_path), "not a whole description")
    refused(script("exec_projections.py", "m.pt", cwd=tmp_path), "not a whole description")


# checkpoints


class Evil:
    """Unpickling it writes a file."""

    def __reduce__(self):
        return os.mkdir, ("it-ran",)


def hostile() -> dict[str, bytes]:
    """Files called like checkpoints, by name."""

    def saved(content) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def header(length: int, text: bytes) -> bytes:
        return struct.pack("<Q", length) + text

    whole = saved({"a.weight": torch.ones(3)})
    far = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    odd = json.dumps({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [5, 1]}}).encode()
    return {
        "code.pt": saved({"a": Evil()}),
        "cut.pt": whole[: len(whole) // 2],
        "turned.pt": whole[::-1],
        "nothing.pt": b"",
        "expanded.pt": saved({"a.weight": torch.ones(1, dtype=torch.float16).expand(2**40)}),
        "sparse.pt": saved({"a.weight": torch.ones(3).to_sparse()}),
        "meta.pt": saved({"a.weight": torch.ones(3, device="meta")}),
        "list.pt": saved([1, 2]),
        "names.pt": saved({1: torch.ones(2)}),
        "deep.pt": saved({"model": {"model": {"model": {"model": {"a": torch.ones(1)}}}}}),
        "bracket.pt": b"\x80\x02" + b"]" * 100_000 + b".",
        "length.safetensors": header(2**63, b"{}"),
        "lies.safetensors": header(1000, b"{}"),
        "json.safetensors": header(3, b"{{{"),
        "nested.safetensors": header(100_000, b"[" * 100_000),
        "far.safetensors": header(len(far), far),
        "odd.safetensors": header(len(odd), odd),
        "nothing.safetensors": b"",
        "huge.npz": b"PK\x03\x04" + b"\xff" * 100,
    }


@pytest.mark.parametrize("name", sorted(hostile()))
def test_a_hostile_checkpoint_runs_nothing_and_is_a_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(hostile()[name])
    refused(script("exec_eval.py", name, "lenet", "-d", "digits", *SMALL, cwd=tmp_path), name)
    refused(script("exec_projections.py", name, "lenet", cwd=tmp_path), name)
    assert not (tmp_path / "it-ran").exists()


def test_infinite_weights_are_refused(trained, tmp_path):
    state = torch.load(trained / "models/a/model_2.pt", weights_only=True)
    state[next(iter(state))].view(-1)[0] = float("inf")
    torch.save(state, tmp_path / "inf.pt")
    refused(script("exec_eval.py", "inf.pt", "lenet", "-d", "digits", *SMALL, cwd=tmp_path), "hold NaN or infinite values")


def test_a_checkpoint_converted_to_safetensors_is_one(trained, tmp_path):
    state = torch.load(trained / "models/a/model_2.pt", weights_only=True)
    shared = {**state, "tied": state[next(iter(state))]}  # two names of one tensor
    torch.save({"state_dict": shared}, tmp_path / "old.pth")
    done = script("exec_data.py", "convert-checkpoint", "old.pth", "new.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = safetensors.torch.load_file(tmp_path / "new.safetensors")
    assert written.keys() == shared.keys() and all(torch.equal(written[key], shared[key]) for key in shared)
    torch.save({"a": torch.ones(3).to_sparse()}, tmp_path / "sparse.pth")
    refused(script("exec_data.py", "convert-checkpoint", "sparse.pth", "s.safetensors", cwd=tmp_path), "cannot hold it")


# archives


def zipped(*entries: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def changed(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """The bytes behind every such signature replaced."""
    parts = content.split(signature)
    return signature.join([parts[0], *(part[:offset] + value + part[offset + len(value) :] for part in parts[1:])])


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
NOISE = np.random.default_rng(0).integers(0, 50, 5000, dtype=np.uint8).tobytes()
GOOD = zipped(("tiny-imagenet-200/a.txt", NOISE))
DATA = GOOD.index(b"a.txt") + 5


def _tar(*entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def long_name(size: int) -> bytes:
    """A gzipped tar whose first entry says that a name of so many bytes follows."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 25))


TWO = _tar(("imagenet-a/a", NOISE), ("imagenet-a/b", NOISE))
ZIPS = {
    "broken deflate": GOOD[: DATA + 20] + bytes(40) + GOOD[DATA + 60 :],
    "encrypted": changed(changed(GOOD, LOCAL, 2, b"\1"), CENTRAL, 4, b"\1"),
    "unknown method": changed(changed(GOOD, LOCAL, 4, b"\x63"), CENTRAL, 6, b"\x63"),
    "file and folder": zipped(("tiny-imagenet-200/a", b"x"), ("tiny-imagenet-200/a/b", b"x")),
    "folder and file": zipped(("tiny-imagenet-200/a/b", b"x"), ("tiny-imagenet-200/a", b"x")),
    "300 characters": zipped((f"tiny-imagenet-200/{'x' * 300}", b"x")),
    "drive": zipped(("C:/evil", b"x")),
    "drive without a root": zipped(("C:evil", b"x")),
    "backslashes": zipped(("..\\evil", b"x")),
    "bomb": zipped(("tiny-imagenet-200/a", bytes(1 << 24))),
    "another name": zipped(("tiny", b"x")),
    "half": GOOD[: len(GOOD) // 2],
    "no archive": b"<html>not found</html>",
    "empty": b"",
}
TARS = {
    "damaged header": TWO.replace(b"imagenet-a/b", b"imagenet-a/c"),  # the second one, whose sum is another now
    "half": TWO[: len(TWO) // 2],
    "file and folder": _tar(("imagenet-a/a", b"x"), ("imagenet-a/a/b", b"x")),
    "300 characters": _tar((f"imagenet-a/{'x' * 300}", b"x")),
    "drive": _tar(("C:/evil", b"x")),
    "device": _tar(("imagenet-a/a", b""), kind=tarfile.CHRTYPE),
    "pipe": _tar(("imagenet-a/a", b""), kind=tarfile.FIFOTYPE),
    "hard link": _tar(("imagenet-a/a", b""), kind=tarfile.LNKTYPE),
    "bomb": gzip.compress(_tar(("imagenet-a/a", bytes(1 << 24)))),
    "long name": long_name(1 << 33),
    "damaged gzip": gzip.compress(TWO)[:-500] + bytes(500),
    "no archive": b"<html>not found</html>" * 100,
    "empty": b"",
}


@pytest.mark.parametrize("kind, name", [*(("zip", name) for name in ZIPS), *(("tar", name) for name in TARS)])
def test_a_hostile_archive_is_a_sentence_and_leaves_nothing(tmp_path, kind, name):
    content, data = {"zip": ZIPS, "tar": TARS}[kind][name], {"zip": "tinyimagenet", "tar": "imagenet-a"}[kind]
    file = tmp_path / "data" / {"zip": "tiny-imagenet-200.zip", "tar": "imagenet-a.tar"}[kind]
    file.parent.mkdir()
    file.write_bytes(content)
    refused(script("exec_data.py", "prepare", data, "-data", "data", cwd=tmp_path), file.name)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
    assert list(file.parent.iterdir()) == [file]


def test_the_archives_that_the_hostile_ones_are_made_of_are_unpacked(tmp_path):
    for content, file, name in ((GOOD, "x.zip", "tiny-imagenet-200"), (TWO, "x.tar", "imagenet-a")):
        (tmp_path / file).write_bytes(content)
        assert (unpack.unpack(tmp_path / file, tmp_path, name) / "a").with_suffix(".txt" if "zip" in file else "").exists()
    (tmp_path / "y.tar.gz").write_bytes(tar({"y/long/" + "n" * 150: NOISE}))
    assert (unpack.unpack(tmp_path / "y.tar.gz", tmp_path, "y") / "long" / ("n" * 150)).read_bytes() == NOISE


def test_gzipped_label_files_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MOST_IN_MEMORY", 1 << 20)
    for content in (gzip.compress(bytes(1 << 21)), gzip.compress(bytes(100))[:-12], b"\x1f\x8b" + bytes(40), b""):
        (tmp_path / "t.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"t(\.gz)?: .* remove it and download it again"):
            mnist.read_idx(Path(tmp_path / "t"))
    for content in (b"\0\0\x08\xff1", b"\0\0\x08\x03" + b"\xff" * 12, b"\0\0\x08\x00", b"\0\0\x08\x01\x7f\xff\xff\xff"):
        (tmp_path / "t").write_bytes(content)
        with pytest.raises(UserError, match="remove it and download it again"):
            mnist.read_idx(Path(tmp_path / "t"))
