"""Checkpoints as the papers' own codes save them, with weights made by rule, and the logits of their own networks.

`reference_networks/<file>.json` states the names and shapes of all tensors as the paper's code has them, under which key of
the file they lie, a salt that seeds the weights and images, and the logits for these.
"""

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).with_name("reference_networks")
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Reference:
    """A type, its checkpoint as it would lie in a file, images (4, c, h, w), tokens or vectors in [0, 1], logits (4, k)."""

    type: str
    classes: int
    content: dict
    images: Tensor
    logits: Tensor


def read(file: str) -> Reference:
    """The reference of that name."""
    told = json.loads((FOLDER / f"{file}.json").read_text())
    state = {
        name: _tensor(name.replace("features.module.", "features."), shape, told["salt"]) for name, shape in told["tensors"]
    }
    content = {"epoch": 70, told["wrapped_as"]: state} if told["wrapped_as"] else state
    images = torch.randint(0, 256, (4, *told["input"]), generator=_draw(told["salt"], "images")) / 255
    if len(told["input"]) == 1:  # a vector of stored features
        images = images[..., None, None]
    return Reference(told["type"], told["classes"], content, images, torch.tensor(told["logits"]))


def _draw(salt: str, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{salt}/{name}".encode()))


def _tensor(name: str, shape: list[int], salt: str) -> Tensor:
    draw, kind = _draw(salt, name), name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.tensor(7)
    if kind == "running_var":
        return 0.5 + torch.rand(shape, generator=draw)
    numbers = torch.randn(shape, generator=draw)
    if kind == "running_mean":
        return 0.1 * numbers
    if len(shape) > 1:
        return numbers * math.sqrt(2 / max(1, math.prod(shape[1:])))
    return 1 + 0.1 * numbers if kind == "weight" else 0.1 * numbers
