"""Data that are packed: tar shards in WebDataset's layout, and Hugging Face's data sets on this disk."""

import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from conftest import ROOT, script
from layouts import levels, load
from PIL import Image

from lib import datasets
from lib.core.errors import UsageError, UserError

PIXELS = levels(12, 32, 32, 3)


def png(pixels: np.ndarray) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, format="png")
    return packed.getvalue()


def write_shard(file, entries: dict[str, bytes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def samples(numbers, label=lambda n: {"cls": str(n % 3).encode()}) -> dict[str, bytes]:
    """An image and what lies beside it for each number."""
    return {f"{n:04d}.{kind}": content for n in numbers for kind, content in {"png": png(PIXELS[n]), **label(n)}.items()}


def test_shards_are_read_with_labels_groups_and_splits(tmp_path):
    def beside(n):
        return {"json": json.dumps({"label": "cat" if n % 2 else "dog", "group": "ab"[n % 4 // 2]}).encode()}

    for name, numbers in {"train-0": range(4), "train-1": range(4, 8), "val-0": range(8, 12)}.items():
        write_shard(tmp_path / "pets" / f"{name}.tar", {**samples(numbers, beside), "__MACOSX/._0000.png": b"\0"})
    train, val = (load(f"wds={tmp_path}/pets:{split}", tmp_path) for split in ("train", "val"))
    assert (train.name, train.split, len(train), len(val)) == ("pets", "train", 8, 4)
    assert train.classes == ("cat", "dog") and train.labels.tolist() == [1, 0] * 4
    assert train.group_names == ("a", "b") and train.groups.tolist() == [0, 0, 1, 1] * 2
    assert np.array_equal(train.images.permute(0, 2, 3, 1), PIXELS[:8])
    assert datasets.splits(f"wds={tmp_path}/pets", tmp_path) == ("train", "val")
    assert [path.name for path in datasets.sources(f"wds={tmp_path}/pets", tmp_path)] == [
        "train-0.tar",
        "train-1.tar",
        "val-0.tar",
    ]
    some = load(f"wds={tmp_path}/pets:train", tmp_path, most=2)
    assert torch.equal(some.images, train.images[[0, 4]])


def test_numbers_of_classes_have_names_beside_the_shards_and_patterns_name_shards(tmp_path):
    for shard in range(3):
        write_shard(tmp_path / f"x-{shard:02d}.tar", samples(range(4 * shard, 4 * shard + 4)))
    assert load(f"wds={tmp_path}/x-{{00..01}}.tar", tmp_path, "all").classes == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\ndog\n")
    found = load(f"wds={tmp_path}/x-*.tar", tmp_path, "all")
    assert found.classes == ("ant", "bee", "cow", "dog") and found.labels.tolist() == [n % 3 for n in range(12)]
    with pytest.raises(UserError, match="there is no file .*x-03.tar"):
        load(f"wds={tmp_path}/x-{{00..03}}.tar", tmp_path)


def test_large_images_of_shards_are_decoded_as_needed(tmp_path):
    picture = levels(120, 100, 3)
    write_shard(tmp_path / "x.tar", {"a.png": png(picture), "a.txt": b"cat", "b.png": png(picture[::-1]), "b.txt": b"dog"})
    Image.fromarray(picture).save(tmp_path / "file.png")
    (tmp_path / "one").mkdir()
    (tmp_path / "file.png").rename(tmp_path / "one" / "file.png")
    found = load(f"wds={tmp_path}/x.tar", tmp_path, "all", image_size=32)
    assert found.lazy and found.classes == ("cat", "dog")
    images = torch.cat([images for images, _, _ in found.batches(2, workers=1)])
    assert torch.equal(images[:1], next(load("one", tmp_path, "all", image_size=32).batches(1))[0])


def test_shards_that_cannot_be_used_are_named(tmp_path):
    write_shard(tmp_path / "x.tar", {**samples(range(2)), "0007.png": png(PIXELS[7])})
    with pytest.raises(UserError, match="x.tar: 0007.png: has no label, but other samples have one"):
        load(f"wds={tmp_path}/x.tar", tmp_path)
    write_shard(tmp_path / "y.tar", {"a.png": b"no image", "a.cls": b"0"})
    with pytest.raises(UserError, match="y.tar: a.png: cannot be decoded as an image"):
        load(f"wds={tmp_path}/y.tar", tmp_path)
    (tmp_path / "z.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:700])
    with pytest.raises(UserError, match="z.tar"):
        load(f"wds={tmp_path}/z.tar", tmp_path)
    write_shard(tmp_path / "empty.tar", {"a.txt": b"x"})
    with pytest.raises(UserError, match="hold no image"):
        load(f"wds={tmp_path}/empty.tar", tmp_path)


@pytest.fixture
def table():
    """A Hugging Face data set with an image, a label with names and a group."""
    library = pytest.importorskip("datasets")
    features = library.Features(
        picture=library.Image(), label=library.ClassLabel(names=["ant", "bee", "cow"]), place=library.Value("string")
    )
    columns = {
        "picture": [{"bytes": png(pixels), "path": None} for pixels in PIXELS],
        "label": [n % 3 for n in range(12)],
        "place": ["sea" if n % 2 else "land" for n in range(12)],
    }
    return library.Dataset.from_dict(columns, features=features)


def write(table, folder, form: str) -> str:
    """The table in one of the forms that lie on a disk; what names it."""
    library = pytest.importorskip("datasets")
    both = library.DatasetDict(train=table.select(range(8)), test=table.select(range(8, 12)))
    where = folder / "pets"
    if form == "saved":
        both.save_to_disk(str(where))
    else:
        where.mkdir()
        for split, part in both.items():
            part.to_parquet(str(where / f"{split}.parquet"))
    return f"hf={where},group=place"


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_hugging_face_sets_on_the_disk_are_read_by_class_names(tmp_path, monkeypatch, table, form):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    name = write(table, tmp_path, form)
    train, test = (load(f"{name}:{split}", tmp_path) for split in ("train", "test"))
    assert (train.name, len(train), len(test)) == ("pets", 8, 4)
    assert train.classes == ("ant", "bee", "cow") and train.labels.tolist() == [n % 3 for n in range(8)]
    assert test.group_names == ("land", "sea") and test.groups.tolist() == [0, 1, 0, 1]
    assert np.array_equal(test.images.permute(0, 2, 3, 1), PIXELS[8:])
    assert datasets.sources(name, tmp_path) == [tmp_path / "pets"]


def test_a_single_table_is_not_divided_and_columns_that_are_not_found_are_asked_for(tmp_path, monkeypatch, table):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    table.rename_columns({"label": "kind", "place": "label"}).to_parquet(str(tmp_path / "x.parquet"))
    name = f"hf={tmp_path}/x.parquet"
    assert load(name, tmp_path, "all").classes == ("ant", "bee", "cow")  # the one column of classes
    assert load(f"{name},label=label", tmp_path, "all").classes == ("land", "sea")
    with pytest.raises(UsageError, match="there is no column colour; known are|there is no column colour; did"):
        load(f"{name},label=colour", tmp_path)
    with pytest.raises(UsageError, match="labels= is none of image=, label="):
        load(f"{name},labels=label", tmp_path)
    table.remove_columns("picture").to_parquet(str(tmp_path / "y.parquet"))
    with pytest.raises(UsageError, match="the column of its images is none of label, place; say hf=.*,image=COLUMN"):
        load(f"hf={tmp_path}/y.parquet", tmp_path)


def test_a_record_holds_the_hash_of_a_hugging_face_set(tmp_path, table):
    table.save_to_disk(str(tmp_path / "pets"))
    done = script("exec_data.py", "show", "hf=pets", cwd=tmp_path, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / done.stdout.splitlines()[-1]).read_text())
    assert record["inputs"]["hf=pets"]["files"] >= 2 and record["rows"][0]["n"] == 12


def test_the_package_is_asked_for_where_it_is_missing_and_not_imported_elsewhere(tmp_path, monkeypatch):
    real = __import__("importlib").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "datasets" else real(name, *rest))
    with pytest.raises(UserError, match="needs the optional package datasets: pip install datasets"):
        load(f"hf={tmp_path}/none", tmp_path)
    code = (
        "import sys\nfrom lib import datasets\ndatasets.check('digits', 'data')\nimport lib.datasets.storage.hugging_face\n"
    )
    code += "assert not {'datasets', 'pyarrow', 'webdataset', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_samples_of_a_shard_without_an_image_are_counted_in_a_warning(tmp_path):
    others = {"0007.heic": b"x", "0007.cls": b"1", "0008.heic": b"x", "0001.mask.npy": b"x"}
    write_shard(tmp_path / "x.tar", samples(range(3)) | others)
    with pytest.warns(UserWarning, match=r"x.tar: samples without an image are left out: 2 .heic; images are .jpg, "):
        assert len(load(f"wds={tmp_path}/x.tar", tmp_path, "all")) == 3
