"""Which layers are probed, by which reducers and at which ranks."""

import itertools
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lib.core.errors import UsageError, UserError
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.probing import export
from lib.probing.options import ProbeOptions
from lib.probing.stacked_probes import Linear
from lib.representations.features import Tap


@dataclass(frozen=True)
class Layout:
    """The taps that are probed, in sweeps of those that are compared with one another (one per --reduce), and the ranks.

    head     the network's last layer, where it puts out a vector
    penultimate what that reads, where it was looked for
    named    layers that were named one by one: they stay, whatever they put out
    aliases  the layers that put out the same as a tap that is probed (`lib.representations.aliases`)
    roles    what the layers of the network are (`lib.models.roles`)
    """

    sweeps: list[list[Tap]]
    ranks: tuple[int, ...]
    head: Tap | None
    penultimate: Tap | None
    named: tuple[str, ...] = ()
    aliases: dict[Tap, tuple[str, ...]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)

    @property
    def taps(self) -> list[Tap]:
        """All of them, layers first."""
        return [tap for together in itertools.zip_longest(*self.sweeps) for tap in together if tap is not None]

    def different(self, taps: list[Tap]) -> int:
        """How many different representations these taps of one sweep are."""
        return sum(
            not any(earlier.layer in self.aliases.get(tap, ()) for earlier in taps[:at]) for at, tap in enumerate(taps)
        )


def choose(options: ProbeOptions, network: Normalized, channels: int, size: int) -> Layout:
    """What the options ask for; raises `UserError` where the network has no such layer, reducer or rank.

    channels and size are those of the images that the network takes.
    """
    images = torch.zeros(2, channels, size, size, device=next(network.parameters()).device)
    listed = cutting.layers(network, images[:1])
    shapes = {layer.name: layer.shape for layer in listed if not layer.untapped}
    chosen = cutting.tapped(listed, options.layers, "-l")
    last = max(listed, key=lambda layer: layer.runs[-1].index).name
    ends = cutting.head(listed) == last
    if not ends:
        warnings.warn(f"{cutting.HEADLESS}: there are no rows of its own head, and every layer is probed", stacklevel=2)
    head = Tap(last, "flatten") if ends and len(shapes.get(last, ())) == 1 else None
    logits = {last, _last_part(network, last)} if ends else set()
    chosen = [name for name in chosen if name not in logits] or chosen
    sweeps = [
        [Tap(name, reduce or usual(shapes[name], bool(options.ranks))) for name in chosen]
        for reduce in options.reduce or (None,)
    ]
    for tap in [tap for sweep in sweeps for tap in sweep]:
        if options.ranks and len(shapes[tap.layer]) > 1 and tap.reduce not in ("gap", "cls", "mean-token"):
            raise UsageError(
                f"-ranks: --reduce {tap.reduce} does not keep the channels of layer {tap.layer} apart; gap does"
            )
        if options.exported:
            export.check(tap, network)
    ranks = _possible_ranks(options.ranks, {name: _channels(shapes[name]) for name in chosen})
    wanted = {"last-layer", "all"} & set(options.baselines)
    penultimate = _penultimate(network, head, list(shapes), images) if wanted else None
    named = tuple(word for word in options.layers if word in shapes and word not in ("all", "cuts"))
    return Layout(sweeps, ranks, head, penultimate, named, roles={layer.name: layer.role for layer in listed})


def head_of(network: Normalized, head: Tap | None) -> Linear | None:
    """The network's last layer as a probe; None if it is no linear layer with a bias."""
    if head is None:
        return None
    module = network.body.get_submodule(_last_part(network, head.layer))
    if not isinstance(module, nn.Linear) or module.bias is None:
        return None
    return Linear(module.weight.detach().cpu(), module.bias.detach().cpu())


def _last_part(network: Normalized, name: str) -> str:
    """The module that puts out what the module `name` does: of a sequence the last one."""
    module = network.body.get_submodule(name)
    while isinstance(module, nn.Sequential) and len(module):
        name, module = f"{name}.{list(module._modules)[-1]}", module[-1]
    return name


@torch.no_grad()
def _penultimate(network: Normalized, head: Tap | None, names: list[str], images: Tensor) -> Tap | None:
    """What the network's head reads, as a tap; None if it is no linear layer, or reads what no layer puts out."""
    if head is None or head_of(network, head) is None:
        return None
    linear = _last_part(network, head.layer)
    images = torch.rand_like(images)
    network.eval()
    with cutting.record(network, [linear], inputs=True) as inputs, cutting.record(network, names) as outputs:
        network(images)
    read = inputs[linear]
    if not isinstance(read, Tensor):
        return None
    for name in reversed(names):
        output = outputs[name]
        if not isinstance(output, Tensor):
            continue
        if torch.equal(output.flatten(1), read):
            return Tap(name, "flatten")
        if output.ndim == 3 and torch.equal(output[:, 0], read):
            return Tap(name, "cls")
    return None


def _channels(shape: tuple[int, ...]) -> int:
    """Of maps (c, h, w), tokens (t, c) or vectors (c,)."""
    return shape[-1] if len(shape) == 2 else shape[0]


def usual(shape: tuple[int, ...], ranks: bool) -> str:
    """The reducer of a layer with outputs of this shape, where none is asked for."""
    return "gap" if len(shape) == 3 and ranks else "cls" if len(shape) == 2 else "flatten"


def _possible_ranks(asked: tuple[int, ...], channels: dict[str, int]) -> tuple[int, ...]:
    """The ranks that every layer has; larger ones are an error alone and dropped from a list."""
    least = min(channels, key=lambda layer: channels[layer])
    beyond = [rank for rank in asked if rank > channels[least]]
    if beyond and len(beyond) == len(asked):
        raise UserError(f"-ranks {' '.join(map(str, asked))}: layer {least} has {channels[least]} channels")
    if beyond:
        warnings.warn(
            f"-ranks {' '.join(map(str, beyond))}: left out, layer {least} has {channels[least]} channels", stacklevel=2
        )
    return tuple(dict.fromkeys(rank for rank in asked if rank not in beyond))
