"""Graphs of networks by `torch.fx` in which sizes are numbers: what reads them is no data flow, tests of them are decided.

A network is traced for images of one form, with two numbers of images. Beside every value of the graph goes a tensor on
the device "meta", a shape without numbers, so that `x.shape`, `x.size(0)` and what Python makes of them are known and leave
no node. A number that is the same in both traces is a constant; one that grows with the images is the number of images times
a constant; where anything else differs, the network does what depends on how many images there are, and cannot be traced.

Without images to go by sizes stay nodes, as `torch.fx` has them.
"""

import operator
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from lib.core.errors import UserError
from lib.models.image_axis import FEW, MORE, formed, key

COUNTS = (FEW, MORE)  # numbers of images in the two traces
VALUE = "value"  # in a node's `meta`: the tensor without numbers, or a tuple of such; absent where it is not known
BATCH = "batch"  # in a node's `meta`: it is this many times the number of images
SHAPES = "shapes"  # in a node's `meta`: that of its tensor in both traces

_HERE, _LIBRARY = Path(__file__), Path(torch.__file__).parent


@dataclass(frozen=True)
class Graph:
    """A traced network: `finished` are the paths of the modules that were called, in the order in which they ended.

    `constants` are the tensors that its code made, by the names that the graph has for them.
    """

    graph: fx.Graph
    constants: dict[str, Tensor]
    finished: list[str]

    def module(self, network: nn.Module) -> fx.GraphModule:
        """The graph as a module around those of the network."""
        root = Root(network)
        for name, value in self.constants.items():
            root.register_buffer(name, value, persistent=False)
        return fx.GraphModule(root, self.graph)


class Untraceable(Exception):
    """Why tracing stopped, in one line with the line of code, inside which of the opened modules."""

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(reason)
        self.module, self.reason = module, reason


