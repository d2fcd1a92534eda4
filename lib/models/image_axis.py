"""Finds the axis of a layer's output that belongs to the images, by running two batch sizes once.

Most layers put out a row per image. Some put out (tokens, images, c), others (windows x images, tokens, c). `survey` runs a
network on two and on three images, of which the third is darker, and compares shapes and numbers; `Axis.images_first` then
brings any such tensor into the form (images, ...), and says of everything else why it has none.
"""

import contextlib
import weakref
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib.core.errors import UserError

FEW, MORE = 2, 3  # images of the two batches
NOISE = 1e-4  # of the largest number: what another batch size changes by rounding, on any device
SHARE = 0.1  # of the difference between images: more than that is not rounding

_measuring: ContextVar[bool] = ContextVar("measuring", default=False)
_surveys: "weakref.WeakKeyDictionary[nn.Module, dict[tuple, Survey]]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Axis:
    """How a tensor holds images.

    at       the axis along which they lie
    rows     how many places along it belong to one image
    fastest  of several: whether the image changes fastest along the axis, and not the window
    refused  why no axis belongs to the images; else empty
    mixes    whether an image's numbers depend on the other images of its batch
    channels_last  whether channels stand behind their maps, (b, h, w, c)
    """

    at: int = 0
    rows: int = 1
    fastest: bool = False
    refused: str = ""
    mixes: bool = False
    channels_last: bool = False

    def images_first(self, tensor: Tensor) -> Tensor:
        """(images, ...), the very same tensor where it has that form; windows are folded into their image.

        Maps with their channels behind them become (b, c, h, w), as all others are.

        Windows of tokens (w b, t, c) become tokens (b, w t, c), of vectors (w b, c) tokens (b, w, c), and of maps
        (w b, c, h, w') maps (b, c, w h, w').
        """
        if self.at:
            tensor = tensor.movedim(self.at, 0)
        if self.rows == 1:
            return tensor.permute(0, 3, 1, 2) if self.channels_last else tensor
        if self.fastest:
            tensor = tensor.unflatten(0, (self.rows, -1)).transpose(0, 1)
        else:
            tensor = tensor.unflatten(0, (-1, self.rows))
        if tensor.ndim == 4:
            return tensor.flatten(1, 2)
        return tensor.transpose(1, 2).flatten(2, 3) if tensor.ndim == 5 else tensor


@dataclass(frozen=True)
class Survey:
    """The axes of what modules put out and take in, by name; a module that runs again has `name@2`, `name@3`, ...

    forms   what they put out for `FEW` and for `MORE` images, with tensors on the device "meta" in the place of all tensors;
            without modules that put out anything but tensors and numbers, and tuples, lists and dictionaries of them
    """

    outputs: dict[str, Axis]
    inputs: dict[str, Axis]
    forms: tuple[dict[str, Any], dict[str, Any]]

    def of(self, run: str, output: object, *, inputs: bool = False) -> Tensor:
        """What the module put out in the run of that key (or took in), with the images first.

        Raises `UserError`, which names the layer, where that is no tensor, or no axis of it belongs to the images.
        """
        tensor = first_tensor(output)
        if tensor is None:
            raise UserError(f"layer {run} {'takes in' if inputs else 'puts out'} no tensor, so it has no features")
        axis = (self.inputs if inputs else self.outputs).get(run, Axis())
        if axis.refused:
            raise UserError(f"layer {run}: {axis.refused}, so it has no features")
        return axis.images_first(tensor)


def key(name: str, run: int) -> str:
    """What the `run`-th run of a module in a forward pass is called, from 1: `name`, `name@2`, ..."""
    return name if run == 1 else f"{name}@{run}"


