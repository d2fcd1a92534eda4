"""Which images a network still classifies correctly when they are attacked: the worst case over attacks and restarts."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.attacks import pgd
from lib.attacks.flags import ATTACKS
from lib.attacks.pgd import Ball
from lib.core import cache_folders, saved_state
from lib.core.errors import UserError
from lib.core.progress import ATTACK
from lib.core.randomness import generator, stream
from lib.datasets.batching import Batching
from lib.datasets.split import Split


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack of `ATTACKS`, by name, within a ball; an image must survive all `restarts`. pgd takes the step size."""

    name: str
    ball: Ball
    steps: int
    step_size: float
    restarts: int = 1
    seed: int = 0


def robust_images(network: nn.Module, split: Split, attack: Attack, batching: Batching, cache_dir: str | Path) -> Tensor:
    """Boolean (n,): the images that are classified correctly and stay so under the attack, in the order of the split.

    Images that are wrong, or attacked with success, are not attacked again. What every batch came to is kept under
    `cache_dir` by the content of weights and images, so that an interrupted run continues. O(n restarts steps) passes,
    all in float32.
    """
    network.eval()
    path = cache_folders.folder(cache_dir, "attacks") / f"{_key(network, attack, batching.batch_size)}.npz"
    done = batching.processes.read_once(lambda: saved_state.read_arrays(path)) or {}  # by the content of a batch

    def attacked(images: Tensor, labels: Tensor, positions: Tensor) -> tuple[str, np.ndarray]:
        key = saved_state.content_key(images, labels)
        if key in done:
            return key, done[key]
        return key, _survive(network, images, labels, attack, int(positions[0]) // batching.batch_size).cpu().numpy()

    robust = []
    for _, (key, survived) in batching.each(split, f"{attack.name} on {split.name}", attacked, kind=ATTACK):
        if key not in done:
            done[key] = survived
            if batching.processes.rank == 0:
                saved_state.write_arrays(path, done)
        robust.append(torch.from_numpy(survived))
    return torch.cat(robust)


def _survive(network: nn.Module, images: Tensor, labels: Tensor, attack: Attack, number: int) -> Tensor:
    """Boolean (b,): the images of batch `number` that are classified correctly and stay so."""
    with torch.no_grad():
        robust = network(images).argmax(1) == labels
    for restart in range(attack.restarts if attack.name == "pgd" else 1):
        left = robust.nonzero().squeeze(1)
        if not len(left):
            break
        if attack.name == "pgd":
            draws = generator(attack.seed, "attack", restart, number, device=images.device)
            perturbed = _pgd(network, images[left], labels[left], attack, draws)
        else:
            perturbed = _library(network, images[left], labels[left], attack)
        with torch.no_grad():
            robust[left] = network(perturbed).argmax(1) == labels[left]
    return robust


def check(attack: str) -> None:
    """Raises `UserError` if the attack needs a library that is not there."""
    if attack in ATTACKS and attack != "pgd" and importlib.util.find_spec("pyautoattack") is None:
        raise UserError(
            f"--attack {attack} needs the optional package pyautoattack: pip install pyautoattack; pgd needs nothing"
        )


def _pgd(network: nn.Module, images: Tensor, labels: Tensor, attack: Attack, draws: torch.Generator) -> Tensor:
    return pgd.pgd(
        network,
        images,
        pgd.cross_entropy(labels),
        attack.ball,
        start=attack.ball.uniform_start(images, draws),
        steps=attack.steps,
        step_size=attack.step_size,
        generator=draws,
    )


def _library(network: nn.Module, images: Tensor, labels: Tensor, attack: Attack) -> Tensor:
    """AutoAttack's standard version, or its APGD on cross-entropy alone (Croce & Hein 2020)."""
    from pyautoattack import AutoAttack  # ty: ignore[import-not-found] an optional package

    options = {"version": "custom", "attacks": ["apgd-ce"]} if attack.name == "apgd" else {"version": "standard"}
    library = AutoAttack(
        network,
        norm="Linf" if attack.ball.norm == "inf" else "L2",
        eps=attack.ball.radius,
        device=images.device,
        seed=stream(attack.seed, "attack") % 2**31,
        **options,
    )
    library.apgd.n_restarts = attack.restarts
    with torch.no_grad():
        classes = network(images[:1]).shape[1]
    for targeted in (library.apgd_targeted, library.fab):
        targeted.n_target_classes = min(9, classes - 1)
    with pgd.attacked(network):
        perturbed, _ = library.run_standard_evaluation(images, labels, batch_size=len(images))
    return attack.ball.project(images, perturbed)


def _key(network: nn.Module, attack: Attack, batch_size: int) -> str:
    settings = (attack.name, attack.ball, attack.steps, attack.step_size, attack.restarts, attack.seed, batch_size)
    return saved_state.content_key(repr(settings), *saved_state.network_parts(network))
