"""Stitches: affine maps from the activation of one network to that of another.

The stitching paper, section 3.3 of its code. Activations are maps (b, c, h, w) or tokens (b, t, d); the map is one matrix
and one bias for all positions. Besides, `rc2c_pre` and `rc2c_post` resize before or after it (bilinear without
antialiasing, or nearest; an interpolation's weights sum to 1, so both are the same function and are computed alike),
`c2t` makes tokens of maps and `t2c` maps of tokens. Where the number of tokens is no square, the first ones are no patches:
a class token, or that and a distillation token.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.errors import UserError

Shape = tuple[int, ...]

KINDS = {(3, 3): "rc2c_pre", (2, 2): "t2t", (3, 2): "c2t", (2, 3): "t2c"}  # what `auto` means, by dimensions
ENDS = {"c2c": (3, 3), "rc2c_pre": (3, 3), "rc2c_post": (3, 3), "t2t": (2, 2), "c2t": (3, 2), "t2c": (2, 3)}


class Stitch(nn.Module):
    """An affine map `weight` (c_t, c_s), `bias` (c_t,) between activations of two shapes (of one image, without batch).

    upsample       "bilinear" or "nearest", where sizes differ
    to_class_token what `c2t` puts before the patches of a target with a class token: "pool" their mean, "learn" a vector;
                   and for a distillation token the same again
    from_class     what `t2c` makes of the source's class token: "drop" nothing, "add" adds it to each patch times a scalar,
                   "only" takes it for every position; a distillation token it drops
    norm           "none", or "bn" or "ln": a normalisation of the source's channels before the affine map

    Raises `UserError` for shapes that the type cannot join.
    """

    cls_token: nn.Parameter  # (c_t,), only where `learns_token`
    cls_weight: nn.Parameter  # (), only for `t2c` with "add"

    def __init__(
        self,
        kind: str,
        source: Shape,
        target: Shape,
        *,
        upsample: str = "bilinear",
        to_class_token: str = "pool",
        from_class: str = "drop",
        norm: str = "none",
    ) -> None:
        super().__init__()
        self.kind = kind = resolve(kind, source, target)
        self.source, self.target, self.upsample = source, target, upsample
        self.to_class_token, self.from_class = to_class_token, from_class
        self.size = _check(self)
        width, out = channels(source), channels(target)
        self.weight = nn.Parameter(torch.zeros(out, width))
        self.bias = nn.Parameter(torch.zeros(out))
        if self.learns_token:
            self.cls_token = nn.Parameter(torch.zeros(out))
        if kind == "t2c" and from_class == "add":
            self.cls_weight = nn.Parameter(torch.tensor(0.1))
        self.norm = nn.BatchNorm1d(width) if norm == "bn" else nn.LayerNorm(width) if norm == "ln" else None
        self.limit: RankLimit | None = None

    @property
    def learns_token(self) -> bool:
        return self.kind == "c2t" and self.to_class_token == "learn" and has_class_token(self.target)

    def forward(self, source: Tensor) -> Tensor:
        """(b, *target) from (b, *source)."""
        source = source if self.limit is None else self.limit(source)
        source = source if self.norm is None else _normalised(source, self.norm)
        if self.kind == "t2t":
            return F.linear(source, self.weight, self.bias)
        maps = self._maps_of(source) if self.kind == "t2c" else source
        # the order is free, and on the smaller maps the product costs less
        enlarges = maps[0, 0].numel() < self.size[0] * self.size[1]
        maps = self._resized(self._map(maps)) if enlarges else self._map(self._resized(maps))
        if self.kind != "c2t":
            return maps
        patches = maps.flatten(2).transpose(1, 2)
        if not has_class_token(self.target):
            return patches
        token = self.cls_token.expand(len(patches), 1, -1) if self.learns_token else patches.mean(1, keepdim=True)
        return torch.cat([token.expand(-1, special_tokens(self.target), -1), patches], 1)

    @torch.no_grad()
    def rows_of_source(self, source: Tensor) -> Tensor:
        """The input of the affine map, (b, p, c_s): what direct matching calls X."""
        if self.kind == "t2t":
            return source
        rows = self._resized(self._maps_of(source) if self.kind == "t2c" else source).flatten(2).transpose(1, 2)
        if self.kind == "c2t" and has_class_token(self.target) and not self.learns_token:
            mean = rows.mean(1, keepdim=True)
            rows = torch.cat([mean.expand(-1, special_tokens(self.target), -1), rows], 1)
        return rows

    def rows_of_target(self, target: Tensor) -> Tensor:
        """What the affine map should put out, (b, p, c_t): direct matching's Y."""
        if target.ndim == 4:
            return target.flatten(2).transpose(1, 2)
        return target[:, special_tokens(self.target) :] if self.learns_token else target

    def parameters_counted(self) -> int:
        """The number of weights and biases of the affine map: c_t (c_s + 1)."""
        return self.weight.numel() + self.bias.numel()

    def _map(self, maps: Tensor) -> Tensor:
        return F.conv2d(maps, self.weight[:, :, None, None], self.bias)

    def _resized(self, maps: Tensor) -> Tensor:
        return resize(maps, self.size, self.upsample)

    def _maps_of(self, tokens: Tensor) -> Tensor:
        if has_class_token(self.source):
            token, tokens = tokens[:, :1], tokens[:, special_tokens(self.source) :]
            if self.from_class == "add":
                tokens = tokens + self.cls_weight * token
            if self.from_class == "only":
                tokens = token.expand(-1, tokens.shape[1], -1)
        side = math.isqrt(tokens.shape[1])
        return tokens.transpose(1, 2).unflatten(2, (side, side))


