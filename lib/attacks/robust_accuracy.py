"""Which images a network still classifies correctly when they are attacked: the worst case over attacks and restarts."""

import hashlib
import importlib.util
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.attacks import pgd
from lib.attacks.flags import ATTACKS
from lib.attacks.pgd import Ball
from lib.core import files
from lib.core.errors import UserError
from lib.core.progress import image_bar
from lib.core.randomness import generator, stream
from lib.datasets.split import Split


def robust_images(
    network: nn.Module,
    split: Split,
    attack: str,
    ball: Ball,
    *,
    steps: int,
    step_size: float,
    restarts: int,
    seed: int,
    batch_size: int,
    channels: int | None = None,
    size: int | None = None,
    cache_dir: str | Path,
    workers: int = 0,
    prefetch: int = 2,
    quiet: bool = False,
) -> Tensor:
    """Boolean (n,): the images that are classified correctly and stay so under every attack, in the order of the split.

    Images that are wrong, or attacked with success, are not attacked again. What every batch came to is kept under
    `cache_dir` by the content of weights and images, so that an interrupted run continues. O(n restarts steps) passes.
    """
    device = next(network.parameters()).device
    network.eval()
    kept = _Kept(Path(cache_dir), _digest(network, (attack, ball, steps, step_size, restarts, seed, batch_size)))
    batches = split.batches(batch_size, device=device, channels=channels, size=size, workers=workers, prefetch=prefetch)
    found = []
    for number, (images, labels, _) in enumerate(
        image_bar(batches, len(split), batch_size, label=f"{attack} on {split.name}", quiet=quiet)
    ):
        key = hashlib.sha256(images.cpu().numpy().tobytes() + labels.cpu().numpy().tobytes()).hexdigest()
        if key not in kept.batches:
            with torch.no_grad():
                robust = network(images).argmax(1) == labels
            for restart in range(restarts if attack == "pgd" else 1):
                left = robust.nonzero().squeeze(1)
                if not len(left):
                    break
                chosen = images[left]
                if attack == "pgd":
                    perturbed = _pgd(
                        network,
                        chosen,
                        labels[left],
                        ball,
                        steps,
                        step_size,
                        generator(seed, "attack", restart, number, device=device),
                    )
                else:
                    perturbed = _library(network, chosen, labels[left], attack, ball, restarts, stream(seed, "attack"))
                with torch.no_grad():
                    robust[left] = network(perturbed).argmax(1) == labels[left]
            kept.add(key, robust.cpu().numpy())
        found.append(torch.from_numpy(kept.batches[key]))
    return torch.cat(found)


def check(attack: str) -> None:
    """Raises `UserError` if the attack needs a library that is not there."""
    if attack in ATTACKS and attack != "pgd" and importlib.util.find_spec("pyautoattack") is None:
        raise UserError(
            f"--attack {attack} needs the optional package pyautoattack: pip install pyautoattack; pgd needs nothing"
        )


def _pgd(network, images: Tensor, labels: Tensor, ball: Ball, steps: int, step_size: float, draws) -> Tensor:
    return pgd.pgd(
        network,
        images,
        pgd.cross_entropy(labels),
        ball,
        start=ball.uniform_start(images, draws),
        steps=steps,
        step_size=step_size,
        generator=draws,
    )


def _library(network, images: Tensor, labels: Tensor, attack: str, ball: Ball, restarts: int, seed: int) -> Tensor:
    """AutoAttack's standard version, or its APGD on cross-entropy alone (Croce & Hein 2020)."""
    from pyautoattack import AutoAttack

    options = {"version": "custom", "attacks": ["apgd-ce"]} if attack == "apgd" else {"version": "standard"}
    found = AutoAttack(
        network,
        norm="Linf" if ball.norm == "inf" else "L2",
        eps=ball.radius,
        device=images.device,
        seed=seed % 2**31,
        **options,
    )
    found.apgd.n_restarts = restarts
    with torch.no_grad():
        classes = network(images[:1]).shape[1]
    for targeted in (found.apgd_targeted, found.fab):
        targeted.n_target_classes = min(9, classes - 1)
    with pgd.attacked(network):
        perturbed, _ = found.run_standard_evaluation(images, labels, batch_size=len(images))
    return ball.project(images, perturbed)


class _Kept:
    """What batches came to, in one file that is written again after each."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.path, self.batches = folder / "attacks" / f"{digest}.npz", {}
        try:
            with np.load(self.path) as arrays:
                self.batches = dict(arrays)
        except files.NO_ARRAYS:
            pass  # not there, or not whole

    def add(self, key: str, robust: np.ndarray) -> None:
        self.batches[key] = robust
        buffer = io.BytesIO()
        np.savez(buffer, **self.batches)
        files.write_atomically(self.path, lambda file: file.write(buffer.getbuffer()))


def _digest(network: nn.Module, settings: tuple) -> str:
    digest = hashlib.sha256(repr(settings).encode())
    for key, value in [*network.state_dict().items(), *network.named_buffers()]:
        digest.update(key.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
