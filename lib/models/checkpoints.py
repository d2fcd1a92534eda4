"""Checkpoints: a plain state dict, and beside it a description of the network.

`models/<dir>/model_<epoch>.pt` loads with `torch.load(..., weights_only=True)` anywhere; `model_<epoch>.json` holds the
architecture, classes, normalisation, data, configuration, metrics and the hash of the weights. Files from elsewhere load
too, in every form that needs no code to be run: bare and wrapped state dicts, prefixed keys, safetensors.
"""

import contextlib
import glob
import hashlib
import io
import math
import pickle
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib import models
from lib.core import files
from lib.core.errors import UserError
from lib.core.randomness import stream
from lib.models import earlier_names, paper_names, small
from lib.models.checkpoint_paths import check, sidecar
from lib.models.image_axis import evaluating
from lib.models.normalisations import NORMALISATIONS
from lib.models.normalized import Normalized

# keys under which files hold a state dict, those that are taken first before others: averages of weights stand behind
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
WRAPPERS += ("params_ema", "state_dict_ema", "model_ema", "ema", "teacher", "student")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the sidecar says of a checkpoint.

    image_size is None where the network takes any size and nobody said which it was trained at; epoch counts finished
    epochs and is None where unknown; mean and std are per channel in [0, 1] units, empty for none. The network frames
    images of image_size by `padding` black pixels on each side. A network of stored features says in `features` whose they
    are: the layer and the SHA-256 of the checkpoint.
    """

    architecture: str
    classes: tuple[str, ...]
    channels: int
    image_size: int | None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    padding: int = 0
    dataset: str = ""
    features: str = ""
    epoch: int | None = None
    config: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)

    @property
    def training(self) -> dict:
        """How it was trained, as rows state it."""
        attacked = self.config.get("loss") in ("at", "trades")
        return {
            "architecture": self.architecture,
            "loss": self.config.get("loss"),
            "eps": self.config.get("eps") if attacked else None,
            "epoch": self.epoch,
            "network_seed": self.config.get("seed"),
        }


@dataclass(frozen=True)
class Checkpoint:
    """A loaded network, in eval mode, and its description."""

    path: Path
    network: Normalized
    description: Description


def build(description: Description, pretrained: bool = False) -> Normalized:
    """The network of a description, with fresh weights, or with published ones and their normalisation."""
    size = (description.image_size or 32) + 2 * description.padding
    shape = description.architecture, len(description.classes), description.channels, size
    if pretrained:
        body, mean, std = models.build_pretrained(*shape)
    else:
        body, mean, std = models.build(*shape), description.mean, description.std
    return Normalized(body, mean, std, description.padding)


def fill(network: Normalized, path: str | Path, architecture: str) -> None:
    """Puts the weights of a file into a network of this architecture.

    Raises `UserError` if they are another architecture's, or do not fit.
    """
    path, architecture = check(path, architecture), paper_names.architecture(architecture)
    state = earlier_names.renamed(read_state(path), architecture, path)
    if sidecar(path).exists():
        _agreeing(path, architecture)
    _fill(network.body, _unprefixed(state, network.body, path), path, architecture)


def fresh(description: Description, seed: int, *use: str | int, pretrained: bool = False) -> Normalized:
    """The network with weights drawn from the stream `use` of a seed; training starts from its stream "init"."""
    torch.manual_seed(stream(seed, *use))
    return build(description, pretrained)


def skeleton(description: Description) -> Normalized:
    """The network without weights: modules, names and shapes, on the device "meta".

    One whose constructor reads numbers cannot be made there, and is on the CPU with weights that mean nothing.
    """
    try:
        with torch.device("meta"):
            return build(description).eval()
    except Exception:  # whatever else is wrong is so on the CPU, too
        with torch.random.fork_rng(devices=[]):
            return build(description).eval()


def save(path: Path, network: Normalized, description: Description) -> None:
    """Writes the weights and then the sidecar, each whole or not at all."""
    buffer = io.BytesIO()
    torch.save({key: value.detach().cpu().contiguous() for key, value in network.body.state_dict().items()}, buffer)
    files.write_atomically(path, lambda file: file.write(buffer.getbuffer()))
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    files.write_json(sidecar(path), {"schema": 1, **asdict(description), "sha256": digest})


def load(
    path: str | Path,
    architecture: str = "",
    *,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    channels: int = 0,
    image_size: int | None = None,
    padding: int = 0,
    device: torch.device | str = "cpu",
) -> Checkpoint:
    """The network in a file, whatever common form the file has.

    architecture   must agree with the sidecar; required without one
    mean, std      the normalisation of a file without a sidecar; without them, and unless the file itself holds it, images
                   go in as they are, with a warning
    channels       those of its images, where the weights do not tell them; 0: they do
    image_size     the side its images had in training, and the frame that `padding` puts around them

    Raises `UserError` for what is missing, truncated, changed since it was written, of another architecture, or would
    have to run code to be read.
    """
    path, architecture = check(path, architecture), paper_names.architecture(architecture)
    state = read_state(path)
    if sidecar(path).exists():
        description = _agreeing(path, architecture)
        if mean and tuple(mean) != description.mean or std and tuple(std) != description.std:
            raise UserError(f"--mean/--std: {path} comes with its normalisation ({description.mean}, {description.std})")
        if channels not in (0, description.channels):
            raise UserError(f"--channels {channels}: {path} comes with its number of channels, {description.channels}")
        if image_size and (image_size, padding) != (description.image_size, description.padding):
            raise UserError(
                f"--image-size/--upscale: {path} comes with its images' size, {description.image_size} px and "
                f"{description.padding} px around them"
            )
        state = earlier_names.renamed(state, description.architecture, path)
        network = build(description)
        state = _unprefixed(state, network.body, path)
    else:
        told = paper_names.of_file(path)
        architecture = architecture or (told.architecture if told else "")
        trial = _trial(architecture, state, path, channels, image_size, padding)
        state, own = _without_normalisation(earlier_names.renamed(state, architecture, path), trial)
        own = own or NORMALISATIONS.get(architecture)
        if own and not mean:
            mean, std = own
        if not mean:
            warnings.warn(f"{path} has no sidecar and no --mean was given: images go in unnormalised", stacklevel=2)
        description = _described(state, trial, architecture, path, mean, std, channels, image_size, padding)
        if told:
            description = replace(description, dataset=told.dataset, epoch=told.epoch, config=told.settings)
        network = build(description)
        state = _unprefixed(state, network.body, path)
    _fill(network.body, state, path, description.architecture)
    return Checkpoint(path, network.to(device).eval(), description)


def weights(path: str | Path, architecture: str = "") -> tuple[Description, dict[str, Tensor]]:
    """The description and the tensors of a checkpoint, without building its network; checked as `load` checks them.

    The weight of a layer that keeps it in parts (weight and spectral normalisation) is there, too, under its usual name.
    """
    path, architecture = check(path, architecture), paper_names.architecture(architecture)
    state = read_state(path)
    if sidecar(path).exists():
        description = _agreeing(path, architecture)
    else:
        told = paper_names.of_file(path)
        architecture = architecture or (told.architecture if told else "")
        trial = _trial(architecture, state, path)
        state, _ = _without_normalisation(earlier_names.renamed(state, architecture, path), trial)
        description = _described(state, trial, architecture, path)
    state = earlier_names.renamed(state, description.architecture, path)
    body = skeleton(description).body
    state = _unprefixed(state, body, path)
    _require_fit(body, state, path, description.architecture)
    return description, state | _assembled(description, state)


def describe(path: Path) -> Description:
    """The sidecar of a checkpoint. Raises `UserError` if it is broken or describes other weights."""
    try:
        content = files.read_json(sidecar(path))
        digest = content.pop("sha256")
        content.pop("schema")
        for key in ("classes", "mean", "std"):
            content[key] = tuple(content[key])
        description = Description(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{sidecar(path)} is not a whole description of a checkpoint; remove it and give the type") from None
    if files.sha256(path) != digest:
        raise UserError(f"{path} is not the file its sidecar describes: truncated, or changed since it was written")
    return description


def _agreeing(path: Path, architecture: str) -> Description:
    """The sidecar, if it is of the architecture that was stated, if any was."""
    description = describe(path)
    if architecture and architecture != description.architecture:
        raise UserError(f"{path} is a {description.architecture}, not a {architecture}")
    return description


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: unwrapped, every floating type as float32. Never runs code from the file."""
    if path.suffix == ".json":
        raise UserError(_no_weights(path))
    if path.suffix == ".safetensors":
        import safetensors.torch

        try:
            content = safetensors.torch.load_file(path)
        except Exception as error:
            raise UserError(f"{path}: not a whole safetensors file ({str(error).splitlines()[0]})") from None
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "nsupported" in str(error) or "GLOBAL" in str(error):
                raise UserError(
                    f"{path} would have to run code to be read, so it was not; if you trust it, convert it "
                    f"once: python exec_data.py convert-checkpoint {path} NEW.pt"
                ) from None
            raise UserError(f"{path}: not a whole checkpoint") from None
        except Exception:  # a pickle that is no checkpoint can fail in any way
            raise UserError(f"{path}: not a whole checkpoint") from None
    state = _unwrapped(content, path)
    if not state:
        raise UserError(f"{path}: holds no state dict{_told(content)}")
    for key, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise UserError(f"{path}: {key} is no array of numbers that weights could be")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{path}: {key} has {value.numel()} numbers and holds fewer; such a tensor is no weight")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def convert(source: Path, target: Path) -> int:
    """Reads a checkpoint with full unpickling, which runs what code it holds, and writes its plain state dict.

    A target called .safetensors is one. Only for files one trusts. Returns the number of tensors.
    """
    if source.suffix == ".json":
        raise UserError(_no_weights(source))
    try:
        content = torch.load(source, map_location="cpu", weights_only=False)
    except Exception as error:
        raise UserError(f"{source}: cannot be unpickled: {type(error).__name__}: {error}") from None
    if isinstance(content, nn.Module):
        content = content.state_dict()
    state = _unwrapped(content, source)
    if not state:
        raise UserError(f"{source}: holds no state dict{_told(content)}")
    _write_state(target, state)
    return len(state)


