"""Image files to pixels by either decoder: torchvision's and Pillow's differ by a level."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib import datasets
from lib.core.errors import UserError
from lib.core.randomness import numpy_generator
from lib.datasets.storage import crops
from lib.datasets.storage.lazy_images import DecodedImages
from lib.datasets.storage.tensor_images import open_jpeg
from lib.experiments.config.ood_layers import OodLayersConfig
from lib.representations import feature_files
from lib.runs import loading, records


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth colours with some grain."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = draw.integers(-20, 21, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8)).convert(mode)


@pytest.fixture
def tree(tmp_path):
    """Two classes of JPEGs, one of them grey, and a PNG."""
    for number in range(6):
        folder = tmp_path / "jpegs" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(300 + 7 * number, 260, number, "L" if number == 2 else "RGB").save(folder / f"{number}.jpg", quality=90)
    picture(280, 300, 9).save(tmp_path / "jpegs" / "a" / "9.png")
    return tmp_path


def load(tree, decoder="pil", **more):
    return datasets.load("jpegs", tree, "all", cache_dir=tree / "cache", decoder=decoder, **more)


@pytest.mark.parametrize("transform", ["shorter", "squash", "square"])
def test_torchvisions_decoder_is_a_level_off_in_few_pixels(tree, transform):
    files = [*sorted(tree.rglob("*.png")), *sorted(tree.rglob("*.jpg"))]
    ours, theirs = (
        DecodedImages(files, 224, transform).decoded_by(one).take(np.arange(7)) for one in ("pil", "torchvision")
    )
    difference = (ours.short() - theirs.short()).abs()
    assert ours.shape == theirs.shape == (7, 3, 224, 224)
    assert difference.max() <= 1 and 0 < (difference > 0).double().mean() < 0.02
    assert not difference[0].any()  # the PNG


@pytest.mark.parametrize("suffix", ["jpeg", "jpe", "jfif", "JFIF"])
def test_jpegs_of_every_suffix_go_through_torchvisions_decoder(tmp_path, suffix):
    picture(300, 260).save(tmp_path / f"1.{suffix}", format="jpeg")
    decoded = open_jpeg(tmp_path / f"1.{suffix}")
    assert decoded is not None and decoded.size == (300, 260)


def test_random_crops_are_the_same_ones_by_either_decoder(tree):
    draws = [
        crops.random_resized_crop(image, 64, numpy_generator(0, "crop"), 0.3)
        for image in (crops.open_image(tree / "jpegs/a/0.jpg"), load(tree, "torchvision").images._decode(0))
    ]
    assert np.asarray(draws[0]).shape == np.asarray(draws[1]).shape == (64, 64, 3)
    ours, theirs = (load(tree, decoder).images.random_crops(3, 0.3).take(np.arange(7)) for decoder in ("pil", "torchvision"))
    assert (ours.short() - theirs.short()).abs().max() <= 2


def test_a_broken_jpeg_is_one_sentence_by_either_decoder(tree):
    file = tree / "jpegs" / "a" / "0.jpg"
    file.write_bytes(file.read_bytes()[:2000])
    for decoder in ("pil", "torchvision"):
        with pytest.raises(UserError, match=r"0\.jpg: cannot be decoded as an image"):
            load(tree, decoder).images.take(np.arange(7))


def test_the_decoder_is_part_of_a_records_settings_and_of_what_features_are_kept_under(tree):
    settings = {"model_path": "a.pt", "ood": ("patches",), "data_root": str(tree), "cache_dir": str(tree / "cache")}
    ours, theirs = OodLayersConfig(**settings), OodLayersConfig(**settings, decoder="torchvision")
    assert records.place(ours, "ood_layers").path != records.place(theirs, "ood_layers").path
    keys = {feature_files.key(torch.nn.ReLU(), loading.load_split(one, "jpegs"), 3, 224) for one in (ours, theirs)}
    assert len(keys) == 2
    assert "decoder" not in vars(load(tree).images)  # what earlier versions kept is found
    assert vars(load(tree, "torchvision", most=3).images.subset(np.arange(2)))["decoder"] == "torchvision"
