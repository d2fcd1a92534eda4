"""The 19 image corruptions of CIFAR-10-C at five severities, for images of any size from 16 x 16.

Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", with
the constants of the published CIFAR-10-C, which are milder than ImageNet-C's. They are pixels of 32 x 32 images and are
applied unscaled at every size: a blur of one pixel stays a blur of one pixel.

The published arrays were drawn from an unseeded generator and cannot be made again bit for bit. What is made here has
their distribution, except that drawn textures replace the photographs of `frost`: call it CIFAR-10-C-like.

An image's corruption depends on the seed and the image's id alone, never on the images beside it, so a subset of a
corrupted set is the corrupted subset. Each function takes float32 images in [0, 1] (n, c, h, w), the severity and the
images' random draws, and returns images that are clipped and truncated to 8 bits here.

Nothing here imports torch before `corrupt` is called: the names are needed to parse a command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib.core.errors import UsageError, UserError
from lib.core.registry import near, resolve

if TYPE_CHECKING:
    import torch

SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST_SIDE = 16
PIXELS_PER_CHUNK = 1 << 19  # 512 images of 32 x 32, 6 MB of float32: near enough to the caches

CORRUPTIONS: dict[str, str] = {
    "gaussian_noise": "lib.datasets.corruptions.noise:gaussian_noise",
    "shot_noise": "lib.datasets.corruptions.noise:shot_noise",
    "impulse_noise": "lib.datasets.corruptions.noise:impulse_noise",
    "defocus_blur": "lib.datasets.corruptions.blur:defocus_blur",
    "glass_blur": "lib.datasets.corruptions.blur:glass_blur",
    "motion_blur": "lib.datasets.corruptions.blur:motion_blur",
    "zoom_blur": "lib.datasets.corruptions.blur:zoom_blur",
    "snow": "lib.datasets.corruptions.weather:snow",
    "frost": "lib.datasets.corruptions.frost:frost",
    "fog": "lib.datasets.corruptions.weather:fog",
    "brightness": "lib.datasets.corruptions.weather:brightness",
    "contrast": "lib.datasets.corruptions.digital:contrast",
    "elastic_transform": "lib.datasets.corruptions.digital:elastic_transform",
    "pixelate": "lib.datasets.corruptions.digital:pixelate",
    "jpeg_compression": "lib.datasets.corruptions.digital:jpeg_compression",
    "speckle_noise": "lib.datasets.corruptions.noise:speckle_noise",
    "gaussian_blur": "lib.datasets.corruptions.blur:gaussian_blur",
    "spatter": "lib.datasets.corruptions.spatter:spatter",
    "saturate": "lib.datasets.corruptions.digital:saturate",
}
STANDARD = tuple(CORRUPTIONS)[:15]  # the set most benchmarks average over
EXTRA = tuple(CORRUPTIONS)[15:]  # the paper's hold-out for tuning; "CIFAR-10-C" sometimes means all 19

# These work on colours: a grey image is repeated to RGB, corrupted, and brought back by its ITU-R 601 luma.
IN_COLOUR = ("frost", "saturate", "spatter")


def own_file(corruption: str) -> Path | None:
    """The file of a corruption of the user's own, `path/to/file.py:function`; None for a name of CORRUPTIONS."""
    path, colon, _ = corruption.rpartition(":")
    return Path(path) if colon else None


def check(corruption: str, severity: int) -> None:
    """Raises a UsageError for a corruption or severity that does not exist; imports no torch and opens no file."""
    if corruption not in CORRUPTIONS and own_file(corruption) is None:
        guess = near(corruption, CORRUPTIONS)
        known = "" if guess.startswith("known") else f" (known are {', '.join(CORRUPTIONS)})"
        raise UsageError(f"{corruption}: no such corruption; {guess}{known}; one of your own is path/to/file.py:function")
    if severity not in SEVERITIES:
        raise UsageError(f"{corruption}-{severity}: a corruption's severity is 1, 2, 3, 4 or 5")


def corrupt(
    images: torch.Tensor,
    corruption: str,
    severity: int,
    *,
    ids: Sequence[int] | torch.Tensor | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> torch.Tensor:
    """The corrupted copy, uint8 on the CPU, of `images` (n, c, h, w), uint8 with c = 1 or 3 and h, w >= 16.

    A corruption is a name of CORRUPTIONS, or a function of the user's own (see `own`), for which images may be smaller.
    `ids` (n,), by default 0 to n - 1, name the images; each has random numbers of its own for every corruption,
    severity and seed. `batch`, the images corrupted at once, bounds the memory (some 20 times the batch's as floats)
    and changes no result.
    """
    import numpy as np
    import torch

    from lib.core.randomness import stream
    from lib.datasets.corruptions import own
    from lib.datasets.corruptions.draws import Draws

    check(corruption, severity)
    _check_images(images, corruption)
    names = np.arange(len(images)) if ids is None else np.asarray(ids, dtype=np.int64)
    if names.shape != (len(images),):
        raise UserError(f"{corruption}: {len(images)} images need as many ids, not an array of shape {names.shape}")
    if own_file(corruption) is not None:
        return torch.from_numpy(own.corrupt(images.cpu().numpy(), corruption, severity, names, seed))
    function = resolve(CORRUPTIONS[corruption])
    key = stream(seed, "corruption", corruption, severity)
    n, channels, height, width = images.shape
    batch = batch or max(1, PIXELS_PER_CHUNK // (height * width))
    corrupted = torch.empty(images.shape, dtype=torch.uint8)
    for start in range(0, n, batch):
        clean = images[start : start + batch].cpu().numpy().astype(np.float32) / np.float32(255)
        if channels == 1 and corruption in IN_COLOUR:
            clean = np.repeat(clean, 3, axis=1)
        levels = _truncated(function(clean, severity, Draws(key, names[start : start + batch])))
        if levels.shape[1] != channels:
            levels = _luma(levels)
        corrupted[start : start + batch] = torch.from_numpy(levels)
    return corrupted


def _check_images(images: torch.Tensor, corruption: str) -> None:
    kind = str(getattr(images, "dtype", type(images).__name__)).removeprefix("torch.")
    if kind != "uint8":
        raise UserError(f"{corruption}: images are corrupted as uint8 levels 0 to 255, not as {kind}")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"{corruption}: images must be (n, 1 or 3, height, width), not {tuple(images.shape)}")
    if min(images.shape[2:]) < SMALLEST_SIDE and corruption in CORRUPTIONS:
        raise UserError(
            f"{corruption}: images of {images.shape[2]} x {images.shape[3]} are too small for constants "
            f"made for 32 x 32; resize them to at least {SMALLEST_SIDE} x {SMALLEST_SIDE}"
        )


def _truncated(images):
    """[0, 1] floats clipped and truncated, not rounded, to uint8 levels, as the original does.

    The original computes in float64, this in float32: the added thousandth of a level keeps a level that comes out a
    rounding error short of an integer from losing a whole one.
    """
    import numpy as np

    return (np.clip(images, 0, 1) * np.float32(255) + np.float32(1e-3)).astype(np.uint8)


def _luma(levels):
    """ITU-R 601 luma (n, 1, h, w) of RGB levels (n, 3, h, w), rounded, in the integers that Pillow uses."""
    import numpy as np

    red, green, blue = (levels[:, i : i + 1].astype(np.uint32) for i in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)
