"""Named streams of random numbers: one seed, and a generator of its own for every use.

A stream's seed is a hash of the run's seed and the stream's name, so that a new use changes no other, and a use that is
named by its epoch and step can be repeated from the middle of a run without any stored state.
"""

import hashlib

import numpy as np
import torch


def stream(seed: int, *name: str | int) -> int:
    """The 63-bit seed of the stream called `name` (any words and numbers) of a run seeded with `seed`."""
    words = "/".join(str(word) for word in (seed, *name))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *name: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator at the beginning of the named stream."""
    return torch.Generator(device=device).manual_seed(stream(seed, *name))


def numpy_generator(seed: int, *name: str | int) -> np.random.Generator:
    """A NumPy generator at the beginning of the named stream."""
    return np.random.default_rng(stream(seed, *name))