class RankLimit(nn.Module):
    """x -> (x - mean) P P^T + mean for channels or token features; mean (c,), P (c, r) orthonormal. Keeps the mean."""

    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("basis", basis.float())

    def forward(self, activation: Tensor) -> Tensor:
        last = activation.movedim(1, -1) if activation.ndim == 4 else activation
        limited = (last - self.mean) @ self.basis @ self.basis.T + self.mean
        return limited.movedim(-1, 1) if activation.ndim == 4 else limited


def resolve(kind: str, source: Shape, target: Shape) -> str:
    """The type itself, or the one that `auto` means for these shapes. Raises `UserError` for shapes it cannot join."""
    dimensions = len(source), len(target)
    for shape in (source, target):
        if len(shape) not in (2, 3):
            raise UserError(f"an activation of shape {_text(shape)} is neither maps nor tokens: no stitch reaches it")
    if kind == "auto":
        return KINDS[dimensions]
    if ENDS[kind] != dimensions:
        words = [{3: "maps", 2: "tokens"}[length] for length in dimensions]
        raise UserError(
            f"stitching type {kind} does not join {words[0]} {_text(source)} with {words[1]} {_text(target)}; "
            f"{KINDS[dimensions]} does, and auto chooses it"
        )
    return kind


def resize(maps: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Maps (b, c, h, w) at another size, without antialiasing; the very same tensor at the same size."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size, mode=mode, align_corners=False if mode == "bilinear" else None)


def resize_matrix(before: int, after: int, mode: str) -> Tensor:
    """What `resize` does along one axis, (after, before), float64; along both it is the Kronecker product."""
    axis = torch.eye(before, dtype=torch.float64)[None]
    if mode == "bilinear":
        return F.interpolate(axis, after, mode="linear", align_corners=False)[0].T
    return F.interpolate(axis, after, mode="nearest")[0].T


def initialise(stitch: Stitch, init: str, generator: torch.Generator) -> None:
    """Sets the weights: "rand" uniform within 1 / sqrt(c_s), as PyTorch's layers; "eye" the identity without bias.

    Raises `UserError` for the identity between unequal widths.
    """
    out, width = stitch.weight.shape
    with torch.no_grad():
        if init == "eye":
            if out != width:
                raise UserError(f"-i eye: {width} channels cannot be taken for {out}; -i rand and -i pinv join them")
            stitch.weight.copy_(torch.eye(out))
            stitch.bias.zero_()
        else:
            bound = 1 / math.sqrt(width)
            stitch.weight.uniform_(-bound, bound, generator=generator)
            stitch.bias.uniform_(-bound, bound, generator=generator)
        if stitch.learns_token:
            stitch.cls_token.normal_(0, 1e-6, generator=generator)


def sparsity(stitch: Stitch, thresholds: tuple[float, ...]) -> list[float]:
    """The shares, in [0, 1], of weights and biases whose absolute value is at most each threshold."""
    values = torch.cat([stitch.weight.detach().flatten(), stitch.bias.detach()]).abs()
    return [(values <= threshold).double().mean().item() for threshold in thresholds]


def channels(shape: Shape) -> int:
    """The width of the affine map at this end: channels of maps, features of tokens."""
    return shape[0] if len(shape) == 3 else shape[1]


def has_class_token(shape: Shape) -> bool:
    """Whether tokens (t, d) begin with a class token: their number is no square."""
    return len(shape) == 2 and math.isqrt(shape[0]) ** 2 != shape[0]


def special_tokens(shape: Shape) -> int:
    """How many of tokens (t, d) stand before the patches of a square grid: none, a class token, or a distillation token too.

    Raises `UserError` where there is no such grid.
    """
    for count in (0, 1, 2):
        if math.isqrt(shape[0] - count) ** 2 == shape[0] - count:
            return count
    raise UserError(f"{shape[0]} tokens are no square grid, with or without a class and a distillation token")


def _check(stitch: Stitch) -> tuple[int, int]:
    """The size of the maps at which the stitch works; raises `UserError` for shapes that do not fit."""
    kind, source, target = stitch.kind, stitch.source, stitch.target
    if kind == "t2t":
        if source[0] != target[0]:
            raise UserError(f"stitching type t2t: {source[0]} tokens cannot be put in the place of {target[0]}")
        return (0, 0)
    if kind == "c2c" and source[1:] != target[1:]:
        raise UserError(
            f"stitching type c2c: maps of {_text(source[1:])} cannot be put in the place of "
            f"{_text(target[1:])}; rc2c_pre resizes them"
        )
    for shape in (source, target):
        if len(shape) == 2:
            special_tokens(shape)
    if kind == "t2c" and stitch.from_class in ("add", "only") and not has_class_token(source):
        raise UserError(f"-t2c-cls {stitch.from_class}: the {source[0]} tokens of the source have no class token")
    if kind == "c2t":
        if stitch.to_class_token == "none" and has_class_token(target):
            raise UserError(
                f"-c2t-cls none: the target's {target[0]} tokens begin with a class token, and its network "
                "would take a patch for it; pool and learn supply one"
            )
        side = math.isqrt(target[0] - special_tokens(target))
        return (side, side)
    height, width = target[1:]
    return (height, width)


def _normalised(activation: Tensor, norm: nn.Module) -> Tensor:
    rows = activation.flatten(2).transpose(1, 2) if activation.ndim == 4 else activation
    rows = norm(rows.flatten(0, 1)).view_as(rows)
    return rows.transpose(1, 2).view_as(activation) if activation.ndim == 4 else rows


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
