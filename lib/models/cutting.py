"""The only two ways to look inside a network: to cut it at a layer, and to record what its modules put out.

A layer's name is its module path, as `named_modules()` and the state dict have it. `cut` splits a network at a layer
into two that do no work twice; `record` reads modules anywhere, also inside a block that a skip connection bypasses;
`layers` lists both kinds in execution order. A network behind `Normalized` is named by its body's paths.

Cuts are made on `torch.fx` graphs: only the modules around the layer are traced, every other module is called as it is,
so that torchvision's, timm's and users' own networks need not be rewritten.
"""

import contextlib
import copy
import operator
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from lib.core.errors import UserError
from lib.core.registry import near
from lib.models import earlier_names
from lib.models.normalized import Normalized


@dataclass(frozen=True)
class Layer:
    """A module of a network, at its `index`-th place in execution order (from 0).

    shape is that of its output for one image; macs the multiply-accumulate operations of one image in the convolutions,
    linear maps and attention projections inside it (products of activations with activations are not counted); cut
    whether the network can be cut behind it; calls how often one forward pass runs it.
    """

    name: str
    kind: str
    index: int
    shape: tuple[int, ...]
    macs: int
    cut: bool
    calls: int = 1


def cut(network: nn.Module, layer: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """(front, back) with `back(front(images)) == network(images)` bit for bit, cut behind the module `layer`.

    Both share the network's modules, with their parameters, buffers and train or eval modes; neither holds or runs
    modules of the other's part. Raises `UserError` for a layer that does not exist, that does not run
    exactly once, or that is bypassed: other values flow around it, and the nearest layers that are cuts are named.
    """
    front, back = _pieces(network, [layer])
    return front, back


def pieces(network: nn.Module, layers: list[str]) -> list[nn.Module]:
    """The network cut behind each of several layers, none inside another, given in execution order.

    One piece more than layers; run one after another they are the network, bit for bit, and each is as `cut` says. A
    module `name` of the network is the module `inside(network, name)` of its piece.
    """
    return [*_pieces(network, layers)] if layers else [_Root(network)]  # the second also where nothing can be traced


def _pieces(network: nn.Module, layers: list[str]) -> list[fx.GraphModule]:
    check_names(network, layers)
    traced = _traced(network, opened=set().union(*map(_ancestors, layers)))
    ends = []
    for layer in layers:
        nodes = [node for node in traced.graph.nodes if node.op == "call_module" and node.target == inside(network, layer)]
        if len(nodes) != 1:
            how = f"runs {len(nodes)} times in a forward pass" if nodes else "does not run by itself in a forward pass"
            raise UserError(f"layer {layer}: {how}, so the network cannot be cut there; {_nearest(network, layer)}")
        if not _carries_everything(traced.graph, nodes[0]):
            raise UserError(
                f"layer {layer}: a connection bypasses it, so the network cannot be cut there; {_nearest(network, layer)}"
            )
        ends.append(nodes[0].name)
    return [_piece(traced, begin, end) for begin, end in zip([None, *ends], [*ends, None], strict=True)]


def inside(network: nn.Module, name: str) -> str:
    """The path, in a piece of the network, of its module or tensor `name`."""
    return "network." + ("body." if _body(network) is not network else "") + name


def cuts(network: nn.Module) -> list[str]:
    """The names of all layers that `cut` takes, in execution order."""
    return list(_cuts_inside(_body(network), prefix=""))


def layers(network: nn.Module, images: Tensor) -> list[Layer]:
    """Every module that a forward pass over `images` (b, c, h, w) runs, in the order in which they finish."""
    body = _body(network)
    names = {module: name for name, module in body.named_modules() if name}
    at_cuts, order, shapes, macs, calls = set(cuts(network)), [], {}, {}, {}

    def finish(module, inputs, output):
        name = names[module]
        calls[name] = calls.get(name, 0) + 1
        if name not in shapes:
            order.append(name)
        shapes[name] = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        macs[name] = macs.get(name, 0) + _macs(module, inputs, output)

    with contextlib.ExitStack() as stack, evaluating(network), torch.no_grad():
        for module in names:
            stack.callback(module.register_forward_hook(finish).remove)
        network(images)
    total = {
        name: sum(number for other, number in macs.items() if other == name or other.startswith(name + "."))
        for name in order
    }
    modules = dict(body.named_modules())
    return [
        Layer(name, type(modules[name]).__name__, index, shapes[name], total[name], name in at_cuts, calls[name])
        for index, name in enumerate(order)
    ]


@contextlib.contextmanager
def record(
    network: nn.Module,
    names: list[str],
    reduce: Callable[[Tensor], Any] | dict[str, Callable[[Tensor], Any]] = torch.clone,
    *,
    inputs: bool = False,
    stop: bool = False,
) -> Generator[dict[str, Any]]:
    """A dictionary that every forward pass fills anew with `reduce(output)` of each named module.

        with record(network, ["layer1.0.conv1"]) as outputs:
            network(images)
        outputs["layer1.0.conv1"]                            # (b, c, h, w)

    `reduce` runs at once: the network may change the tensor in place afterwards, so it must not return a view of it. It
    may be a dictionary with a function for each name. With `inputs` it gets the module's first input instead of its
    output. A module that one pass runs again is found under `name@2`, `name@3`, ... With `stop` a pass that `run` makes
    ends as soon as every module has run once. All hooks are gone when the block is left, also by an exception.
    """
    check_names(network, names)
    body = _body(network)
    outputs: dict[str, Any] = {}
    calls: dict[str, int] = {}

    def clear(module, arguments):
        outputs.clear()
        calls.clear()

    def keep(name):
        reduced = reduce[name] if isinstance(reduce, dict) else reduce

        def hook(module, arguments, output):
            calls[name] = calls.get(name, 0) + 1
            key = name if calls[name] == 1 else f"{name}@{calls[name]}"
            outputs[key] = reduced(arguments[0] if inputs else output)
            if stop and len(calls) == wanted:
                raise _Enough

        return hook

    wanted = len(set(names))

    with contextlib.ExitStack() as stack:
        stack.callback(network.register_forward_pre_hook(clear).remove)
        for name in dict.fromkeys(names):
            stack.callback(body.get_submodule(name).register_forward_hook(keep(name)).remove)
        yield outputs


def run(network: nn.Module, images: Tensor) -> Tensor | None:
    """A forward pass; None if a `record` with `stop` had seen enough before its end."""
    try:
        return network(images)
    except _Enough:
        return None


def followers(network: nn.Module, images: Tensor, kinds: type | tuple[type, ...]) -> dict[str, str]:
    """Name of a module -> name of the module of one of `kinds` that takes its output as it is, where there is one.

    What hands its input on unchanged, such as dropout in eval mode, may lie between the two.
    """
    takers: dict[str, str] = {}
    producers: dict[tuple[int, int], list[str]] = {}  # by the identity of a tensor and its version
    kept = []

    def put_out(name):
        def hook(module, arguments, output):
            if isinstance(output, Tensor):
                kept.append(output)  # while it lives, no other tensor has its id
                # an operation in place changes the version
                producers.setdefault((id(output), output._version), []).append(name)

        return hook

    def take_in(name):
        def hook(module, arguments):
            if arguments and isinstance(arguments[0], Tensor):
                for producer in producers.get((id(arguments[0]), arguments[0]._version), ()):
                    takers.setdefault(producer, name)

        return hook

    with contextlib.ExitStack() as stack, evaluating(network), torch.no_grad():
        for name, module in _body(network).named_modules():
            if name:
                stack.callback(module.register_forward_hook(put_out(name)).remove)
            if isinstance(module, kinds):
                stack.callback(module.register_forward_pre_hook(take_in(name)).remove)
        network(images)
    return takers


class _Enough(Exception):
    """All that a record waits for has been seen."""


def check_names(network: nn.Module, names: list[str]) -> None:
    """Raises `UserError` for the first name that is no module of the network, with the near ones."""
    known = [name for name, _ in _body(network).named_modules() if name]
    for name in names:
        if name not in known:
            raise UserError(f"layer {name}: the network has no such layer; {_hint(name, known)}")


def select(known: list[str], patterns: tuple[str, ...], groups: dict[str, list[str]], flag: str = "--layers") -> list[str]:
    """The layers that a flag names: names, globs, or the words in `groups` (`cuts`, `all`), in the order of `known`.

    Raises `UserError`, which names the flag, for a pattern that matches nothing in `known`.
    """
    import fnmatch

    chosen = set()
    for pattern in patterns:
        matching = groups.get(pattern)
        if matching is None:
            matching = [name for name in known if name == pattern] or fnmatch.filter(known, pattern)
        if not matching and pattern in groups:
            raise UserError(
                f"{flag} {pattern}: the network has none, as it cannot be traced; name layers, such as "
                f"{', '.join(known[:5])}"
            )
        if not matching:
            raise UserError(f"{flag} {pattern}: no layer is called so; {_hint(pattern, known)}")
        chosen.update(matching)
    return [name for name in known if name in chosen]


def _hint(name: str, known: list[str]) -> str:
    """What a layer that does not exist is called now, or the names near it."""
    now = earlier_names.present(name, known)
    return f"it is called {now} now, as in the paper's code" if now else near(name, known)


def macs_before(listed: list[Layer]) -> dict[str, float]:
    """For each layer the share, in [0, 1], of the network's multiply-accumulates done when it has finished."""
    leaves = [layer for layer in listed if not any(other.name.startswith(layer.name + ".") for other in listed)]
    total = sum(layer.macs for layer in leaves) or 1
    return {layer.name: sum(leaf.macs for leaf in leaves if leaf.index <= layer.index) / total for layer in listed}


class _Tracer(fx.Tracer):
    """Goes into the modules whose paths are in `opened`; every other module is one node."""

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened


class _Root(nn.Module):
    """Calls a network with images alone, so that further arguments of its forward keep their default values."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def _traced(network: nn.Module, opened: set[str]) -> fx.GraphModule:
    entered = {"network"} | {inside(network, name) for name in opened}
    if isinstance(network, Normalized):
        entered.add("network.body")
    root = _Root(network)
    try:
        graph = _Tracer(entered).trace(root)
    except Exception as error:
        raise UserError(f"the network {type(_body(network)).__name__} cannot be traced: {error}") from error
    _thread_in_place(graph, root)
    return fx.GraphModule(root, graph)


def _thread_in_place(graph: fx.Graph, root: nn.Module) -> None:
    """Makes a statement that changes its argument in place, such as `x.relu_()`, the source of all later uses of it."""
    for node in graph.nodes:
        if _in_place(node, root) and not node.users and isinstance(node.args[0], fx.Node):
            node.args[0].replace_all_uses_with(node, delete_user_cb=lambda user, node=node: user is not node and user > node)


def _in_place(node: fx.Node, root: nn.Module) -> bool:
    if node.op == "call_function":
        return node.target in _IN_PLACE or bool(node.kwargs.get("inplace", False))
    name = str(node.target)
    if node.op == "call_method":
        return name.endswith("_") and not name.endswith("__")
    return node.op == "call_module" and bool(getattr(root.get_submodule(name), "inplace", False))


_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


def _carries_everything(graph: fx.Graph, node: fx.Node) -> bool:
    """Whether the output depends on the graph's inputs through `node` alone."""
    output = next(reversed(graph.nodes))
    needed, waiting = set(), [output]
    while waiting:
        current = waiting.pop()
        if current in needed or current is node:
            continue
        if current.op == "placeholder":
            return False
        needed.add(current)
        waiting.extend(current.all_input_nodes)
    return True


def _piece(traced: fx.GraphModule, begin: str | None, end: str | None) -> fx.GraphModule:
    """What lies between two nodes; None is the images, and the output."""
    graph = copy.deepcopy(traced.graph)
    if end is not None:
        next(reversed(graph.nodes)).args = (_find(graph, end),)
    if begin is None:
        return _pruned(traced, graph)
    node, images = _find(graph, begin), next(iter(graph.nodes))
    with graph.inserting_before(node):
        representation = graph.placeholder("representation")
    if any(_in_place(user, traced) for user in node.users):
        # the caller's tensor must not change under it
        with graph.inserting_after(representation):
            copied = graph.call_function(torch.clone, (representation,))
        node.replace_all_uses_with(copied)
    else:
        node.replace_all_uses_with(representation)
    return _pruned(traced, graph, unused=images)


def _pruned(traced: fx.GraphModule, graph: fx.Graph, unused: fx.Node | None = None) -> fx.GraphModule:
    """The graph without what its output does not need: assertions about the other half among it."""
    output = next(reversed(graph.nodes))
    needed, waiting = {output}, [output]
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node not in needed:
                needed.add(node)
                waiting.append(node)
    for node in reversed(list(graph.nodes)):
        if node not in needed and (node.op != "placeholder" or node is unused):
            graph.erase_node(node)
    return fx.GraphModule(traced, graph)


def _find(graph: fx.Graph, name: str) -> fx.Node:
    return next(node for node in graph.nodes if node.name == name)


def _cuts_inside(module: nn.Module, prefix: str) -> Iterator[str]:
    """The cuts of a module that lies on the one path from the images to the output, innermost names first."""
    try:
        graph = _Tracer({"network"}).trace(root := _Root(module))
    except Exception:
        return  # control flow that depends on values: the module is a whole
    _thread_in_place(graph, root)
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        if node.op != "call_module" or calls.count(node.target) != 1 or not _carries_everything(graph, node):
            continue
        name = prefix + node.target.removeprefix("network.")
        child = root.get_submodule(node.target)
        if any(True for _ in child.children()):
            yield from _cuts_inside(child, name + ".")
        yield name


def _nearest(network: nn.Module, layer: str, count: int = 4) -> str:
    """The end of an error message: the cuts around a layer, by registration order."""
    known, possible = [name for name, _ in _body(network).named_modules()], cuts(network)
    place = known.index(layer)
    possible.sort(key=lambda name: abs(known.index(name) - place))
    chosen = sorted(possible[:count], key=known.index)
    return "the nearest cuts are " + ", ".join(chosen) if chosen else "it has no cuts"


def _ancestors(layer: str) -> set[str]:
    parts = layer.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


def _body(network: nn.Module) -> nn.Module:
    return network.body if isinstance(network, Normalized) else network


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


def _macs(module: nn.Module, inputs: tuple, output: object) -> int:
    """Multiply-accumulates for one image of a module's own arithmetic (not its children's)."""
    if isinstance(module, nn.modules.conv._ConvNd) and isinstance(output, Tensor):
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear) and isinstance(output, Tensor):
        return output[0].numel() * module.in_features
    if isinstance(module, nn.MultiheadAttention):
        tokens = inputs[0].shape[1 if module.batch_first else 0]
        return 4 * tokens * module.embed_dim**2
    return 0
