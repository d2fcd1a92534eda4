"""Which images a probe learns from, which choose its settings and its layer, and which test it.

Intermediate-layers paper, sections 2.2 and 2.4. An image is known by its clean id: the set and split it comes from and its
position there, so that corrupted versions of one image always share a role. Roles are drawn by seed, the same for every
shift of a set.
"""

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lib.core.errors import UserError
from lib.core.randomness import generator
from lib.datasets import names
from lib.datasets.split import Split

ROLES = ("probe-train", "id-val", "probe-val", "layer-val", "test")

# Shares of the ids of an OOD set that has no validation split of its own: (probe-train, probe-val, layer-val), the rest
# tests. The paper's have one validation set for settings and layer, or none where it chose on the test images.
CLEAN = {"id": (0, 0, 0), "zero-shot": (0, 0.05, 0.05), "few-shot": (0.3, 0.1, 0.1), "full-ood": (0.3, 0.1, 0.1)}
PAPER = {"id": (0, 0, 0), "zero-shot": (0, 0.1, 0), "few-shot": (0.1, 0, 0), "full-ood": (0.5, 0, 0)}
# The same of a validation split, when the set has one: nothing of it tests.
CLEAN_VAL = {"zero-shot": (0, 0.5, 0.5), "few-shot": (0.6, 0.2, 0.2), "full-ood": (0.6, 0.2, 0.2)}
PAPER_VAL = {"zero-shot": (0, 1, 0), "few-shot": (1, 0, 0), "full-ood": (1, 0, 0)}
ID_VAL = 0.1  # of the in-distribution training images
# sets made of another one's images, whose ids they keep; their split "val" is part of the other's "train"
MADE_OF = {"digits-bg": "digits", "digits-colour": "digits", "cmnist": "mnist", "cmnist-domainbed": "mnist"}


@dataclass(frozen=True)
class Shares:
    """Clean ids per role, for every shift of one set and one seed."""

    ids: dict[str, Tensor] = field(default_factory=dict)

    def positions(self, split: Split, role: str) -> Tensor:
        """The positions (m,) of a role's images in a split, in order."""
        chosen = self.ids.get(role)
        if chosen is None or not len(chosen):
            return torch.empty(0, dtype=torch.int64)
        return torch.isin(split.indices, chosen).nonzero().squeeze(1)


def origin(name: str, split: Split) -> str:
    """Where a split's ids come from: `cifar10:test` of `cifar10-c/fog-3`, `digits:train` of `digits-bg:val`."""
    data = names.parse(name)
    base = data.path or data.base
    if base in MADE_OF:
        return f"{MADE_OF[base]}:{'train' if split.split == 'val' else split.split}"
    return f"{base}:{split.split}"


def divide(ids: Tensor, protocol: str, roles: str, seed: int, validation: bool = False) -> Shares:
    """Clean ids (n,) divided among the roles of a protocol.

    roles         "clean" or "paper"
    validation    the ids are those of a validation split, of which nothing tests
    """
    table = {("clean", False): CLEAN, ("paper", False): PAPER, ("clean", True): CLEAN_VAL, ("paper", True): PAPER_VAL}
    shares = table[roles, validation][protocol]
    unique = ids.unique()
    order = unique[torch.randperm(len(unique), generator=generator(seed, "roles"))]
    by_role, begin = {}, 0
    for role, share in zip(("probe-train", "probe-val", "layer-val"), shares, strict=True):
        count = round(share * len(order))
        by_role[role] = order[begin : begin + count]
        begin += count
    by_role["test"] = order[:0] if validation else order[begin:]
    if roles == "paper" and protocol == "zero-shot":
        by_role["layer-val"] = by_role["probe-val"]  # the paper chose settings and layer on the same images
        by_role["test"] = by_role["test"] if validation else order  # and its notebook tests on these as well
    return Shares(by_role)


class InnerDivision(NamedTuple):
    """Positions in the in-distribution training split: of images that train, and of those that are held out to validate."""

    train: Tensor
    held_out: Tensor


def divide_inner(n: int, share: float, seed: int, unseen: Tensor | None = None) -> InnerDivision:
    """The in-distribution training images, of which a share is held out.

    unseen    positions (m,) of images that the network has not learnt from: where there are some, no others are held out,
              and at most all of them
    """
    order = torch.randperm(n, generator=generator(seed, "id-val"))
    if unseen is not None and len(unseen):
        eligible = order[torch.isin(order, unseen)]
        order = torch.cat([eligible, order[~torch.isin(order, unseen)]])
        count = min(round(share * n), len(eligible))
    else:
        count = round(share * n)
    return InnerDivision(order[count:].sort().values, order[:count].sort().values)


def spread(positions: Tensor, most: int) -> Tensor:
    """At most so many of the positions (m,), evenly spread."""
    if len(positions) <= most:
        return positions
    return positions[torch.arange(most) * len(positions) // most]


def draw_shots(labels: Tensor, pool: Tensor, classes: int, shots: int, seed: int) -> Tensor:
    """Positions of `shots` images per class out of `pool` (m,), positions in labels (n,)."""
    draw, chosen = generator(seed, "shots"), []
    for label in range(classes):
        members = pool[labels[pool] == label]
        if len(members) < shots:
            raise UserError(f"--shots {shots}: only {len(members)} images of class {label} may be learnt from")
        chosen.append(members[torch.randperm(len(members), generator=draw)[:shots]])
    return torch.cat(chosen).sort().values


def draw_fraction(pool: Tensor, count: int, seed: int) -> Tensor:
    """`count` of the positions `pool` (m,), in order; the draw of a smaller count is part of that of a larger one."""
    if count < 1:
        raise UserError("--fraction: the share is less than one image, so there is nothing to learn from")
    if count > len(pool):
        raise UserError(f"--fraction: asks for {count} images, but only {len(pool)} may be learnt from")
    return pool[torch.randperm(len(pool), generator=generator(seed, "fraction"))[:count]].sort().values


def draw_balanced(positions: Tensor, values: Tensor, seed: int) -> Tensor:
    """As many of the positions (m,) of every value (a group or a class) as the rarest has."""
    kinds = values[positions].unique()
    least = min(int((values[positions] == kind).sum()) for kind in kinds)
    draw, chosen = generator(seed, "balance"), []
    for kind in kinds:
        members = positions[values[positions] == kind]
        chosen.append(members[torch.randperm(len(members), generator=draw)[:least]])
    return torch.cat(chosen).sort().values


def refuse_overlap(roles: dict[str, dict[str, set[int]]], shared: tuple[tuple[str, str], ...] = ()) -> None:
    """Raises `UserError` if an image has two roles, even under different corruptions.

    roles     role -> origin -> clean ids
    shared    pairs of roles that may have images in common
    """
    for first, second in itertools.combinations(roles, 2):
        if (first, second) in shared or (second, first) in shared:
            continue
        for where in roles[first].keys() & roles[second].keys():
            common = roles[first][where] & roles[second][where]
            if common:
                raise UserError(
                    f"{len(common)} images of {where} are {first} as well as {second} (the first: "
                    f"{min(common)}); name other splits in -d and -ood"
                )