def _no_weights(path: Path) -> str:
    """What a description that was named as a checkpoint is, and which weights lie beside it."""
    beside = sorted(file.name for file in path.parent.glob(f"{glob.escape(path.stem)}.*") if file != path)
    return f"{path} is a description and holds no weights; " + (
        f"they are in {', '.join(beside)} beside it" if beside else "there are none of its name beside it"
    )


def add_head(source: Path, target: Path, architecture: str, classes: int, seed: int) -> list[str]:
    """Writes the state dict of a file whose network has no head, with a fresh one; the tensors that were drawn.

    The head is the layer with weights that runs last. Nothing of the file is run, and nothing else may be missing. Raises
    `UserError` as `load` does.
    """
    path, architecture = check(source, architecture), paper_names.architecture(architecture)
    whole = earlier_names.renamed(read_state(path), architecture, path)
    trial = _trial(architecture, whole, path)
    state, _ = _without_normalisation(whole, trial)
    described = replace(_described(state, trial, architecture, path), classes=tuple(map(str, range(classes))))
    network, own = fresh(described, seed, "init").body, _unprefixed(state, trial, path)
    head = [name for name, module in _running(trial) if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    drawn = {key: value for key, value in network.state_dict().items() if key.startswith(f"{head}.") and key not in own}
    _require_fit(network, own | drawn, path, architecture)
    if not drawn:
        raise UserError(f"{path} has a head: its {head} is there")
    _write_state(target, own | drawn | {key: value for key, value in whole.items() if key not in state})
    return list(drawn)


def _write_state(target: Path, state: dict[str, Tensor]) -> None:
    """Writes a plain state dict; a target called .safetensors is one."""
    if target.suffix == ".safetensors":
        import safetensors.torch

        try:
            content = safetensors.torch.save({key: value.contiguous().clone() for key, value in state.items()})
        except (RuntimeError, ValueError, KeyError) as error:  # sparse or quantised tensors
            raise UserError(f"{target}: safetensors cannot hold it ({str(error).splitlines()[0]})") from None
        files.write_atomically(target, lambda file: file.write(content))
    else:
        files.write_atomically(target, lambda file: torch.save(state, file))


def _told(content: object) -> str:
    """The keys of what a file holds, for an error message."""
    if not isinstance(content, dict):
        return f" but a {type(content).__name__}"
    keys = [str(key) for key in content]
    return f"; its keys are {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"


def _unwrapped(content: object, path: Path, depth: int = 3) -> dict[str, Tensor]:
    """The state dict in what a file holds; empty if there is none. Of several the first by `WRAPPERS`, with a warning."""
    if not isinstance(content, dict):
        return {}
    wrapped = [key for key in WRAPPERS if isinstance(content.get(key), dict)]
    if content and all(isinstance(key, str) for key in content):
        tensors = {key: tensor for key, value in content.items() if (tensor := _tensor(value)) is not None}
        if tensors and not wrapped:
            return tensors
    for key in wrapped:
        if depth and (state := _unwrapped(content[key], path, depth - 1)):
            copies = [other for other, part in content.items() if isinstance(part, dict) and state.keys() & part.keys()]
            if others := [other for other in dict.fromkeys([*wrapped, *copies]) if other != key]:
                warnings.warn(f"{path} holds {key} and {', '.join(others)}; {key} is taken", stacklevel=2)
            return state
    return {}


def _tensor(value: object) -> Tensor | None:
    """A tensor, or the numbers of an array as one; None for anything else."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return value if isinstance(value, Tensor) else None


def _unprefixed(state: dict[str, Tensor], body: nn.Module, path: Path) -> dict[str, Tensor]:
    """The state without what wrappers put into its keys: `module.` anywhere, `model.` and the like before all of them.

    Of several copies of the network (the robustness library keeps one for its attacker) that under the shortest prefix. What
    lies outside it, such as the weights of a loss, and single numbers that were saved beside the weights, are left out.
    """
    expected = [key for key in body.state_dict() if not key.endswith(COUNTER)]
    if not any("module" in key.split(".") for key in expected):
        inside = {key: ".".join(part for part in key.split(".") if part != "module") for key in state}
        if len(set(inside.values())) == len(inside):
            state = {inside[key]: value for key, value in state.items()}
    state = {key: value for key, value in state.items() if value.ndim or key in expected or key.endswith(COUNTER)}
    prefixes = {key.removesuffix(name) for name in expected[:1] for key in state if key.endswith("." + name)}
    whole = [prefix for prefix in prefixes if all(prefix + name in state for name in expected)]
    if whole and expected[0] not in state:
        copies = {prefix + name for prefix in whole for name in body.state_dict()}
        chosen = min(whole, key=len)
        if outside := [key for key in state if not key.startswith(chosen) and key not in copies]:
            warnings.warn(
                f"{path}: {len(outside)} of its tensors are no part of the network (first: {outside[0]})", stacklevel=2
            )
        return {key.removeprefix(chosen): value for key, value in state.items() if key.startswith(chosen)}
    while not set(expected) & set(state):
        first = {key.partition(".")[0] for key in state}
        if len(first) != 1 or any("." not in key for key in state):
            break
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return state


# How published robust networks call the normalisation that is part of them: the robustness library, RobustBench, others.
STORED_NORMALISATIONS = (("new_mean", "new_std"), ("mu", "sigma"), ("mean", "std"))


def _without_normalisation(
    state: dict[str, Tensor], body: nn.Module
) -> tuple[dict[str, Tensor], tuple[tuple[float, ...], tuple[float, ...]] | None]:
    """The state without the buffers of a normalising first layer, and that layer's mean and deviation per channel.

    Tensors that `body`, a network of the architecture, has itself under such a name are its own.
    """
    own = tuple(body.state_dict())
    for names in STORED_NORMALISATIONS:
        means, deviations = (
            [
                key
                for key in state
                if key.rpartition(".")[2] == name
                and state[key].numel() in (1, 3)
                and not any(key == mine or key.endswith(f".{mine}") for mine in own)
            ]
            for name in names
        )
        if means and len(means) == len(deviations):
            mean, std = (tuple(state[keys[0]].flatten().tolist()) for keys in (means, deviations))
            return {key: value for key, value in state.items() if key not in means + deviations}, (mean, std)
    return state, None


def _trial(
    architecture: str,
    state: dict[str, Tensor],
    path: Path,
    channels: int = 0,
    image_size: int | None = None,
    padding: int = 0,
) -> nn.Module:
    """A network of the architecture, for ten classes, in whose image a file's tensors are looked at.

    It takes colour images, or grey ones where it takes no others or the weights of its first layer, a linear map, fit those
    alone; or images of `channels`.
    """
    fixed = models.SIZES.get(architecture)
    image_size = image_size or (fixed[0] if fixed else None)

    def made(number: int) -> nn.Module:
        size = image_size + 2 * padding if image_size else models.accepted_size(architecture, _usual_size(architecture))
        body = models.build(architecture, 10, number, size)
        blank = torch.zeros(1, 65, 3) if models.takes(architecture) == "tokens" else torch.zeros(1, number, size, size)
        body.register_buffer("_blank", blank, persistent=False)
        return body

    if channels or ":" not in architecture:
        return made(channels or 3)
    try:
        colour = made(3)
        if _first_fits(colour, state, path):
            return colour
    except UserError:
        colour = None
    try:
        grey = made(1)
    except UserError:
        return colour or made(3)
    return grey if colour is None or _first_fits(grey, state, path) else colour


def _first_fits(body: nn.Module, state: dict[str, Tensor], path: Path) -> bool:
    """Whether a file's weights of the layer that runs first have the shape of the network's, where that is a linear map."""
    first = next((name for name, module in _running(body) if isinstance(module, nn.Linear | nn.Conv2d)), "")
    there = _weight(_unprefixed(state, body, path), first)
    layer = body.get_submodule(first)
    return there is None or not isinstance(layer, nn.Linear) or there.shape == layer.weight.shape


def _described(
    state: dict[str, Tensor],
    trial: nn.Module,
    architecture: str,
    path: Path,
    mean: tuple = (),
    std: tuple = (),
    channels: int = 0,
    image_size: int | None = None,
    padding: int = 0,
) -> Description:
    """A description read off the weights: the width of the layer that runs last, the channels of that which runs first.

    Of fully connected networks the heads of the nearest-category paper take vectors, the others square images of 3 or 1
    channels.
    """
    fixed = models.SIZES.get(architecture)
    state = _unprefixed(state, trial, path)
    run = [name for name, module in _running(trial) if isinstance(module, nn.Linear | nn.Conv2d)]
    first, last = _weight(state, run[0]), _weight(state, run[-1])
    if architecture == "CNN002" and image_size is None and "classifier.fc1.weight" in state:
        image_size = small.cnn002_image_size(state["classifier.fc1.weight"].shape[1])
    blank, layer = trial.get_buffer("_blank"), trial.get_submodule(run[0])
    if ":" in architecture and isinstance(layer, nn.Linear) and first is not None and first.shape != layer.weight.shape:
        raise UserError(
            f"{path}: its first layer takes {first.shape[1]} numbers, not the {layer.in_features} of {blank.shape[1]} x "
            f"{blank.shape[2]} x {blank.shape[3]} images; state --image-size and --channels"
        )
    if not channels and first is not None and isinstance(layer, nn.Conv2d):
        channels = first.shape[1] * layer.groups
    elif not channels and models.takes(architecture) == "tokens" and "norm.weight" in state:
        channels = state.get("embed.weight", state["norm.weight"]).shape[-1]
    elif not channels and first is not None and architecture in models.OF_VECTORS:
        channels, image_size = _image_shape(first.shape[1], image_size, architecture)
    channels = channels or (blank.shape[1] if blank.ndim == 4 else 3)
    if mean and len(mean) != channels:
        raise UserError(f"--mean: {len(mean)} numbers for {channels} channels")
    if len(mean) != len(std):
        raise UserError("--mean and --std go together, a number per channel each")
    return Description(
        architecture=architecture,
        classes=tuple(map(str, range(10 if last is None else last.shape[0]))),
        channels=channels,
        image_size=image_size or (fixed[0] if fixed else None),
        mean=tuple(mean),
        std=tuple(std),
        padding=padding,
    )


def _image_shape(width: int, image_size: int | None, architecture: str) -> tuple[int, int | None]:
    """Channels and side of what a fully connected network of `width` numbers takes; vectors have a side of 1."""
    for channels in (3, 1):
        side = math.isqrt(width // channels)
        if channels * side**2 == width and (image_size == side or image_size is None and architecture.startswith("mlp")):
            return channels, side
    return width, 1


def _running(trial: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules of a network in the order in which they run."""
    names, order = {module: name for name, module in trial.named_modules()}, dict[str, nn.Module]()

    def note(module, arguments, output):
        order.setdefault(names[module], module)

    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.enter_context(evaluating(trial))
        for module in names:
            stack.callback(module.register_forward_hook(note).remove)
        trial(trial.get_buffer("_blank"))
    return list(order.items())


# What holds the shape of a layer's weight: itself, or its direction under weight normalisation, or what spectral
# normalisation divides.
PARTS = ("weight", "parametrizations.weight.original1", "parametrizations.weight.original", "weight_v", "weight_orig")


def _weight(state: dict[str, Tensor], layer: str) -> Tensor | None:
    """A tensor of the shape of a layer's weight; None where there is none."""
    return next((state[f"{layer}.{part}"] for part in PARTS if f"{layer}.{part}" in state), None)


@torch.no_grad()
def _assembled(description: Description, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of layers that keep them in parts, by the names that they have in other layers."""
    if not any(key.endswith(PARTS[1:]) for key in state):
        return {}
    body = build(description).body.eval()
    body.load_state_dict(state, strict=False)
    size = (description.image_size or 32) + 2 * description.padding
    body(torch.zeros(1, description.channels, size, size))  # some put them together when they run
    layers = {
        name: module for name, module in body.named_modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    }
    return {f"{name}.weight": layer.weight.detach() for name, layer in layers.items() if f"{name}.weight" not in state}


def _usual_size(architecture: str) -> int:
    return 224 if architecture.startswith(("tv", "timm")) else 32


def _fill(body: nn.Module, state: dict[str, Tensor], path: Path, architecture: str) -> None:
    """Loads the state; raises `UserError` with the first differing keys."""
    _require_fit(body, state, path, architecture)
    own = body.state_dict()
    body.load_state_dict({**{key: own[key] for key in own if key.endswith(COUNTER)}, **state})


COUNTER = "num_batches_tracked"  # old files lack it, and nothing here depends on it


def _require_fit(body: nn.Module, state: dict[str, Tensor], path: Path, architecture: str) -> None:
    own = body.state_dict()
    counters = {key for key in own if key.endswith(COUNTER)}
    missing = [key for key in own if key not in state and key not in counters]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    complaints = [
        f"{len(keys)} {what} (first: {keys[0]})"
        for keys, what in ((missing, "missing"), (unexpected, "unknown"), (shapes, "of another shape"))
        if keys
    ]
    if complaints:
        reason = ", ".join(complaints) + _stem(state, architecture)
        if len({key.rpartition(".")[0] for key in missing}) == 1 and missing[-1] == list(own)[-1] and len(complaints) == 1:
            reason += (
                f"; if that is its head, python exec_data.py add-head {path} NEW.pt {architecture} CLASSES writes it with a "
                "fresh one, for what needs none"
            )
        raise UserError(f"{path} is no {architecture}: of its tensors {reason}")
    # a sum that is finite is of finite numbers, and takes a tenth of the time
    broken = [
        key
        for key, value in state.items()
        if value.is_floating_point() and not (value.sum(dtype=torch.float64).isfinite() or value.isfinite().all())
    ]
    if broken:
        raise UserError(
            f"{path}: {len(broken)} of its tensors hold NaN or infinite values (first: {broken[0]}); did training diverge?"
        )


def _stem(state: dict[str, Tensor], architecture: str) -> str:
    """Which type has the first convolution of this file, where it is another one's."""
    first = state.get("conv1.weight")
    if first is None or first.ndim != 4 or first.shape[-1] not in (3, 7):
        return ""
    other = f"tv_{architecture}" if first.shape[-1] == 7 else architecture.removeprefix("tv_")
    return f"; its first convolution is that of {other}" if other in models.MODELS and other != architecture else ""
