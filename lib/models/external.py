"""Networks of other libraries: torchvision's and timm's by their own names, and the user's own from a Python file.

Each is tried on blank images, so that a size or a channel count it cannot take is a sentence now and not a traceback in
the middle of training.
"""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from lib.core import trusted_files
from lib.core.errors import UsageError, UserError
from lib.core.registry import near
from lib.models.parts import with_channels


def torchvision_network(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    """torchvision's classifier of that name, its first convolution replaced for other than three channels."""
    from torchvision import models

    classifiers = models.list_models(module=models)
    if name not in classifiers:
        raise UsageError(f"type tv:{name}: torchvision has no such classifier; {near(name, classifiers)}")
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = image_size
    elif name.startswith("maxvit"):
        options["input_size"] = (image_size, image_size)
    elif name in ("googlenet", "inception_v3"):
        # Auxiliary heads would make the output in training mode something other than logits.
        options |= {"aux_logits": False, "init_weights": True}

    def make() -> nn.Module:
        return with_channels(models.get_model(name, num_classes=classes, **options), channels)

    return _tried(f"tv:{name}", make, classes, channels, image_size)


def timm_network(name: str, classes: int, channels: int, image_size: int, pretrained: bool = False) -> nn.Module:
    """timm's model of that name, made for `image_size` where it has a fixed size.

    A tag such as `.a1_in1k` names weights and matters only with `pretrained`, which gives them in place of fresh ones.
    """
    import timm

    if not timm.is_model(name):
        raise UsageError(f"type timm:{name}: timm has no such model; {near(name, timm.list_models())}")
    try:
        published = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
        raise UsageError(f"type timm:{name}: timm has no such weights; {near(name, tags)}") from error
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if published is not None and published.fixed_input_size and published.input_size[-1] != image_size:
        options["img_size"] = image_size

    def make() -> nn.Module:
        return timm.create_model(name, pretrained=pretrained, **options)

    return make() if pretrained else _tried(f"timm:{name}", make, classes, channels, image_size)


def file_network(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    """What `function(classes, channels, image_size)` of a user's file returns; name = "path/to/file.py:function".

    Raises `UntrustedFile` unless the command line names the file.
    """
    path, _, function = name.rpartition(":")
    make = trusted_files.function(path, function, f"type {name}")
    _check_arguments(make, name, function, (classes, channels, image_size))
    try:
        network = make(classes, channels, image_size)
    except UserError:
        raise
    except Exception as error:
        call = f"{function}({classes}, {channels}, {image_size})"
        raise UserError(f"type {name}: {call} failed: {trusted_files.failure(error, path)}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"type {name}: {function} returned a {type(network).__name__}, not an nn.Module")
    return _tried(name, lambda: network, classes, channels, image_size)


def _check_arguments(make: Callable, name: str, function: str, given: tuple[int, int, int]) -> None:
    """Raises `UserError` for a function that does not take what networks are made from."""
    try:
        taken = inspect.signature(make)
    except (TypeError, ValueError):  # a callable that does not tell what it takes
        return
    try:
        taken.bind(*given)
    except TypeError:
        raise UserError(f"type {name}: {function}{taken} must be a function of (classes, channels, image_size)") from None


def _tried(name: str, make: Callable[[], nn.Module], classes: int, channels: int, image_size: int) -> nn.Module:
    """The network that `make` makes, after a look at what it answers to two blank images.

    What holds the logits among other things, always or in training only, is unwrapped from then on.
    """
    shape = f"{channels} x {image_size} x {image_size}"
    try:
        network = make()
        network.register_forward_hook(_Logits(name, classes))
        training = network.training
        device = next((weight.device for weight in network.parameters()), None)
        with torch.no_grad():
            logits = network.eval()(torch.zeros(2, channels, image_size, image_size, device=device))
        network.train(training)
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise UserError(f"type {name} cannot take {shape} images: {reason}; try another size") from error
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (2, classes):
        raise UserError(
            f"type {name} answers 2 images with {_described(logits)}, not with logits of shape (2, {classes}); a class of "
            f"two lines in its file takes them out of that:\nclass Logits({type(network).__name__}):\n"
            "    def forward(self, images): return super().forward(images)[...]  # here: where the logits are"
        )
    return network


class _Logits:
    """A forward hook that takes the logits (b, classes) out of what a network puts out, and says so the first time.

    They are what is called so in a dictionary or an object, or come first in a tuple or list.
    """

    def __init__(self, name: str, classes: int) -> None:
        self.name, self.classes = name, classes

    def __call__(self, network: nn.Module, arguments: tuple, output: Any) -> Any:
        if isinstance(output, Tensor | fx.Proxy):
            return output
        if isinstance(output, dict) and "logits" in output:
            found, where = output["logits"], '"logits"'
        elif hasattr(output, "logits"):
            found, where = output.logits, ".logits"
        elif isinstance(output, tuple | list) and output:
            found, where = output[0], "the first of them"
        else:
            return output
        if isinstance(found, fx.Proxy):
            return found
        if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] != self.classes:
            return output
        alike = [
            f"number {key + 1}" if isinstance(key, int) else repr(key)
            for key, part in _parts(output)
            if isinstance(part, Tensor) and part.shape == found.shape
        ]
        several = (
            f", while {' and '.join(alike)} have the shape of logits; return the logits alone" if len(alike) > 1 else ""
        )
        # the level is that of this module: the scripts show warnings of the suite alone, and this one's caller is torch
        warnings.warn(f"type {self.name} puts out {_kind(output)}: its logits are {where}{several}", stacklevel=1)
        return found


def _kind(output: object) -> str:
    kind = type(output).__name__
    return f"a {kind} of {len(output)}" if isinstance(output, tuple | list | dict) else f"a {kind}"


def _parts(output: object) -> list[tuple[Any, Any]]:
    """The parts of a dictionary, tuple or list, by key or place."""
    if isinstance(output, tuple | list):
        return list(enumerate(output))
    return list(output.items()) if isinstance(output, dict) else []


def _described(output: object) -> str:
    """What a network put out, in words."""
    if isinstance(output, Tensor):
        return f"shape {tuple(output.shape)}"
    inner = ", ".join(f"{key!r}: {_described(part)}" for key, part in _parts(output)[:4])
    return f"{_kind(output)} ({inner})" if inner else _kind(output)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]
