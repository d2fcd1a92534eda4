"""Data of one's own: tables with groups and splits, arrays, images as they come, and what is refused by name."""

import json
import os
import shutil
import warnings

import numpy as np
import pytest
import torch
from conftest import script
from layouts import levels, load, toy, write_tree
from PIL import Image

from lib import datasets
from lib.core import trusted_files
from lib.core.errors import UserError
from lib.datasets import corruptions, names
from lib.datasets.storage import deep_images, export, folders
from lib.datasets.subsets import in_classes


def write_table(folder, lines, header="path,label,group,split", suffix="png"):
    """A table of images, which are made; each line is the values after the path."""
    (folder / "images").mkdir(parents=True)
    rows = [header]
    for number, values in enumerate(lines):
        Image.fromarray(levels(32, 32)).save(folder / "images" / f"{number:03d}.{suffix}")
        rows.append(f"images/{number:03d}.{suffix},{values}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


LINES = [f"{'cat' if n % 2 else 'dog'},{'day' if n % 3 else 'night'},{'Train' if n < 12 else 'test'}" for n in range(18)]


def test_a_table_brings_labels_groups_and_splits(tmp_path):
    table = write_table(tmp_path / "pets", LINES)
    train, test = (load(f"csv={table}:{split}", tmp_path) for split in ("train", "test"))
    assert (train.name, train.split, len(train), len(test)) == ("pets", "train", 12, 6)
    assert train.classes == test.classes == ("cat", "dog") and train.labels.tolist() == [1, 0] * 6
    assert train.group_names == ("day", "night") and train.groups.tolist() == [1, 0, 0] * 4
    third = np.asarray(Image.open(tmp_path / "pets" / "images" / "002.png"))
    assert np.array_equal(train.images[2, 0], third)
    assert datasets.splits(f"csv={table}", tmp_path) == ("train", "test")
    assert len(datasets.sources(f"csv={table}", tmp_path)) == 19


def test_a_folder_with_a_table_is_called_by_its_name_and_has_variants(tmp_path):
    write_table(tmp_path / "pets", LINES)
    assert torch.equal(load("pets", tmp_path).images, load(f"csv={tmp_path}/pets:test", tmp_path).images)
    assert load("pets-wo0:train", tmp_path).classes == ("dog",)
    assert load("pets-c/fog-3", tmp_path).group_names == ("day", "night")
    with pytest.raises(UserError, match=r"folder=.*: its labels are in the table .*labels.csv: say csv="):
        load(f"folder={tmp_path}/pets", tmp_path)


def test_images_beside_a_table_without_these_columns_are_no_class(tmp_path):
    write_table(tmp_path / "pets", LINES, header="file,class,group,split")
    with pytest.raises(UserError, match="one folder images beside labels.csv .* columns path and label"):
        load("pets", tmp_path)


def test_several_group_columns_are_taken_together_and_numbers_keep_their_order(tmp_path):
    lines = [f"{label},{label % 2},{'ab'[label % 4 // 2]}" for label in (10, 9, 2, 0)]
    table = write_table(tmp_path / "n", lines, header="\ufeffpath;Label;group_side;group_colour".replace(";", ","))
    found = load(f"csv={table}", tmp_path, "all")
    assert found.classes == ("0", "2", "9", "10") and found.labels.tolist() == [3, 2, 1, 0]
    assert found.group_names == ("0, a", "0, b", "1, a") and found.groups.tolist() == [1, 2, 1, 0]


def test_bad_lines_of_a_table_are_named_by_their_numbers(tmp_path):
    table = write_table(tmp_path / "pets", LINES)
    good = table.read_text().splitlines()
    for bad, words in {
        "images/none.png,cat,day,train": "line 4 lists images/none.png, but there is no file",
        "images/000.png,cat,day,train": "line 4 lists images/000.png, as line 2 does",
        "images/002.png,,day,train": "line 4 has no label",
        "images/002.png,cat,day,train,x": "line 4 has 5 values for 4 columns",
        "images/002.png,cat,day,7": "line 4 has split '7'; splits are words",
        "images/002.png,cat,day,ood": "line 4 has split 'ood', which stands for something else",
    }.items():
        table.write_text("\n".join([*good[:3], bad, *good[4:]]))
        with pytest.raises(UserError, match=words):
            load(f"csv={table}", tmp_path)
    table.write_text("path,class\n")
    with pytest.raises(UserError, match="the first line must name the columns path and label"):
        load(f"csv={table}", tmp_path)


def test_names_of_tables():
    assert names.parse("csv=a/pets/labels.csv:test").name == "pets" and names.parse("csv=a/b.csv").name == "b"
    assert names.undivided("csv=a/b.csv:test") == "csv=a/b.csv" and names.undivided("digits:test") == "digits"


def test_arrays_have_groups_beside_them(tmp_path):
    np.save(tmp_path / "x.npy", levels(6, 8, 8))
    np.save(tmp_path / "x_labels.npy", np.arange(6) % 2)
    np.save(tmp_path / "x_groups.npy", np.array(["far", "near", "far", "far", "near", "far"]))
    found = load(f"npy={tmp_path}/x.npy", tmp_path)
    assert found.group_names == ("far", "near") and found.groups.tolist() == [0, 1, 0, 0, 1, 0]
    np.save(tmp_path / "x_groups.npy", np.array([0, 2, 0, 0, 1, 1]))
    assert load(f"npy={tmp_path}/x.npy", tmp_path).group_names == ("0", "1", "2")
    assert [file.name for file in datasets.sources(f"npy={tmp_path}/x.npy", tmp_path)] == [
        "x.npy",
        "x_labels.npy",
        "x_groups.npy",
    ]
    np.save(tmp_path / "x_groups.npy", np.array([0, 2, 0]))
    with pytest.raises(UserError, match=r"x_groups.npy: shape \(3,\), but there are 6 images"):
        load(f"npy={tmp_path}/x.npy", tmp_path)


def test_labels_that_begin_at_one_are_said(tmp_path):
    np.save(tmp_path / "x.npy", levels(4, 8, 8))
    np.save(tmp_path / "x_labels.npy", np.array([1, 2, 3, 1]))
    with pytest.warns(UserWarning, match="x_labels.npy: labels begin at 1, so that class 0 is empty"):
        load(f"npy={tmp_path}/x.npy", tmp_path)


SHADES = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64


@pytest.mark.parametrize(
    ("suffix", "image"),
    [
        ("png", Image.fromarray(SHADES)),
        ("tif", Image.fromarray(SHADES)),
        ("tif", Image.fromarray((SHADES / 65535).astype(np.float32))),
    ],
    ids=["16-bit png", "16-bit tiff", "float tiff"],
)
def test_deep_images_are_as_bright_as_their_type_says(tmp_path, suffix, image):
    (tmp_path / "deep").mkdir()
    image.save(tmp_path / "deep" / f"1.{suffix}")
    found = load("deep", tmp_path, "all").images
    assert found.shape == (1, 1, 32, 32) and np.array_equal(found[0, 0], np.rint(SHADES / 257))


@pytest.mark.parametrize(("top", "times"), [(4095, 16), (1000, 64), (200, 256)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_of_fewer_bits_than_their_files_have_are_said_to_be_dark(tmp_path, top, times, suffix):
    shades = np.linspace(0, top, 32 * 32).astype(np.uint16).reshape(32, 32)
    words = f"the highest value of 16-bit images is {top:,} of 65,535, so .* values times {times}$"
    for folder, values in (("deep", shades), ("scaled", shades * times)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.fromarray(values).save(tmp_path / folder / f"{number}.{suffix}")
    with pytest.warns(UserWarning, match=f"deep:all: {words}") as said:
        load("deep", tmp_path, "all")
    assert len([warning for warning in said if "16-bit" in str(warning.message)]) == 1
    np.save(tmp_path / "x.npy", np.stack([shades] * 3))
    with pytest.warns(UserWarning, match=f"x.npy: {words}"):
        export.export(f"npy={tmp_path}/x.npy", tmp_path, tmp_path / "y.npy", tmp_path / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load("scaled", tmp_path, "all").images.max() > 250 * top // (65536 // times)


def test_of_a_large_tree_a_few_images_are_looked_at_and_one_that_is_bright_is_enough(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    for number in range(40):
        Image.fromarray(SHADES // 64 + 60000 * (number == 39)).save(tmp_path / "deep" / f"{number:02d}.png")
    looked_at, highest = [], deep_images._highest
    monkeypatch.setattr(deep_images, "_highest", lambda file: looked_at.append(file.name) or highest(file))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("deep", tmp_path, "all")
    assert len(looked_at) == 8 and looked_at[-1] == "39.png"
    (tmp_path / "deep" / "39.png").unlink()
    with pytest.warns(UserWarning, match="the highest value of 8 of its 16-bit images is 1,023 of 65,535"):
        load("deep", tmp_path, "all")


def test_floats_of_an_unknown_range_are_refused(tmp_path):
    (tmp_path / "deep").mkdir()
    Image.fromarray(SHADES.astype(np.float32)).save(tmp_path / "deep" / "1.tif")
    with pytest.raises(UserError, match=r"1.tif: floats from 0 to 65472; images have 8 or 16 bits, or floats in \[0, 1\]"):
        load("deep", tmp_path, "all")


def test_content_in_the_alpha_channel_alone_is_drawn_on_white(tmp_path):
    (tmp_path / "ink").mkdir()
    alpha = levels(32, 32)
    Image.fromarray(np.dstack([np.zeros_like(alpha)] * 3 + [alpha]), "RGBA").save(tmp_path / "ink" / "1.png")
    with pytest.warns(UserWarning, match="whose only content is their alpha channel are drawn on white"):
        found = load("ink", tmp_path, "all").images[0]
    assert torch.equal(found, 255 - torch.from_numpy(alpha).expand(3, -1, -1))
    coloured = levels(32, 32, 4)
    (tmp_path / "glass").mkdir()
    Image.fromarray(coloured, "RGBA").save(tmp_path / "glass" / "1.png")
    assert np.array_equal(load("glass", tmp_path, "all").images[0], coloured[..., :3].transpose(2, 0, 1))


def test_own_images_are_turned_as_their_exif_data_say_and_published_ones_are_not(tmp_path):
    pixels = np.repeat(np.repeat(levels(4, 4), 8, 0), 8, 1)
    for folder in ("own", "textures"):
        (tmp_path / folder).mkdir()
        image = Image.fromarray(pixels)
        tags = image.getexif()
        tags[0x0112] = 6  # to be turned clockwise
        image.save(tmp_path / folder / "1.jpg", quality=100, exif=tags)
    own, published = (load(name, tmp_path, "all").images[0, 0].int() for name in ("own", "textures"))
    assert (own - torch.from_numpy(np.rot90(pixels, -1).copy()).int()).abs().max() < 8
    assert (published - torch.from_numpy(pixels).int()).abs().max() < 8


@pytest.mark.parametrize("parts", [("Train", "Test"), ("TRAIN", "VALIDATION")])
def test_splits_are_found_in_whatever_case(tmp_path, parts):
    write_tree(tmp_path / "pets", parts)
    assert datasets.splits("pets", tmp_path) == ("train", "test" if parts[1] == "Test" else "val")
    assert load("pets", tmp_path, "train").classes == ("cat", "dog")


def test_a_class_called_train_is_no_split(tmp_path):
    write_tree(tmp_path / "traffic", ("",), ("Bus", "Car", "Train"))
    assert load("traffic", tmp_path, "all").classes == ("Bus", "Car", "Train")


def test_litter_is_passed_over_in_data_and_among_checkpoints(tmp_path):
    from lib.experiments.config.projections import ProjectionsConfig
    from lib.runs import input_files

    write_tree(tmp_path / "pets", ("",))
    before = datasets.sources("pets", tmp_path), len(load("pets", tmp_path, "all"))
    (tmp_path / "pets" / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "._1.png").write_bytes(b"\0\5\x16\7")
    found = load("pets", tmp_path, "all")
    assert (found.classes, len(found)) == (("cat", "dog"), before[1])
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model_1.pt", "._model_1.pt"):
        (run / name).write_bytes(b"")
    config = ProjectionsConfig(model_path=(str(run),))
    assert [file.name for file in input_files.snapshots(config, str(run))] == ["model_1.pt"]


def test_names_that_are_no_utf_8_are_read(tmp_path):
    folder = os.fsencode(tmp_path) + b"/pets/caf\xe9"
    os.makedirs(folder)
    Image.fromarray(levels(32, 32)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", folder + b"/\xe9.png")
    done = script("exec_data.py", "show", "pets", "-data", tmp_path, cwd=tmp_path)
    assert done.returncode == 0 and "class:caf\\xe9" in done.stdout


def test_images_of_some_classes_are_answered_in_the_networks(trained):
    digits = load("digits", trained, "test")
    few = digits.subset(digits.labels < 5)
    np.save(trained / "few.npy", few.images[:, 0].numpy())
    np.save(trained / "few_labels.npy", few.labels.numpy())
    done = script("exec_eval.py", "models/a/model_2.pt", "-d", "npy=few.npy", "digits", "--save-logits", cwd=trained)
    assert done.returncode == 0 and "few.npy has 5 of the network's 10 classes; answers may be any of them" in done.stderr
    rows = json.loads((trained / done.stdout.splitlines()[-1]).read_text())["rows"]
    own = {row["subset"]: row["accuracy"] for row in rows if row["data"] == "few"}
    whole = {row["subset"]: row["accuracy"] for row in rows if row["data"] == "digits"}
    assert [own[f"class:{k}"] for k in range(5)] == [whole[f"class:{k}"] for k in range(5)]


def test_classes_in_another_order_are_told_apart_by_name():
    found = toy(9)
    turned = in_classes(found, ("x", "c", "b", "a"))
    assert [turned.classes[label] for label in turned.labels] == [found.classes[label] for label in found.labels]
    assert in_classes(found, ("a", "b")) is found and in_classes(found, ("x", "y", "z")) is found


@pytest.mark.parametrize("form", ["floats", "channels first", "16 bits", "floats with channels first"])
def test_arrays_of_another_form_are_refused_with_the_command_that_converts_them(tmp_path, form):
    right = levels(6, 8, 8, 3)
    other = right / np.float32(255) if "floats" in form else right.astype(np.uint16) * 257 if form == "16 bits" else right
    np.save(tmp_path / "x.npy", other.transpose(0, 3, 1, 2) if "channels first" in form else other)
    np.save(tmp_path / "x_labels.npy", np.arange(6) % 3)
    with pytest.raises(UserError) as refused:
        load(f"npy={tmp_path}/x.npy", tmp_path)
    words = str(refused.value).partition("; python ")[2].removesuffix(" converts them").split()
    done = script(*words[:-1], tmp_path / "new.npy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = load(f"npy={tmp_path}/new.npy", tmp_path)
    assert np.array_equal(found.images.permute(0, 2, 3, 1), right) and found.labels.tolist() == [0, 1, 2] * 2


def test_values_that_do_not_say_what_they_are_are_not_converted(tmp_path):
    np.save(tmp_path / "x.npy", levels(4, 8, 8) / 100)
    with pytest.raises(UserError, match="float64 from .* what can be converted are floats in"):
        export.export(f"npy={tmp_path}/x.npy", tmp_path, tmp_path / "y.npy", tmp_path / "cache")


def test_a_set_that_is_imported_is_the_same_set(tmp_path):
    table = write_table(tmp_path / "pets", LINES)
    lines = export.export(f"csv={table}", tmp_path, tmp_path / "again", tmp_path / "cache")
    assert [line.rpartition("/")[2] for line in lines] == [
        "again: 12 images of train, 2 classes",
        "again: 6 images of test, 2 classes",
    ]
    export.export("pets:test", tmp_path, tmp_path / "test.npy", tmp_path / "cache")
    first = load("pets", tmp_path)
    for copy in (load("again", tmp_path), load(f"npy={tmp_path}/test.npy", tmp_path)):
        assert torch.equal(copy.images, first.images) and copy.labels.tolist() == first.labels.tolist()
        assert [copy.group_names[group] for group in copy.groups] == [first.group_names[group] for group in first.groups]
    for target in ("again", "test.npy"):
        with pytest.raises(UserError, match="is there already"):
            export.export("pets:test", tmp_path, tmp_path / target, tmp_path / "cache")
    with pytest.raises(UserError, match="an array holds one split, pets has train, test"):
        export.export("pets", tmp_path, tmp_path / "x.npy", tmp_path / "cache")


@pytest.mark.parametrize(
    "name",
    [
        "pets",
        "pets-c/fog-3",
        "pets-wo1:ood",
        "pets-wo1-c:ood/contrast-2",
        "table",
        "large",
        "large-c/contrast-2",
        "digits-c/fog-3",
    ],
)
def test_some_examples_are_those_of_the_whole_set_and_no_other_is_decoded_or_corrupted(tmp_path, monkeypatch, name):
    write_tree(tmp_path / "pets", count=9)
    write_tree(tmp_path / "large", count=5, size=(120, 100))
    write_table(tmp_path / "table", LINES)
    whole = load(name, tmp_path, image_size=32)
    opened, corrupted = [], []
    open_image, corrupt = folders.open_image, corruptions.corrupt
    monkeypatch.setattr(folders, "open_image", lambda file, *rest: opened.append(file) or open_image(file, *rest))
    monkeypatch.setattr(
        corruptions, "corrupt", lambda images, *rest, **more: corrupted.append(len(images)) or corrupt(images, *rest, **more)
    )
    some = load(name, tmp_path, image_size=32, most=4)
    positions = torch.arange(4) * len(whole) // 4
    expected = whole.subset(positions)
    assert len(set(opened)) <= 4 and sum(corrupted) <= 4
    assert torch.equal(torch.cat(list(some.stored())), torch.cat(list(expected.stored())))
    for what in ("labels", "indices", "groups"):
        assert torch.equal(getattr(some, what), getattr(expected, what))
    assert (some.augmentation, some.origin, some.name) == (whole.augmentation, whole.origin, whole.name)


BLUR = """
import numpy as np

def shifted(image, severity, generator):
    return np.roll(image, severity, axis=1) // 2 + generator.integers(0, 9, dtype=np.uint8)

def wrong(image, severity, generator):
    return image / 255

def failing(image, severity, generator):
    return image.nothing
"""


def test_a_corruption_of_ones_own_is_called_for_every_image_with_draws_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "blur.py").write_text(BLUR)
    trusted_files.trust("code/blur.py")
    write_tree(tmp_path / "pets", size=(12, 10))
    name = "pets-c/code/blur.py:shifted-3"
    clean, found = load("pets", tmp_path), load(name, tmp_path)
    assert (found.name, found.variant, found.origin) == ("pets-c", "blur.py:shifted-3", "generated")
    added = found.images.int() - clean.images.roll(3, 3).int() // 2
    assert (added.flatten(1) == added[:, 0, 0, :1]).all() and len(set(added[:, 0, 0, 0].tolist())) > 1
    some = load(name, tmp_path, most=2)
    assert torch.equal(some.images, found.images[[0, 3]])
    assert [path.name for path in datasets.sources(name, tmp_path)] == ["pets", "blur.py"]
    (tmp_path / "code" / "blur.py").write_text(BLUR.replace("// 2", "// 4"))
    assert not torch.equal(load(name, tmp_path).images, found.images)
    assert load("digits-c/code/blur.py:shifted-1", tmp_path).channels == 1


def test_a_corruption_of_ones_own_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blur.py").write_text(BLUR)
    trusted_files.trust("blur.py")
    for variant, words in {
        "blur.py:wrong-1": r"blur.py:wrong: returned float64 of shape \(32, 32\) for an image uint8",
        "blur.py:failing-1": r"blur.py:failing: AttributeError: .* \(line 11\)",
        "blur.py:shift-1": "has no function shift; did you mean shifted",
        "blurr.py:shifted-1": "there is no file blurr.py",
        "fig-1": r"did you mean fog\? \(known are gaussian_noise, .*saturate.*; one of your own is path/to/file.py:function",
    }.items():
        with pytest.raises(UserError, match=words):
            load(f"digits-c/{variant}", tmp_path)


def test_a_corruption_of_ones_own_serves_a_script(trained):
    (trained / "blur.py").write_text(BLUR)
    words = ("-d", "digits", "-ood", "digits-c/blur.py:shifted-4", "-l", "cuts", "--max-examples", 40)
    done = script("exec_ood_layers.py", "models/a/model_2.pt", *words, cwd=trained)
    assert done.returncode == 0, done.stderr
    record = json.loads((trained / done.stdout.splitlines()[-1]).read_text())
    assert {(row["variant"], row["severity"]) for row in record["rows"]} == {("blur.py:shifted-4", 4)}
    assert record["inputs"]["digits-c/blur.py:shifted-4"]["files"] == 1


def test_a_corruption_of_ones_own_that_only_a_sidecar_names_is_not_run(trained, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "models")
    (tmp_path / "blur.py").write_text("open('it-ran', 'w')\n" + BLUR)
    sidecar = tmp_path / "models/a/model_2.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"dataset": "digits-c/blur.py:shifted-4"}))
    done = script("exec_eval.py", "models/a/model_2.pt", "--max-examples", 20, cwd=tmp_path)
    assert done.returncode == 1 and not (tmp_path / "it-ran").exists()
    assert "blur.py would be run to corrupt images" in done.stderr and done.stderr.strip().endswith("--trust blur.py")
    named = ("-d", "digits-c/blur.py:shifted-4", "--max-examples", 20)
    assert script("exec_eval.py", "models/a/model_2.pt", *named, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floats_that_are_whole_numbers_up_to_255_are_converted_and_said(tmp_path, kind):
    right = levels(6, 8, 8, 3)
    np.save(tmp_path / "x.npy", right.astype(kind))
    lines = export.export(f"npy={tmp_path}/x.npy", tmp_path, tmp_path / "y.npy", tmp_path / "cache")
    assert lines[0].endswith(f"x.npy: {np.dtype(kind)}, taken as floats that are whole numbers from 0 to 255, as they are")
    assert np.array_equal(load(f"npy={tmp_path}/y.npy", tmp_path).images.permute(0, 2, 3, 1), right)


WRONG = {
    "fractions": levels(4, 8, 8) / 100,
    "below zero": levels(4, 8, 8) - 128.0,
    "not a number": np.full((4, 8, 8), np.nan),
    "large integers": levels(4, 8, 8).astype(np.int32) * 100,
    "complex": levels(4, 8, 8).astype(np.complex64),
    "five channels": levels(4, 8, 8, 5) / 255,
    "two sides": levels(8, 8) / 255,
}


@pytest.mark.parametrize("name", WRONG)
def test_no_command_is_promised_to_convert_what_it_does_not(tmp_path, name):
    np.save(tmp_path / "x.npy", WRONG[name])
    with pytest.raises(UserError) as refused:
        load(f"npy={tmp_path}/x.npy", tmp_path)
    assert "exec_data.py import" not in str(refused.value)
    with pytest.raises(UserError):
        export.export(f"npy={tmp_path}/x.npy", tmp_path, tmp_path / "y.npy", tmp_path / "cache")
