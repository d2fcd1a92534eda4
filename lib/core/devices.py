"""Which device a run computes on, and in which arithmetic."""

import contextlib
import os

import torch

from lib.core import allocator
from lib.core.errors import UserError


def device(gpu: int | None) -> torch.device:
    """The device that `-gpu` names: None is the first GPU where there is one, else the CPU; -1 is the CPU.

    Under `torchrun`, None is the GPU of this process's number. On the CPU freed memory is kept from now on.
    """
    if gpu is None:
        gpu = int(os.environ.get("LOCAL_RANK", 0)) if torch.cuda.is_available() else -1
    if gpu < 0:
        allocator.keep_freed_memory()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"-gpu {gpu}: there is no GPU here; -gpu -1 runs on the CPU")
    if gpu >= torch.cuda.device_count():
        raise UserError(f"-gpu {gpu}: there are {torch.cuda.device_count()} GPUs, numbered from 0")
    return torch.device("cuda", gpu)


def resolve_precision(precision: str, device: torch.device, training: bool = False) -> str:
    """ "fp32" or "bf16": "auto" is bf16 for training on a GPU that has it, and float32 everywhere else."""
    if precision == "auto":
        fast = training and device.type == "cuda" and torch.cuda.is_bf16_supported()
        return "bf16" if fast else "fp32"
    return precision


def arithmetic(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The autocast context of a resolved precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def set_deterministic(deterministic: bool) -> None:
    """Asks for deterministic kernels, or for the fastest ones."""
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # setting it imports the compiler, two seconds
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
