"""Street View House Numbers, cropped digits: MATLAB files `train_32x32.mat` and `test_32x32.mat` under the root."""

from pathlib import Path

import numpy as np
import torch

from lib.core.errors import UserError
from lib.datasets import Options
from lib.datasets.split import Split
from lib.datasets.storage import mat_files


def svhn(root: Path, split: str, options: Options) -> Split:
    """Ten digits, 3 x 32 x 32: 73,257 and 26,032. The files call the digit 0 ten; here it is 0."""
    file = root / f"{split}_32x32.mat"
    try:
        content = mat_files.arrays(file)
        images, labels = content["X"], content["y"].ravel().astype(np.int64) % 10
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: cannot be read ({error}); remove it and download it again") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != 3 or images.shape[3] != len(labels):
        raise UserError(f"{file}: images {images.shape} {images.dtype}, labels {labels.shape}: not those of SVHN")
    images = torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1)))
    classes = tuple(str(digit) for digit in range(10))
    return Split("svhn", split, images, torch.from_numpy(labels), classes=classes, augmentation="affine")
