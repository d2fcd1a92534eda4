"""Giving single layers other weights, and running again only what follows them.

Gamba et al. 2023 (after Zhang, Bengio & Singer, "Are All Layers Created Equal?", JMLR 2022). A cell is a layer with the
weights of a source. In one pass over the data, the trained network runs once per batch as the trunk; what enters a layer
is common to all its cells, and each of them runs from the last cut before the layer to the end. A layer inside a residual
block thus runs its block again, with nothing but its own weights replaced. Logits are those of the whole network with
these weights, bit for bit on the CPU. No parameter of the network is ever written to.
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from lib import graph
from lib.datasets.split import Split
from lib.devices import arithmetic
from lib.errors import UserError
from lib.progress import image_bar
from lib.randomness import generator

State = dict[str, Tensor]


@dataclass(frozen=True)
class Target:
    """A layer, the keys of its tensors in the state dict, and the cuts around it.

    start   the last cut before anything of the layer runs; None where that is the images
    end     the first cut when all of it has run; None where that is the output
    """

    layer: str
    keys: tuple[str, ...]
    start: str | None
    end: str | None


@dataclass
class Counts:
    """Correct predictions among the first `images` images, in the first place and in the first five.

    intact (2,) of the network as it is, cells (layers, sources, 2), int64.
    """

    images: int
    intact: Tensor
    cells: Tensor


def targets(network: nn.Module, images: Tensor, layers: list[str], with_norms: bool) -> list[Target]:
    """What is replaced for each layer, in execution order; `images` (b, c, h, w) is run once.

    Of a layer its own parameters and those of its parts but for batch normalisations; `with_norms` these too, the one
    that takes the layer's output, and the running statistics of all of them. Raises `UserError` for a layer that owns
    nothing of that kind or does not run.
    """
    listed = {layer.name: layer for layer in graph.layers(network, images)}
    behind = graph.followers(network, images, _BatchNorm) if with_norms else {}
    cuts = [name for name, layer in listed.items() if layer.cut]
    cuts = [name for name in cuts if not any(other.startswith(name + ".") for other in cuts)]
    found = []
    for layer in layers:
        keys = _keys(network.body, layer, behind.get(layer), with_norms)
        modules = {key.rpartition(".")[0] for key in keys}
        places = [listed[name].index for name in modules if name in listed]
        if not keys or not places:
            kind = type(network.body.get_submodule(layer)).__name__
            raise UserError(f"--layers {layer}: {kind} " + ("owns no weights" if not keys else "does not run by itself"))
        before = [name for name in cuts if listed[name].index < min(places)]
        after = [name for name in cuts if listed[name].index >= max(places)]
        found.append((min(places), Target(layer, keys, before[-1] if before else None, after[0] if after else None)))
    return [target for _, target in sorted(found, key=lambda pair: pair[0])]


@torch.no_grad()
def sweep(network: nn.Module, split: Split, units: list[Target], cells: list[list[State | None]], *, batch_size: int,
          channels: int | None = None, size: int | None = None, precision: str = "fp32", stacked: int = 1,
          counts: Counts | None = None, save: Callable[[Counts], None] = lambda counts: None, workers: int = 0,
          prefetch: int = 2, quiet: bool = False) -> Counts:
    """One pass over the split; cells[i][e] are the tensors that source e puts into units[i], by state-dict key.

    units     in execution order, as `targets` gives them
    cells     None is a cell without effect, which gets the intact network's answers and is not run
    stacked   so many sources share one run of what follows the layer: better use of a GPU; equal up to rounding
    counts    how far an interrupted pass had got; `save` is called with how far this one is every ten seconds, and when
              it is interrupted
    """
    device = next(network.parameters()).device
    network.eval()
    stages, tail = _stages(network, units, stacked > 1)
    counts = counts or Counts(0, torch.zeros(2).long(), torch.zeros(len(units), len(cells[0]), 2).long())
    order = torch.arange(counts.images, len(split))
    batches = split.batches(batch_size, device=device, order=order, channels=channels, size=size, workers=workers,
                            prefetch=prefetch)
    saved = time.monotonic()
    try:
        for images, labels, _ in image_bar(batches, len(order), batch_size, label=split.name, quiet=quiet):
            right = torch.zeros_like(counts.cells, device=device)
            activations = images
            with arithmetic(precision, device):
                for stage in stages:
                    activations = stage.lead(activations)
                    for place in stage.units:
                        run = [source for source, cell in enumerate(cells[place]) if cell is not None]
                        for first in range(0, len(run), stacked):
                            group = run[first:first + stacked]
                            answers = stage.answers(place, activations, [cells[place][source] for source in group])
                            right[place, group] = torch.stack([_right(logits, labels) for logits in answers])
                intact = _right(tail(activations), labels)
            for place, row in enumerate(cells):
                right[place, [source for source, cell in enumerate(row) if cell is None]] = intact
            # replaced as a whole, so that an interruption meets the old counts or the new ones
            counts = Counts(counts.images + len(labels), counts.intact + intact.cpu(), counts.cells + right.cpu())
            if time.monotonic() - saved > SAVE_EVERY:
                save(counts)
                saved = time.monotonic()
    except BaseException:
        save(counts)
        raise
    return counts


SAVE_EVERY = 10  # seconds


@torch.no_grad()
def recalibrated(network: nn.Module, batches: list[Tensor], units: list[Target],
                 cells: list[list[State]]) -> list[list[State]]:
    """The cells with the running statistics of every batch normalisation from the layer's block on, estimated anew.

    They are averages over the batches of images (b, c, h, w), each normalised by its own statistics as in training, with
    the cell's weights in place. What lies before the block keeps its statistics: nothing has changed there.
    """
    found = [list(row) for row in cells]
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    stages, _ = _stages(network, units, False)
    for stage, activations in _walk(stages, batches):
        inside = [(name, module) for name, module in stage.rest.named_modules() if module in norms]
        for place in stage.units:
            for source, cell in enumerate(cells[place]):
                statistics = {f"{name}.{key}": torch.zeros_like(value) for name, module in inside
                              for key, value in module.named_buffers()}
                with norms_in_training(module for _, module in inside):
                    for batch in activations:
                        functional_call(stage.rest, stage.named(cell) | statistics, (batch,))
                found[place][source] = cell | {stage.key(name): value for name, value in statistics.items()}
    return found


@torch.no_grad()
def criticality(network: nn.Module, batches: list[tuple[Tensor, Tensor]], units: list[Target], initial: list[State], *,
                tolerance: float, draws: int, seed: int) -> list[float | None]:
    """Module criticality of each layer, 0 or more; ours, after Chatterji, Neyshabur & Sedghi, ICLR 2020.

    The least a^2 |W - W0|^2 / s^2 over positions a in [0, 1] on the way from initial to final weights and widths s > 0 of
    Gaussian noise around it, such that the mean cross-entropy on the batches (images, labels) rises by no more than
    `tolerance` nats over the intact network's. Searched on a grid (POSITIONS, WIDTHS: s in units of the mean distance
    per weight); None where no point of it qualifies. 0: the layer can be put back and shaken.
    """
    network.eval()
    stages, tail = _stages(network, units, False)
    images, labels = [list(part) for part in zip(*batches, strict=True)]
    final = network.body.state_dict()
    bound = _mean_loss([network(batch) for batch in images], labels) + tolerance
    found: list[float | None] = [None] * len(units)
    for stage, activations in _walk(stages, images):
        for place in stage.units:
            start, end = initial[place], {key: final[key] for key in units[place].keys}
            numbers = sum(value.numel() for value in end.values())
            distance = math.sqrt(sum((end[key] - start[key]).double().square().sum().item() for key in end))
            for position in POSITIONS:
                for width in WIDTHS:  # the widest first: it is the least value of its position
                    value = position**2 * numbers / width**2
                    if found[place] is not None and value >= found[place]:
                        break
                    noise = width * distance / math.sqrt(numbers)
                    losses = []
                    for draw in range(draws):
                        random = generator(seed, "criticality", units[place].layer, draw, device=images[0].device)
                        cell = {key: (1 - position) * start[key] + position * end[key]
                                + noise * torch.randn(end[key].shape, generator=random, device=end[key].device)
                                for key in end}
                        losses.append(_mean_loss([functional_call(stage.rest, stage.named(cell), (batch,))
                                                  for batch in activations], labels))
                    if sum(losses) / draws <= bound:
                        found[place] = value
                        break
    return found


POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
WIDTHS = tuple(2.0**-power for power in range(-2, 7))  # 4 to 1/64


@dataclass(frozen=True)
class _Stage:
    """The units that start at one cut: `lead` leads there from the previous one, `rest` from there to the end.

    parts has, for stacking, what runs between the start and the end of each unit, and what follows.
    """

    network: nn.Module
    lead: nn.Module
    rest: nn.Module
    units: list[int]
    parts: dict[int, tuple[nn.Module, nn.Module]]

    def named(self, cell: State) -> State:
        """The tensors of a cell under their paths in a piece."""
        return {graph.inside(self.network, key): value for key, value in cell.items()}

    def key(self, path: str) -> str:
        """The state-dict key of a path in a piece."""
        return path.removeprefix(graph.inside(self.network, ""))

    def answers(self, unit: int, activations: Tensor, cells: list[State]) -> list[Tensor]:
        """The logits (b, k) of each cell."""
        if len(cells) == 1 or unit not in self.parts:
            return [functional_call(self.rest, self.named(cell), (activations,)) for cell in cells]
        part, suffix = self.parts[unit]
        outputs = [functional_call(part, self.named(cell), (activations,)) for cell in cells]
        return list(suffix(torch.cat(outputs)).split(len(activations)))


def fold_pool(network: nn.Module, images: Tensor) -> tuple[nn.Module, str, int]:
    """The network without its average pool that copies one position to many, that pool being folded into the next layer.

    Where VGGs take 32 px, the 7x7 pool is given 1x1 maps; the first linear layer then sums its weights over the 49 equal
    inputs. Returns the network, which shares all other tensors with the given one, the linear layer's name, and how many
    positions were folded; its logits on `images` (b, c, h, w) are equal up to rounding. Raises `UserError` where there
    is no such pool.
    """
    listed = graph.layers(network, images)
    modules = dict(network.body.named_modules())
    shapes = {layer.name: layer.shape for layer in listed}
    pools = [layer for layer in listed if isinstance(modules[layer.name], nn.AdaptiveAvgPool2d)]
    with graph.record(network, [pool.name for pool in pools], inputs=True) as entering, torch.no_grad():
        expected = network(images)
    for pool in pools:
        channels, height, width = shapes[pool.name]
        behind = [layer.name for layer in listed if layer.index > pool.index and isinstance(modules[layer.name], nn.Linear)]
        wanted = channels * height * width
        if entering[pool.name].shape[-2:] != (1, 1) or not behind or modules[behind[0]].in_features != wanted > channels:
            continue
        # a copy of the modules around the same tensors
        tensors = {id(value): value for value in (*network.parameters(), *network.buffers())}
        folded = copy.deepcopy(network, tensors)
        linear = modules[behind[0]]
        short = nn.Linear(channels, linear.out_features, bias=linear.bias is not None, device=linear.weight.device)
        short.weight = nn.Parameter(folded_weight(linear.weight, height * width))
        short.bias = linear.bias
        folded.body.set_submodule(behind[0], short)
        folded.body.set_submodule(pool.name, nn.AdaptiveAvgPool2d(1))
        with torch.no_grad():
            if torch.allclose(folded(images), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item()):
                return folded, behind[0], height * width
    raise UserError("--fold-pool: the network has no average pool that copies one position to many before a linear layer, "
                    "as VGGs have for 32 px")


def folded_weight(weight: Tensor, positions: int) -> Tensor:
    """(out, c * positions) -> (out, c): the sum over positions, for inputs that are equal in all of them."""
    return weight.detach().unflatten(1, (-1, positions)).sum(2)


def _stages(network: nn.Module, units: list[Target], stacking: bool) -> tuple[list[_Stage], nn.Module]:
    """One stage per cut at which units start, and what leads from the last one to the output."""
    starts = list(dict.fromkeys(unit.start for unit in units))
    named = [start for start in starts if start is not None]
    *leads, tail = graph.pieces(network, named)
    if None in starts:
        leads.insert(0, nn.Identity())
    stages = []
    for start, lead in zip(starts, leads, strict=True):
        members = [place for place, unit in enumerate(units) if unit.start == start]
        rest = graph.pieces(network, [start] if start else [])[-1]
        parts = {}
        for place in members if stacking else ():
            if units[place].end is not None:
                parts[place] = graph.pieces(network, [cut for cut in (start, units[place].end) if cut])[-2:]
        stages.append(_Stage(network, lead, rest, members, parts))
    return stages, tail


def _walk(stages: list[_Stage], batches: list[Tensor]) -> Iterator[tuple[_Stage, list[Tensor]]]:
    """Each stage and what enters it, for all batches at once."""
    for stage in stages:
        batches = [stage.lead(batch) for batch in batches]
        yield stage, batches


def _keys(body: nn.Module, layer: str, norm: str | None, with_norms: bool) -> tuple[str, ...]:
    """The state-dict keys that are replaced together with a layer."""
    own = body.get_submodule(layer)
    roots = [layer] + ([norm] if norm else [])
    found = []
    for root in roots:
        for name, module in body.get_submodule(root).named_modules(prefix=root):
            if isinstance(module, _BatchNorm) and not with_norms and module is not own:
                continue
            found += [f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)]
            if with_norms:
                found += [f"{name}.{key}" for key, value in module.named_buffers(recurse=False) if value.ndim]
    return tuple(dict.fromkeys(found))


@contextlib.contextmanager
def norms_in_training(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Batch normalisations in training mode, averaging over all batches; as they were afterwards."""
    before = [(module, module.training, module.momentum) for module in norms]
    for module, _, _ in before:
        module.training, module.momentum = True, None
    try:
        yield
    finally:
        for module, training, momentum in before:
            module.training, module.momentum = training, momentum


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """(2,): how many labels are the largest logit, and how many are among the five largest."""
    five = (logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]).sum()
    return torch.stack([(logits.argmax(1) == labels).sum(), five])


def _mean_loss(logits: list[Tensor], labels: list[Tensor]) -> float:
    return nn.functional.cross_entropy(torch.cat(logits).double(), torch.cat(labels)).item()
