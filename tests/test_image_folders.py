"""Folders of images: decoding, sizes, crops, layouts, ImageNet and OpenOOD's sets, and what is refused."""

import os

import numpy as np
import pytest
import torch
from conftest import SHARED_DATA
from layouts import levels, load, write_image, write_tree
from PIL import Image
from torchvision import transforms

from lib import datasets
from lib.core.errors import UsageError, UserError
from lib.datasets import augment
from lib.datasets.storage import folders
from lib.datasets.storage.lazy_images import DecodedImages


def test_small_images_are_decoded_once_and_kept(tmp_path, monkeypatch):
    write_tree(tmp_path / "pets")
    first = load("pets", tmp_path, "train")
    assert first.classes == ("cat", "dog") and first.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = np.asarray(Image.open(tmp_path / "pets" / "train" / "dog" / "1.png")).transpose(2, 0, 1)
    assert np.array_equal(first.images[4], expected)
    monkeypatch.setattr(folders, "_decode_all", None)
    assert torch.equal(load(f"folder={tmp_path}/pets:train", tmp_path).images, first.images)
    monkeypatch.undo()
    write_image(tmp_path / "pets" / "train" / "dog" / "1.png")
    os.utime(tmp_path / "pets" / "train" / "dog" / "1.png", (1, 1))
    assert not torch.equal(load("pets", tmp_path, "train").images, first.images)
    assert load("pets", tmp_path).split == "test"


def test_a_broken_cache_file_is_made_again(tmp_path):
    write_tree(tmp_path / "pets")
    first = load("pets", tmp_path).images.clone()
    (cached,) = (tmp_path / "cache" / "decoded").iterdir()
    cached.write_bytes(cached.read_bytes()[:200])
    assert torch.equal(load("pets", tmp_path).images, first)
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 1  # and no temporary file is left


def test_grey_folders_have_one_channel_and_mixed_ones_three(tmp_path):
    write_tree(tmp_path / "grey", mode="L")
    write_tree(tmp_path / "mixed", mode="L")
    write_image(tmp_path / "mixed" / "test" / "dog" / "9.png")
    assert load("grey", tmp_path).images.shape == (6, 1, 32, 32)
    assert load("mixed", tmp_path).images.shape == (7, 3, 32, 32)


@pytest.mark.parametrize("size", [(300, 200), (100, 150), (224, 224)])
def test_large_images_are_resized_and_cropped_as_torchvision_does(tmp_path, size):
    write_tree(tmp_path / "large", count=2, size=size)
    found = load("large", tmp_path, image_size=64)
    assert isinstance(found.images, DecodedImages) and found.augmentation == "imagenet"
    resize, crop = transforms.Resize(round(64 * 256 / 224)), transforms.CenterCrop(64)
    steps = transforms.Compose([resize, crop, transforms.PILToTensor()])
    expected = torch.stack([steps(Image.open(file)) for file in found.images.files])
    assert torch.equal(torch.cat([images for images, _, _ in found.batches(3)]), expected / 255)
    assert found.statistics()[0] == pytest.approx((expected / 255).mean((0, 2, 3)).tolist(), abs=1e-6)


def test_random_crops_depend_on_seed_and_image_but_not_on_workers_or_order(tmp_path):
    write_tree(tmp_path / "large", ("train",), size=(120, 100))
    split = load("large", tmp_path, "train", image_size=32)
    crops, in_loader = augment.for_epoch(split, "imagenet", 0, 1)
    assert in_loader is None
    images = torch.cat([images for images, _, _ in crops.batches(6)])
    order = torch.tensor([5, 0, 3, 1, 2, 4])
    shuffled = torch.cat([images for images, _, _ in crops.batches(2, order=order, workers=1)])
    assert torch.equal(shuffled, images[order])
    later, _ = augment.for_epoch(split, "imagenet", 0, 2)
    assert not torch.equal(next(later.batches(6))[0], images)


def test_images_of_unequal_size_are_decoded_as_needed(tmp_path):
    write_tree(tmp_path / "mixed", size=(40, 30))
    write_image(tmp_path / "mixed" / "test" / "cat" / "9.png", size=(20, 30))
    assert load("mixed", tmp_path, image_size=32).images.shape == (3, 32, 32)
    assert not list((tmp_path / "cache" / "decoded").iterdir())


@pytest.mark.parametrize(("size", "workers"), [((32, 32), 0), ((120, 100), 0), ((120, 100), 1)])
def test_a_corrupt_image_is_named_in_one_sentence(tmp_path, size, workers):
    write_tree(tmp_path / "pets", size=size)
    broken = tmp_path / "pets" / "test" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(UserError, match=r"dog/1.png: cannot be decoded as an image") as caught:
        list(load("pets", tmp_path).batches(6, workers=workers))
    assert "\n" not in str(caught.value)


