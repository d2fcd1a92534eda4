"""The 19 corruptions: contracts over the whole registry, known values, and slow second implementations."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib.core.errors import UsageError, UserError
from lib.datasets.corruptions import CORRUPTIONS, EXTRA, SEVERITIES, STANDARD, corrupt, spatter
from lib.datasets.corruptions import filters as filters
from lib.datasets.corruptions.blur import disk, glass_blur, zoom_factors
from lib.datasets.corruptions.digital import elastic_transform
from lib.datasets.corruptions.draws import Draws
from lib.datasets.corruptions.weather import plasma

NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
BLURS = ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur")


def scenes(n=6, channels=3, height=32, width=32):
    """Smooth coloured images with an edge, of no particular meaning: (n, channels, height, width) uint8."""
    generator = np.random.default_rng(1)
    noise = filters.gaussian(generator.standard_normal((n, channels, height, width)), 2)
    noise[..., width // 2 :] += 0.2
    return torch.from_numpy(np.clip(128 + 400 * noise, 0, 255).astype(np.uint8))


def constant(level, n=3, channels=3):
    return torch.full((n, channels, 32, 32), level, dtype=torch.uint8)


def floats(images):
    return images.numpy().astype(np.float32) / np.float32(255)


class Scripted:
    """Stands for `Draws` and hands out given uniform numbers in [0, 1)."""

    def __init__(self, *arrays):
        self.arrays = list(arrays)

    def uniform(self, shape, low=0.0, high=1.0):
        drawn = self.arrays.pop(0)
        assert drawn.shape[1:] == shape
        return drawn * (high - low) + low


# --- contracts


def test_the_published_set_has_fifteen_standard_and_four_extra_corruptions():
    assert len(STANDARD) == 15 and EXTRA == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert tuple(CORRUPTIONS) == STANDARD + EXTRA


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_every_corruption_keeps_shape_and_type_and_changes_the_image(corruption, channels):
    images = scenes(4, channels)
    before = images.clone()
    for severity in SEVERITIES:
        corrupted = corrupt(images, corruption, severity)
        assert corrupted.shape == images.shape and corrupted.dtype == torch.uint8
        unchanged = channels == 1 and corruption == "saturate" and severity <= 3  # a grey has no saturation
        assert (corrupted != images).any() != unchanged
    assert (images == before).all()


@pytest.mark.parametrize("size", ((16, 16), (17, 40), (64, 48)))
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_every_corruption_takes_any_size_from_16(corruption, size):
    images = scenes(2, 3, *size)
    corrupted = corrupt(images, corruption, 5)
    assert corrupted.shape == images.shape and (corrupted != images).any()
    assert corrupted.float().std() > 1


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_an_image_is_corrupted_alike_whatever_the_batch_and_order(corruption):
    images = scenes(12)
    ids = torch.arange(100, 112)
    for severity in (2, 5):
        together = corrupt(images, corruption, severity, ids=ids, seed=3)
        order = torch.tensor([7, 2, 11, 0, 5])
        assert torch.equal(corrupt(images[order], corruption, severity, ids=ids[order], seed=3), together[order])
        assert torch.equal(corrupt(images, corruption, severity, ids=ids, seed=3, batch=5), together)
        assert torch.equal(corrupt(images[4:5], corruption, severity, ids=ids[4:5].tolist(), seed=3), together[4:5])


def test_draws_differ_between_ids_seeds_severities_and_corruptions():
    def noise(corruption="gaussian_noise", severity=5, **changes):
        return corrupt(constant(128, n=1), corruption, severity, **{"ids": [0], "seed": 0} | changes).float() - 128

    first = noise()
    assert torch.equal(first, noise())
    for other in (noise(ids=[1]), noise(seed=1), noise(severity=4), noise("speckle_noise")):
        assert abs(torch.corrcoef(torch.stack([first.ravel(), other.ravel()]))[0, 1]) < 0.1
    large = 2**40 + 1
    assert not torch.equal(noise(ids=[large]), noise(ids=[1]))


def test_successive_draws_of_an_image_are_independent():
    draws = Draws(7, np.arange(2))
    first, second = draws.uniform((2000,)), draws.uniform((2000,))
    together = np.corrcoef(np.concatenate([first, second]))
    assert np.abs(together - np.eye(4)).max() < 0.1


def test_no_images_make_no_images():
    assert corrupt(scenes(0), "fog", 3).shape == (0, 3, 32, 32)


def test_the_names_are_known_without_torch():
    code = "import sys; from lib.datasets.corruptions import CORRUPTIONS; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_mistakes_are_named_with_a_way_out():
    with pytest.raises(UsageError, match="fogg: no such corruption; did you mean fog"):
        corrupt(scenes(), "fogg", 1)
    for severity in (0, 6):
        with pytest.raises(UsageError, match=f"fog-{severity}: .* 1, 2, 3, 4 or 5"):
            corrupt(scenes(), "fog", severity)
    with pytest.raises(UserError, match="uint8 levels 0 to 255, not as float32"):
        corrupt(scenes().float(), "fog", 1)
    with pytest.raises(UserError, match="1 or 3, height, width"):
        corrupt(scenes()[:, :2], "fog", 1)
    with pytest.raises(UserError, match="12 x 32 are too small"):
        corrupt(scenes()[:, :, :12], "fog", 1)
    with pytest.raises(UserError, match="6 images need as many ids"):
        corrupt(scenes(), "fog", 1, ids=[1, 2])


# --- known values


@pytest.mark.parametrize("corruption", ("gaussian_noise", "shot_noise", "speckle_noise"))
def test_noises_have_their_standard_deviation_on_mid_grey(corruption):
    noisy = corrupt(constant(128, n=400), corruption, 5)  # 1.2 million values
    assert noisy.double().std().item() == pytest.approx(25.5, rel=0.01)


def test_impulse_noise_changes_its_fraction_of_values_half_to_black_half_to_white():
    noisy = corrupt(constant(128, n=400), "impulse_noise", 5)
    assert (noisy != 128).double().mean().item() == pytest.approx(0.07, abs=0.002)
    assert (noisy == 255).double().mean().item() == pytest.approx(0.035, abs=0.002)
    assert set(noisy.unique().tolist()) == {0, 128, 255}


@pytest.mark.parametrize("corruption", ("contrast", "pixelate", "elastic_transform", *BLURS))
def test_a_constant_image_stays_as_it_is(corruption):
    for level in (0, 37, 128, 255):
        for severity in SEVERITIES:
            assert (corrupt(constant(level), corruption, severity).int() - level).abs().max() <= 1


def test_brightness_is_truncated_not_rounded():
    assert (corrupt(constant(0), "brightness", 5) == 76).all()  # of 76.5


def test_brightness_keeps_hue_and_saturation():
    images = torch.tensor([100, 50, 20], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 32, 32)
    red, green, blue = corrupt(images, "brightness", 3)[0, :, 0, 0].tolist()
    assert red == 138 and abs(green - red / 2) <= 1 and abs(blue - red / 5) <= 1


def test_saturating_leaves_greys_alone_until_it_adds_saturation():
    for severity in (1, 2, 3):
        assert torch.equal(corrupt(constant(150), "saturate", severity), constant(150))
    for severity, saturation in ((4, 0.1), (5, 0.2)):
        red, green, blue = corrupt(constant(150), "saturate", severity).int().unbind(1)
        assert (red == 150).all() and torch.equal(green, blue)
        assert (green - 150 * (1 - saturation)).abs().max() <= 1


def test_one_channel_is_corrupted_as_its_repetition_to_rgb():
    images = scenes(3, 1)
    for corruption in ("saturate", "spatter", "frost"):
        rgb = corrupt(images.expand(-1, 3, -1, -1), corruption, 5).permute(0, 2, 3, 1).contiguous().numpy()
        luma = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in rgb])
        assert np.array_equal(corrupt(images, corruption, 5)[:, 0].numpy(), luma)


@pytest.mark.parametrize("corruption", (*NOISES, "contrast"))
def test_the_distance_to_the_clean_image_grows_with_severity(corruption):
    images = scenes(24)
    distances = [(corrupt(images, corruption, severity).double() - images).square().mean() for severity in SEVERITIES]
    assert distances == sorted(distances) and len(set(distances)) == 5


def test_a_cloud_spans_zero_to_one_and_has_no_seam():
    clouds = plasma(32, 3, Draws(0, np.arange(5)))
    assert (clouds.min((1, 2)) == 0).all() and (clouds.max((1, 2)) == 1).all()
    inside = np.abs(np.diff(clouds, axis=1)).mean()
    assert np.abs(clouds[:, -1] - clouds[:, 0]).mean() < 2 * inside


def test_snow_is_added_together_with_its_half_turn():
    black = constant(0, channels=1)
    whitened = int(255 * 0.2 * 0.5 + 1e-3)  # severity 5 blends a fifth of 0.5 into black
    flakes = corrupt(black, "snow", 5).int() - whitened
    assert flakes.max() > 20 and (flakes - flakes.flip((2, 3))).abs().max() <= 1


# --- slow second implementations


def test_contrast_agrees_with_its_formula():
    images = scenes()
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)
    for severity in SEVERITIES:
        for image, found in zip(images.numpy(), corrupt(images, "contrast", severity).numpy(), strict=True):
            x = image / 255
            mean = x.mean(axis=(1, 2), keepdims=True)
            expected = (np.clip((x - mean) * factor[severity - 1] + mean, 0, 1) * 255).astype(np.uint8)
            assert (np.abs(found.astype(int) - expected) <= 1).all() and (found == expected).mean() > 0.99


@pytest.mark.parametrize("severity, coarse", zip(SEVERITIES, (30, 28, 27, 24, 20), strict=True))
def test_pixelate_averages_whole_pixels_and_repeats_them(severity, coarse):
    image = scenes(1, 1)
    small = np.zeros((coarse, coarse))
    edges = [(int(i * 32 / coarse + 0.5), int((i + 1) * 32 / coarse + 0.5)) for i in range(coarse)]
    for i, (top, bottom) in enumerate(edges):
        for j, (left, right) in enumerate(edges):
            small[i, j] = image[0, 0, top:bottom, left:right].double().mean()
    nearest = ((np.arange(32) + 0.5) * coarse / 32).astype(int)
    found = corrupt(image, "pixelate", severity)[0, 0].numpy()
    assert np.abs(found - small[nearest][:, nearest]).max() <= 1  # Pillow rounds rows and columns apart
    assert len(np.unique(found, axis=0)) == coarse


def test_zoom_blur_has_the_factors_of_arange():
    assert [len(zoom_factors(severity)) for severity in SEVERITIES] == [7, 12, 16, 21, 26]


def test_zooming_agrees_with_scipy_on_a_centre_crop():
    from scipy.ndimage import zoom

    images = floats(scenes(2, 1, 32, 32))
    for factor in (1.04, 1.17, 1.25, 1.75, 2.25):
        crop = int(np.ceil(32 / factor))
        top = (32 - crop) // 2
        for image, found in zip(images[:, 0], filters.mean_zoom(images, [factor])[:, 0], strict=True):
            large = zoom(image[top : top + crop, top : top + crop], factor, order=1)
            trim = (len(large) - 32) // 2
            np.testing.assert_allclose(found, large[trim : trim + 32, trim : trim + 32], atol=1e-6)


def test_motion_blur_sums_pixels_along_its_line():
    images, radius, sigma = floats(scenes(3, 1, 20, 24)), 6, 2.0
    angles = np.array([30.0, -110.0, 0.0])
    found = filters.motion(images, radius, sigma, angles)
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for image, angle, blurred in zip(images[:, 0], np.deg2rad(angles), found[:, 0], strict=True):
        for y in range(20):
            for x in range(24):
                value = 0.0
                for tap, weight in enumerate(weights):
                    down, right = np.ceil(tap * np.sin(angle) - 0.5), np.ceil(tap * np.cos(angle) - 0.5)
                    value += weight * image[int(np.clip(y + down, 0, 19)), int(np.clip(x + right, 0, 23))]
                assert abs(255 * blurred[y, x] - 255 * value) <= 0.501


def test_glass_blur_agrees_with_the_original_scan_and_its_copying_swap():
    image = scenes(1)
    severity, sigma, scans = 5, 0.4, 2
    offsets = np.random.default_rng(0).random((scans, 1, 2, 30, 30))
    x = image[0].permute(1, 2, 0).numpy() / np.float32(255)

    def blurred(array):
        return filters.gaussian(array.transpose(2, 0, 1), sigma).transpose(1, 2, 0)

    x = (blurred(x) * 255 + 1e-3).astype(np.uint8)
    for scan in range(scans):
        for h in range(31, 1, -1):
            for w in range(31, 1, -1):
                dy, dx = np.floor(offsets[scan, 0, :, h - 2, w - 2] * 2 - 1).astype(int)
                x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    expected = blurred(x / np.float32(255)).transpose(2, 0, 1)
    np.testing.assert_allclose(glass_blur(floats(image), severity, Scripted(*offsets))[0], expected, atol=1e-5)


@pytest.mark.parametrize("radius, sigma, pixels", ((0.3, 0.4, 9), (1, 0.2, 5), (1.5, 0.1, 9)))
def test_a_disk_is_normalised_and_a_small_one_is_its_anti_aliasing(radius, sigma, pixels):
    weights = disk(radius, sigma)
    assert weights.sum() == pytest.approx(1) and np.array_equal(weights, weights.T)
    if radius < 1:
        line = np.exp(-np.array([1, 0, 1]) / (2 * sigma**2))
        np.testing.assert_allclose(weights[2:5, 2:5], np.outer(line, line) / line.sum() ** 2, rtol=1e-6)
    assert (weights > 1e-3).sum() == pixels


def test_elastic_transform_moves_three_points_where_they_were_drawn_to():
    image = np.zeros((1, 1, 32, 32), np.float32)
    image += np.arange(32, dtype=np.float32) / 32  # a ramp shows where each column came from
    draws = np.random.default_rng(0).random((1, 3, 2))
    moved = elastic_transform(image, 1, Scripted(draws))[0, 0]
    before = np.array([[26, 26], [26, 6], [6, 6]])
    for (x, _), (u, v) in zip(before, before + (2 * draws[0] - 1) * 2.56, strict=True):
        column, row = int(u), int(v)
        down, right = np.array([1 - v + row, v - row]), np.array([1 - u + column, u - column])
        there = down @ moved[row : row + 2, column : column + 2] @ right
        assert 32 * there == pytest.approx(x, abs=1e-3)


def test_chamfer_distance_is_the_shortest_path_of_its_moves():
    marked = np.random.default_rng(0).random((3, 1, 16, 16)) < 0.03
    moves = {(y, x): length for y, x, length in [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 1.4), (1, 2, 2.1969), (2, 1, 2.1969)]}
    moves = {(a * y, b * x): length for (y, x), length in moves.items() for a in (-1, 1) for b in (-1, 1)}
    found = spatter.chamfer_distance(marked)[:, 0] / 65536
    for image, distance in zip(marked[:, 0], found, strict=True):
        expected = np.where(image, 0, np.inf)
        for _ in range(32):  # Bellman and Ford
            for (y, x), length in moves.items():
                shifted = np.pad(expected, 2, constant_values=np.inf)[2 + y : 18 + y, 2 + x : 18 + x]
                expected = np.minimum(expected, shifted + length)
        np.testing.assert_allclose(distance, expected, atol=1e-3)


def test_canny_outlines_a_square_and_keeps_weak_edges_only_where_they_touch_strong_ones():
    levels = np.zeros((3, 1, 32, 32), np.int32)
    levels[0, 0, 8:20, 8:20] = 200
    levels[1:, 0, 8:20, 8:20] = 24  # |dx| + |dy| up to 144: above the low threshold, below the high one
    levels[2, 0, 8:20, 18:28] = 200
    square, weak, both = spatter.canny(levels, 50, 150)[:, 0]
    ys, xs = np.nonzero(square)
    assert ys.min() in (7, 8) and ys.max() in (19, 20) and xs.min() in (7, 8) and xs.max() in (19, 20)
    assert not square[10:18, 10:18].any() and 40 <= square.sum() <= 52
    assert not weak.any()
    assert both[6:10, 10:16].any(axis=0).all()


def test_spatter_leaves_dry_images_alone():
    assert (spatter.relief(np.zeros((2, 1, 32, 32), np.int32)) >= 0).all()

    class Dry:
        def normal(self, shape, mean, deviation):
            return np.zeros((2, *shape), np.float32)

    images = floats(scenes(2))
    for severity in SEVERITIES:
        assert np.array_equal(spatter.spatter(images, severity, Dry()), images)


def test_equalizing_follows_the_cumulative_histogram():
    levels = np.array([3, 3, 5, 5, 5, 9, 20, 20]).reshape(1, 1, 2, 4)
    found = spatter.equalized(levels).ravel()
    assert found.tolist() == [0, 0, *[round(255 * 3 / 6)] * 3, round(255 * 4 / 6), 255, 255]


# --- real images


def test_jpeg_error_on_photographs_grows_with_severity():
    data = Path(os.environ.get("SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (data / "imagenet_sample_64.npy").exists():
        pytest.skip("SHARED_DATA has no imagenet_sample_64.npy")
    images = torch.from_numpy(np.load(data / "imagenet_sample_64.npy")[:50].transpose(0, 3, 1, 2).copy())
    errors = [(corrupt(images, "jpeg_compression", s).double() - images).square().mean() for s in SEVERITIES]
    assert errors == sorted(errors)