class Root(nn.Module):
    """Calls a network with images alone, so that further arguments of its forward keep their default values."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


@dataclass(frozen=True)
class Example:
    """What a network does with some images (b, c, h, w) on the device "meta".

    outputs   of its modules that put out tensors, likewise, by their paths; `path@2` of a second run
    """

    images: Tensor
    outputs: dict[str, Any]


def trace(network: nn.Module, examples: tuple[Example, Example] | None, opened: set[str]) -> Graph:
    """The graph of a network behind `Root`, into the modules whose paths are in `opened`; every other one is one node.

    examples   what it does with `COUNTS` images, where that is known

    Raises `Untraceable`.
    """
    if examples is None:
        return _traced(network, None, opened)
    first, second = (_traced(network, example, opened) for example in examples)
    _merge(first, second)
    return first


def _traced(network: nn.Module, example: Example | None, opened: set[str]) -> Graph:
    root = Root(network)
    tracer = _Tracer(opened, example)
    try:
        graph = tracer.trace(root)
    except Exception as error:
        raise Untraceable(tracer.inside[-1] if tracer.inside else "", _reason(error)) from error
    if tracer.sizes_read and example is not None:
        _guard(graph, tuple(example.images.shape[1:]))
    made = vars(root) | root._buffers
    constants = {name: value for name, value in made.items() if isinstance(value, Tensor)}
    return Graph(graph, constants, tracer.finished)


class _Proxy(fx.Proxy):
    """Stands for a value whose shape is known."""

    tracer: "_Tracer"

    def __getattr__(self, k: str) -> Any:
        value = self.node.meta.get(VALUE)
        if isinstance(value, Tensor):
            found = getattr(value, k)
            if _is_size(found):
                self.tracer.sizes_read = True
                return found
            if isinstance(found, Tensor):
                return self.tracer.create_proxy("call_function", getattr, (self, k), {})
        return super().__getattr__(k)

    def __len__(self) -> int:
        if VALUE not in self.node.meta:
            return super().__len__()
        self.tracer.sizes_read = True
        return len(self.node.meta[VALUE])


class _Tracer(fx.Tracer):
    """Traces with the form of its value beside every node."""

    def __init__(self, opened: set[str], example: Example | None) -> None:
        super().__init__()
        self.opened, self.example = opened, example
        self.inside: list[str] = []  # the opened modules that are being traced
        self.finished: list[str] = []
        self.sizes_read = False
        self.calls: dict[str, int] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward, args, kwargs):
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            output = super().call_module(m, forward, args, kwargs)
        else:
            self.inside.append(path)  # stays where tracing stops
            output = super().call_module(m, forward, args, kwargs)
            self.inside.pop()
        self.finished.append(path)
        return output

    def iter(self, obj: fx.Proxy) -> Iterator:
        value = obj.node.meta.get(VALUE)
        if value is None:
            return super().iter(obj)
        return iter([self.create_proxy("call_function", operator.getitem, (obj, at), {}) for at in range(len(value))])

    def create_proxy(self, kind, target, args, kwargs, *rest, **options):
        values = self._value(kind, target, args, kwargs)
        if values and _is_size(values[0]):
            self.sizes_read = True
            return values[0]
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        proxy.node.meta["inside"] = self.inside[-1] if self.inside else ""
        if values:
            proxy.node.meta[VALUE] = values[0]
            if type(values[0]) in (tuple, list):  # of which code asks what they are
                parts = (
                    self.create_proxy("call_function", operator.getitem, (proxy, at), {}) for at in range(len(values[0]))
                )
                return type(values[0])(parts)
        return proxy

    def _value(self, kind: str, target: Any, args: tuple, kwargs: dict) -> tuple[Any, ...]:
        """What the operation gives, alone in a tuple; nothing where that is not known."""
        if self.example is None or kind == "output":
            return ()
        if kind == "placeholder":
            return (self.example.images,)
        if kind == "get_attr":
            path, _, name = str(target).rpartition(".")
            owner = self.root.get_submodule(path)
            return (formed(owner._parameters.get(name, owner._buffers.get(name, vars(owner).get(name)))),)
        if kind == "call_module":
            self.calls[target] = self.calls.get(target, 0) + 1
            run = key(target, self.calls[target])
            return (self.example.outputs[run],) if run in self.example.outputs else ()
        try:
            args, kwargs = map_aggregate(args, _known), map_aggregate(kwargs, _known)
            return (target(*args, **kwargs) if kind == "call_function" else getattr(args[0], target)(*args[1:], **kwargs),)
        except Exception:  # numbers decide, or the operation knows no tensors without: the node stays without a value
            return ()


def _known(value: Any) -> Any:
    if isinstance(value, Tensor):
        return formed(value)
    return value.node.meta[VALUE] if isinstance(value, fx.Proxy) else value


def _is_size(value: Any) -> bool:
    """Whether a value is made of plain numbers alone, as shapes are."""
    if isinstance(value, tuple | list):
        return bool(value) and all(map(_is_size, value))
    return isinstance(value, bool | int | float)


def _merge(first: Graph, second: Graph) -> None:
    """Puts the number of images, where the two traces show it, into the first one. Raises `Untraceable`."""
    one, two = list(first.graph.nodes), list(second.graph.nodes)
    counts = _Counts(first.graph, one[0])
    for node, other in zip(one, two, strict=False):
        if (node.op, node.target) != (other.op, other.target):
            raise _differing(node)
        if node.op == "get_attr" and node.target in first.constants:
            made, again = first.constants[node.target], second.constants[node.target]
            if made.shape != again.shape or not torch.equal(made, again):
                raise _differing(node)
        node.args, node.kwargs = counts.joined(node, node.args, other.args), counts.joined(node, node.kwargs, other.kwargs)
        shapes = [part.meta.pop(VALUE, None) for part in (node, other)]
        node.meta[SHAPES] = [tuple(value.shape) if isinstance(value, Tensor) else None for value in shapes]
    if len(one) != len(two):
        raise _differing(one[-1])


class _Counts:
    """The nodes that are so many times the number of images."""

    def __init__(self, graph: fx.Graph, images: fx.Node) -> None:
        self.graph, self.images = graph, images
        self.nodes: dict[int, fx.Node] = {}

    def joined(self, node: fx.Node, one: Any, two: Any) -> Any:
        """The arguments of a node of the first trace, with those of its double in the second beside them."""
        if isinstance(one, tuple | list) and type(one) is type(two) and len(one) == len(two):
            parts = [self.joined(node, *pair) for pair in zip(one, two, strict=True)]
            return tuple(parts) if isinstance(one, tuple) else parts
        if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
            return {key: self.joined(node, one[key], two[key]) for key in one}
        if isinstance(one, slice) and isinstance(two, slice):
            return slice(*(self.joined(node, getattr(one, end), getattr(two, end)) for end in ("start", "stop", "step")))
        if isinstance(one, fx.Node) and isinstance(two, fx.Node):
            return one
        if type(one) is type(two) and (one is two or one == two):
            return one
        if type(one) is int and type(two) is int and one % COUNTS[0] == 0 and two * COUNTS[0] == one * COUNTS[1]:
            return self.times(one // COUNTS[0])
        raise _differing(node)

    def times(self, number: int) -> fx.Node:
        if number not in self.nodes:
            with self.graph.inserting_after(self.images if number == 1 else self.times(1)):
                if number == 1:
                    made = self.graph.call_method("size", (self.images, 0))
                else:
                    made = self.graph.call_function(operator.mul, (self.times(1), number))
            made.meta[BATCH] = number
            self.nodes[number] = made
        return self.nodes[number]


def _differing(node: fx.Node) -> Untraceable:
    what = str(node.target) if node.op != "call_function" else getattr(node.target, "__name__", str(node.target))
    return Untraceable(node.meta.get("inside", ""), f"what {what} does depends on the number of images")


def _guard(graph: fx.Graph, form: tuple[int, ...]) -> None:
    """Images of another form than that whose sizes are in the graph are refused."""
    images = next(iter(graph.nodes))
    with graph.inserting_after(images):
        guarded = graph.call_function(of_form, (images, form))
    images.replace_all_uses_with(guarded, delete_user_cb=lambda user: user is not guarded)
    guarded.meta[VALUE] = images.meta[VALUE]


def of_form(images: Any, form: tuple[int, ...]) -> Any:
    """The images (b, ...) themselves. Raises `UserError` unless each has the shape `form`.

    A network that was cut may be cut again: where it is traced without sizes, this check stays a node.
    """
    if isinstance(images, fx.Proxy):
        return images.tracer.create_proxy("call_function", of_form, (images, tuple(form)), {})
    if tuple(images.shape[1:]) != tuple(form):
        wanted, given = ("x".join(map(str, shape)) for shape in (form, images.shape[1:]))
        raise UserError(f"the network was cut for images of {wanted}, not of {given}")
    return images


def _reason(error: Exception) -> str:
    """The error in one line, with the line of the network's code where it arose."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) != _HERE and not frame.filename.startswith(("<", str(_LIBRARY)))
    ]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""
    return f"{(str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')}{where}"