def first_tensor(output: object) -> Tensor | None:
    """The tensor itself, or the first one in a tuple, list or dictionary, however deep; None where there is none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return next((tensor for part in output if (tensor := first_tensor(part)) is not None), None)
    return None


def measuring() -> bool:
    """Whether a survey is under way: whoever watches modules looks away meanwhile."""
    return _measuring.get()


@torch.no_grad()
def survey(network: nn.Module, body: nn.Module, images: Tensor) -> Survey:
    """The axes of a network's modules for images of this form (b, ...), named as in `body`; measured once and kept.

    Nothing is left behind: modules run in eval mode, and no random numbers of others are drawn.
    """
    form = (*images.shape[1:], images.dtype, images.device)
    kept = _surveys.setdefault(network, {})
    if form not in kept:
        draw = torch.Generator().manual_seed(0)
        drawn = torch.rand((MORE, *images.shape[1:]), generator=draw)
        drawn[FEW:] *= 0.1  # else both batches have nearly the same mean and deviation
        drawn = drawn.to(images.device, images.dtype)
        few, more = (_looks(network, body, drawn[:count]) for count in (FEW, MORE))
        outputs, inputs = ({run: _axis(look, more[side].get(run)) for run, look in few[side].items()} for side in (0, 1))
        kept[form] = Survey(_behind_batch_statistics(body, outputs), inputs, forms=(few[2], more[2]))
    return kept[form]


def _behind_batch_statistics(body: nn.Module, axes: dict[str, Axis]) -> dict[str, Axis]:
    """The axes, in the order in which modules finish, where all mix from the first normalisation by the batch's statistics.

    It is told by its kind: two images of a batch may be as bright as three.
    """
    modules = body.named_modules()
    normalising = {name for name, module in modules if isinstance(module, _BatchNorm) and module.running_mean is None}
    mixes, found = False, {}
    for run, axis in axes.items():
        mixes = mixes or run.partition("@")[0] in normalising
        found[run] = replace(axis, mixes=True) if mixes else axis
    return found


Look = tuple[torch.Size, list[Tensor]]  # a shape, and per axis a number for each place along it


def _looks(network: nn.Module, body: nn.Module, images: Tensor) -> tuple[dict[str, Look], dict[str, Look], dict[str, Any]]:
    """What every module puts out and takes in for these images, by key, and the form of its output."""
    outputs: dict[str, Look] = {}
    inputs: dict[str, Look] = {}
    forms: dict[str, Any] = {}
    calls: dict[str, int] = {}

    def watch(name: str):
        def hook(module, arguments, output):
            calls[name] = calls.get(name, 0) + 1
            run = key(name, calls[name])
            for looks, values in ((outputs, output), (inputs, arguments)):
                tensor = first_tensor(values)
                if tensor is not None:
                    looks[run] = tensor.shape, _digests(tensor)
            with contextlib.suppress(TypeError):
                forms[run] = formed(output)

        return hook

    token = _measuring.set(True)
    with contextlib.ExitStack() as stack:
        stack.callback(_measuring.reset, token)
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.autocast(images.device.type, enabled=False))
        for name, module in body.named_modules():
            if name:
                stack.callback(module.register_forward_hook(watch(name)).remove)
        network(images)
    return outputs, inputs, forms


def formed(output: Any) -> Any:
    """The same with tensors on the device "meta". Raises `TypeError` for what is not made of tensors and numbers."""
    if isinstance(output, Tensor):
        return torch.empty_like(output, device="meta")
    if type(output) in (tuple, list):
        return type(output)(map(formed, output))
    if type(output) is dict:
        return {key: formed(part) for key, part in output.items()}
    if output is None or isinstance(output, bool | int | float):
        return output
    raise TypeError(type(output).__name__)


def _digests(tensor: Tensor) -> list[Tensor]:
    """For each of the first three axes a weighted sum of the numbers at each place along it.

    The weights do not cancel, so that a shift of all numbers shows, too.
    """
    tensor = (tensor.real if tensor.is_complex() else tensor).float()
    digests = []
    for axis in range(min(tensor.ndim, 3)):
        rows = tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]
        digests.append(rows @ torch.arange(1, rows.shape[1] + 1, device=rows.device).float().cos() + 0.25)
    return digests


def _axis(few: Look, more: Look | None) -> Axis:
    """From what the same module showed for two batches, of which the second begins with the images of the first."""
    if more is None:
        return Axis(refused=f"it does not run for {MORE} images as for {FEW}")
    (small, digests), (large, further) = few, more
    described = f"it puts out {_text(small)} for {FEW} images and {_text(large)} for {MORE}"
    differing = [axis for axis, (one, two) in enumerate(zip(small, large, strict=False)) if one != two]
    if len(small) != len(large) or len(differing) != 1 or differing[0] >= len(digests):
        return Axis(refused=f"{described}, where no one axis is that of the images")
    axis = differing[0]
    rows = small[axis] // FEW
    if not rows or (small[axis], large[axis]) != (rows * FEW, rows * MORE):
        return Axis(refused=f"{described}, which are not so many for each image")
    before, after = digests[axis], further[axis]
    if not bool(before.isfinite().all() and after.isfinite().all()) or before.is_meta:
        return Axis(axis, rows)
    slowest = (before.view(FEW, rows), after.view(MORE, rows)[:FEW])
    fastest = (before.view(rows, FEW).T, after.view(rows, MORE)[:, :FEW].T)
    ways = {turned: _error(*pair) for turned, pair in ((False, slowest), (True, fastest))}
    turned = rows > 1 and ways[True] < ways[False]
    mixes = ways[turned] > NOISE * max(1e-30, before.abs().max().item()) and ways[turned] > SHARE * _spread(after)
    if mixes and rows > 1:
        return Axis(refused=f"{described}, whose rows cannot be told to belong to one image each")
    return Axis(axis, rows, turned, mixes=mixes, channels_last=axis == 0 and rows == 1 and channels_last(small))


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape has maps with their channels behind them: images are square, and so are maps."""
    return len(shape) == 4 and shape[1] == shape[2] != shape[3]


def _error(before: Tensor, after: Tensor) -> float:
    return (before - after).abs().max().item()


def _spread(digest: Tensor) -> float:
    """How far the places along an axis differ."""
    return (digest.max() - digest.min()).item()


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Generator[None]:
    """Every module in eval mode; as it was when the block is left, however that is."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