def test_folders_with_odd_layouts(tmp_path):
    write_tree(tmp_path / "valid", ("training", "validation"))
    assert (load("valid", tmp_path).split, len(load("valid:train", tmp_path))) == ("val", 6)
    write_tree(tmp_path / "undivided", ("",))
    with pytest.warns(UserWarning, match="undivided is not divided"):
        found = load("undivided", tmp_path, "train")
    assert (found.split, len(found), found.classes) == ("all", 6, ("cat", "dog"))
    assert len(load("undivided-wo0:ood", tmp_path)) == 3
    write_image(tmp_path / "flat" / "a.png")
    assert load("flat", tmp_path).labels.tolist() == [-1]
    with pytest.raises(UserError, match="flat has no class 0"):
        datasets.check("flat-wo0", tmp_path)


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds neither class folders nor images"):
        load("empty", tmp_path)
    write_tree(tmp_path / "gap")
    (tmp_path / "gap" / "train" / "eel").mkdir()
    with pytest.raises(UserError, match="eel: holds no image"):
        load("gap", tmp_path, "train")
    write_tree(tmp_path / "once", ("train",))
    with pytest.raises(UsageError, match="no split test; once has train"):
        load("once", tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        datasets.check(f"folder={tmp_path}/nowhere", tmp_path)
    with pytest.raises(UserError, match="pets has no class 2"):
        write_tree(tmp_path / "pets")
        datasets.check("pets-wo2", tmp_path)
    (tmp_path / "MNIST").mkdir()
    with pytest.raises(UsageError, match="did you mean mnist"):
        datasets.check("MNIST", tmp_path)


@pytest.mark.parametrize("parts", [("imagenet/train", "imagenet/val"), ("training_data", "validation_data")])
def test_imagenet_has_either_spelling_of_its_folders(tmp_path, parts):
    from lib.datasets.sets.imagenet import WNIDS_100

    wnids = sorted(["n00000001", *WNIDS_100])
    write_tree(tmp_path, parts, wnids, count=1, size=(100, 100))
    train, val = load("imagenet", tmp_path, "train", image_size=32), load("imagenet", tmp_path)
    assert (train.split, val.split, train.classes) == ("train", "val", tuple(wnids))
    hundred = load("imgnet100", tmp_path)
    assert hundred.classes == WNIDS_100 and hundred.labels.tolist() == list(range(100))
    assert len(load("imagenet100-wo7:ood", tmp_path)) == 2


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs SHARED_DATA")
def test_the_hundred_classes_are_the_published_list():
    from lib.datasets.sets.imagenet import WNIDS_100

    assert list(WNIDS_100) == (SHARED_DATA / "imagenet100_wnids.txt").read_text().split()


def test_tiny_imagenet_takes_its_validation_labels_from_the_annotations(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    for name in ("n02", "n01"):
        for number in range(2):
            write_image(folder / "train" / name / "images" / f"{name}_{number}.JPEG", (64, 64))
        (folder / "train" / name / f"{name}_boxes.txt").write_text("")
    lines = []
    for number, name in enumerate(("n02", "n01", "n02")):
        write_image(folder / "val" / "images" / f"val_{number}.JPEG", (64, 64))
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t1\t1\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    train, val = load("tinyimagenet", tmp_path, "train"), load("tinyimagenet", tmp_path)
    assert (train.images.shape, train.labels.tolist()) == ((4, 3, 64, 64), [0, 0, 1, 1])
    assert (val.labels.tolist(), val.classes, val.split) == ([1, 0, 1], ("n01", "n02"), "val")
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn03\n")
    with pytest.raises(UserError, match="line 1 names no class"):
        load("tinyimagenet", tmp_path)


@pytest.mark.parametrize("name", ["textures", "places365", "inaturalist", "ssb_hard", "ninco", "openimage_o"])
def test_openood_sets_are_all_images_below_a_folder(tmp_path, name):
    write_image(tmp_path / name / "a" / "b" / "1.jpg", (100, 120))
    write_image(tmp_path / name / "2.jpg", (64, 64))
    found = load(name, tmp_path, image_size=32)
    assert (len(found), found.split, found.classes, set(found.labels.tolist())) == (2, "all", (), {-1})
    assert next(found.batches(2))[0].shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("suffix", "kind"), [("jfif", "jpeg"), ("JPE", "jpeg"), ("gif", "gif"), ("bmp", "bmp"), ("webp", "webp")]
)
def test_images_of_rarer_suffixes_are_read(tmp_path, suffix, kind):
    shades = [Image.fromarray(np.kron(levels(4, 4), np.ones((8, 8), np.uint8))) for _ in range(2)]
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    frames = {"save_all": True, "append_images": shades[1:]} if kind == "gif" else {}
    quality = {"lossless": True} if kind == "webp" else {"quality": 100} if kind == "jpeg" else {}
    shades[0].save(tmp_path / "pets" / "cat" / f"1.{suffix}", format=kind, **frames, **quality)
    found = load("pets", tmp_path, "all").images[0, 0].int()
    assert (found - torch.from_numpy(np.array(shades[0])).int()).abs().max() < 3  # of a film the first picture


def test_files_that_are_no_images_by_their_suffix_are_counted_in_one_warning(tmp_path):
    write_tree(tmp_path / "pets", ("",))
    for name in ("cat", "dog"):
        for file in (
            "a.heic",
            "b.HEIC",
            "c.npy",
            "d",
            "readme.txt",
            "README",
            "boxes.xml",
            "Thumbs.db",
            ".DS_Store",
            "._1.png",
        ):
            (tmp_path / "pets" / name / file).write_bytes(b"x")
    with pytest.warns(UserWarning) as said:
        found = load("pets", tmp_path, "all")
    (words,) = [str(warning.message) for warning in said if "suffix" in str(warning.message)]
    assert len(found) == 6 and "left out: 4 .heic, 2 .npy, 2 without a suffix; images are .jpg, " in words
    (tmp_path / "pets" / "eel").mkdir()
    (tmp_path / "pets" / "eel" / "1.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"eel: holds no image \(.*\), but 1 .heic; remove the folder or fill it"):
        load("pets", tmp_path, "all")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "1.heic").write_bytes(b"x")
    with pytest.raises(UserError, match="flat: holds neither class folders nor images, but 1 .heic"):
        load("flat", tmp_path, "all")


def test_what_lies_beside_images_in_customary_trees_is_no_warning(tmp_path, recwarn):
    write_tree(tmp_path / "pets")
    (tmp_path / "pets" / "train" / "cat" / "n_boxes.txt").write_text("x")
    (tmp_path / "pets" / "train" / "notes.zip").write_text("x")
    load("pets", tmp_path, "train")
    assert not [warning for warning in recwarn if "suffix" in str(warning.message)]


def test_a_test_split_may_lack_classes_and_its_labels_are_those_of_train(tmp_path):
    classes = ("0", "1", "2", "3", "4")
    write_tree(tmp_path / "gap", ("train",), classes)
    write_tree(tmp_path / "gap", ("test",), ("0", "2", "4"))
    (tmp_path / "gap" / "test" / "3").mkdir()
    with pytest.warns(UserWarning, match="gap/test: has no image of 2 of the 5 classes of .*gap/train, .* numbered: 1, 3$"):
        found = load("gap", tmp_path)
    assert found.classes == load("gap", tmp_path, "train").classes == classes
    assert found.labels.tolist() == [0] * 3 + [2] * 3 + [4] * 3
    for row, label in enumerate(found.labels):
        picture = Image.open(tmp_path / "gap" / "test" / str(int(label)) / f"{row % 3}.png")
        assert np.array_equal(found.images[row], np.asarray(picture).transpose(2, 0, 1))
    with pytest.warns(UserWarning, match="numbered: 1, 3$"):
        without = load("gap-wo2", tmp_path)
        assert without.classes == ("0", "1", "3", "4") and without.labels.tolist() == [0] * 3 + [3] * 3
        assert len(load("gap-wo1:ood", tmp_path)) == 3 and len(load("gap-wo2:ood", tmp_path)) == 6
        assert load("gap-k2", tmp_path).labels.tolist() == [0] * 3
        assert load("gap", tmp_path, most=3).labels.tolist() == [0, 2, 4]


def test_a_class_that_only_test_has_is_refused_with_a_way_out(tmp_path):
    write_tree(tmp_path / "more", ("train",), ("cat", "dog"))
    write_tree(tmp_path / "more", ("test",), ("dog", "eel"))
    with pytest.raises(UserError, match="more/test: .*more/train lacks its class folders eel: put .* there too") as refused:
        load("more", tmp_path)
    way_out = next(word for word in str(refused.value).split() if word.startswith("folder="))
    assert load(way_out, tmp_path, "all").classes == ("dog", "eel")
    write_tree(tmp_path / "flat", ("train",))
    write_image(tmp_path / "flat" / "test" / "1.png")
    with pytest.raises(UserError, match="flat/test: holds no class folders, but .*flat/train does, such as cat"):
        load("flat", tmp_path)
    write_tree(tmp_path / "empty", ("train",))
    (tmp_path / "empty" / "test" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="empty/test: holds no image of the classes of .*empty/train"):
        load("empty", tmp_path)
