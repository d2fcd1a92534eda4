"""The only two ways to look inside a network: to cut it at a layer, and to record the outputs of its modules.

A layer's name is its module path, as `named_modules()` and the state dict have it. `cut` splits a network at a layer
into two that do no work twice; `record` reads modules anywhere, also inside a block that a skip connection bypasses;
`layers` lists both kinds in execution order. A network behind `Normalized` is named by its body's paths.

Cuts are made on graphs (`lib.models.tracing`): only the modules around the layer are traced, every other module is called
as it is, so that torchvision's, timm's and users' own networks need not be rewritten. What is recorded has a row per image
(`lib.models.image_axis`), and of what is no single tensor the first one.
"""

import contextlib
import copy
import operator
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from lib.core.errors import UserError
from lib.core.registry import near
from lib.models import earlier_names, image_axis, tracing
from lib.models.image_axis import evaluating, first_tensor
from lib.models.normalized import Normalized
from lib.models.roles import ROLES, roles


@dataclass(frozen=True)
class Run:
    """One of the runs of a layer in a forward pass.

    index   its place among all runs of all layers, in the order in which they finish, from 0
    shape   of its output for one image, as `record` gives it; () where it has no features
    before  the multiply-accumulates of one image that the network has done when it has finished
    """

    index: int
    shape: tuple[int, ...]
    before: int


@dataclass(frozen=True)
class Layer:
    """A module of a network, at its `index`-th place in execution order (from 0), where its first run stands.

    shape is that of its first output for one image, as `record` gives it, and () where it has no features, for the reason
    `untapped`; macs the multiply-accumulate operations of one image in the convolutions, linear maps and attention
    projections inside it, in all runs (products of activations with activations are not counted), own_macs those that are
    its own, not of a module inside it; cut whether the network can be cut behind it, and `uncut` why not; calls how often
    one forward pass runs it, and runs what each of them is; role what it is (`lib.models.roles`); mixes whether what it puts
    out for an image depends on the other images of the batch.
    """

    name: str
    kind: str
    index: int
    shape: tuple[int, ...]
    macs: int
    cut: bool
    calls: int = 1
    role: str = ""
    untapped: str = ""
    uncut: str = ""
    mixes: bool = False
    own_macs: int = 0
    runs: tuple[Run, ...] = ()

    def run(self, key: str) -> Run:
        """Its run under a key of `record`: `name`, `name@2`, ..."""
        return self.runs[int(key.partition("@")[2] or 1) - 1]


def cut(network: nn.Module, layer: str, images: Tensor | None = None) -> tuple[fx.GraphModule, fx.GraphModule]:
    """(front, back) with `back(front(images)) == network(images)` bit for bit, cut behind the module `layer`.

    Both share the network's modules, with their parameters, buffers and train or eval modes; neither holds or runs
    modules of the other's part. Raises `UserError` for a layer that does not exist, that does not run
    exactly once, that puts out anything but a tensor with a row per image, or that is bypassed: other values flow around it,
    and the nearest layers that are cuts are named. `images` (b, ...) show the form of what the network takes, where it has
    not been run by `layers` or `record` before.
    """
    front, back = _pieces(network, [layer], images)
    return front, back


def pieces(network: nn.Module, layers: list[str]) -> list[nn.Module]:
    """The network cut behind each of several layers, none inside another, given in execution order.

    One piece more than layers; run one after another they are the network, bit for bit, and each is as `cut` says. A
    module `name` of the network is the module `inside(network, name)` of its piece.
    """
    return [*_pieces(network, layers)] if layers else [tracing.Root(network)]  # the second also where nothing can be traced


def _pieces(network: nn.Module, layers: list[str], images: Tensor | None = None) -> list[fx.GraphModule]:
    check_names(network, layers)
    form = _form(network, images)
    opened = set().union(*map(_ancestors, layers))
    graph, calls = _calls(network, form, opened, layers)
    if any(_uncut(graph.graph, nodes) for nodes in calls.values()):
        # what bypasses a layer may be a size that a module hands on
        further = {name for name in _find_cuts(network, form)[2] if not {name, *_ancestors(name)} & set(layers)}
        graph, calls = _calls(network, form, opened | further, layers)
    for layer, nodes in calls.items():
        if reason := _uncut(graph.graph, nodes):
            nearest = _nearest(network, layer, form)
            raise UserError(f"layer {layer}: {reason}, so the network cannot be cut there; {nearest}")
    ends = [calls[layer][0].name for layer in layers]
    traced = graph.module(network)
    return [_piece(traced, begin, end) for begin, end in zip([None, *ends], [*ends, None], strict=True)]


def _calls(
    network: nn.Module, form: tuple[int, ...] | None, opened: set[str], layers: list[str]
) -> tuple[tracing.Graph, dict[str, list[fx.Node]]]:
    """The network's graph into these modules, and where in it the layers are called."""
    try:
        graph = _traced(network, form, opened)
    except tracing.Untraceable as error:
        raise UserError(f"the network {type(_body(network)).__name__} cannot be traced: {error.reason}") from error
    nodes = [node for node in graph.graph.nodes if node.op == "call_module"]
    return graph, {layer: [node for node in nodes if node.target == inside(network, layer)] for layer in layers}


def _uncut(graph: fx.Graph, nodes: list[fx.Node]) -> str:
    """Why the network cannot be cut behind a module that is called at these nodes; empty where it can."""
    if len(nodes) != 1:
        return f"runs {len(nodes)} times in a forward pass" if nodes else "does not run by itself in a forward pass"
    shapes = nodes[0].meta.get(tracing.SHAPES)
    if shapes is not None and None in shapes:
        return "puts out no single tensor"
    if not _carries_everything(graph, nodes[0]):
        return "a connection bypasses it"
    if shapes is not None and tuple(shape[:1] for shape in shapes) != tuple((count,) for count in tracing.COUNTS):
        return "puts out " + "x".join(map(str, shapes[0])) + f" for {tracing.COUNTS[0]} images, no row for each"
    if shapes is not None and image_axis.channels_last(shapes[0]):
        return "puts out " + "x".join(map(str, shapes[0][1:])) + ", maps with their channels behind them"
    return ""


def inside(network: nn.Module, name: str) -> str:
    """The path, in a piece of the network, of its module or tensor `name`."""
    return "network." + ("body." if _body(network) is not network else "") + name


def cuts(network: nn.Module, images: Tensor | None = None) -> list[str]:
    """The names of all layers that `cut` takes, in execution order; `images` as there."""
    return _find_cuts(network, _form(network, images))[0]


def layers(network: nn.Module, images: Tensor) -> list[Layer]:
    """Every module that a forward pass over `images` (b, c, h, w) runs, in the order in which they finish."""
    body = _body(network)
    names = {module: name for name, module in body.named_modules() if name}
    axes = _survey(network, images)
    macs: dict[str, int] = {}
    runs: dict[str, list[Run]] = {}  # of the layers in the order in which they finish first
    untapped: dict[str, str] = {}

    def finish(module, inputs, output):
        name = names[module]
        macs[name] = macs.get(name, 0) + _macs(module, inputs, output) // len(images)
        key, shape, reason = image_axis.key(name, len(runs.get(name, ())) + 1), (), ""
        try:
            shape = tuple(axes.of(key, output).shape[1:])
        except UserError as error:
            reason = str(error).removeprefix(f"layer {key}").removeprefix(":").strip()
        if not shape:
            untapped.setdefault(name, reason or "puts out a single number for an image")
        runs.setdefault(name, []).append(Run(sum(map(len, runs.values())), shape, sum(macs.values())))

    with contextlib.ExitStack() as stack, evaluating(network), torch.no_grad():
        for module in names:
            stack.callback(module.register_forward_hook(finish).remove)
        answers = network(images)
    order = list(runs)
    total = {
        name: sum(number for other, number in macs.items() if other == name or other.startswith(name + "."))
        for name in order
    }
    at_cuts, uncut, _ = _find_cuts(network, _form(network, images))
    kinds = {name: type(body.get_submodule(name)).__name__ for name in order}
    finished = sorted(order, key=lambda name: runs[name][-1].index)
    last = {name: runs[name][-1].shape for name in order}
    what = roles(body, finished, last, tuple(answers.shape[1:]) if isinstance(answers, Tensor) else None)
    mixing = set(_mixing(axes))
    return [
        Layer(
            name=name,
            kind=kinds[name],
            index=index,
            shape=() if name in untapped else runs[name][0].shape,
            macs=total[name],
            cut=name in at_cuts,
            calls=len(runs[name]),
            role=what[name],
            untapped=untapped.get(name, ""),
            uncut=uncut.get(name, ""),
            mixes=name in mixing,
            own_macs=macs[name],
            runs=tuple(runs[name]),
        )
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
    raw: bool = False,
) -> Generator[dict[str, Any]]:
    """A dictionary that every forward pass fills anew with `reduce(output)` of each named module.

        with record(network, ["layer1.0.conv1"]) as outputs:
            network(images)
        outputs["layer1.0.conv1"]                            # (b, c, h, w)

    `reduce` runs at once: the network may change the tensor in place afterwards, so it must not return a view of it. It
    may be a dictionary with a function for each name. It is given a tensor with a row per image; of a tuple that is the
    first tensor. With `inputs` it gets the module's first input instead of its output, with `raw` whatever that is. A
    module that one pass runs again is found under `name@2`, `name@3`, ... With `stop` a pass that `run` makes ends as soon
    as every module has run once. All hooks are gone when the block is left, also by an exception.

    Raises `UserError` in the pass for a layer that puts out no tensor, or none with rows that belong to images.
    """
    check_names(network, names)
    recording = Recording(names, reduce, inputs=inputs, stop=stop, raw=raw)
    running = _recordings.setdefault(network, [])
    running.append(recording)
    try:
        with attached(network, [recording]):
            yield recording.outputs
    finally:
        running.remove(recording)


class Recording:
    """What `record` keeps of the passes of one network.

    rows   the rows of the batch that are kept, int64 (b,); None for all
    group  the recordings of a pass, which ends early when all of them have seen enough
    error  why nothing more is kept, where a pass is shared with others, which go on
    """

    def __init__(
        self,
        names: list[str],
        reduce: Callable[[Tensor], Any] | dict[str, Callable[[Tensor], Any]],
        *,
        inputs: bool,
        stop: bool,
        raw: bool,
    ) -> None:
        self.names = list(dict.fromkeys(names))
        self.outputs: dict[str, Any] = {}
        self.stop = stop
        self.rows: Tensor | None = None
        self.group: list[Recording] = [self]
        self.error: Exception | None = None
        self._reduce, self._inputs, self._raw = reduce, inputs, raw
        self._calls: dict[str, int] = {}
        self._survey: image_axis.Survey | None = None

    @property
    def complete(self) -> bool:
        """Whether it needs no more of the pass."""
        return self.error is not None or (self.stop and len(self._calls) == len(self.names))

    def begin(self, network: nn.Module, arguments: tuple) -> None:
        """A pass of the network over a batch begins."""
        self.outputs.clear()
        self._calls.clear()
        if not self._raw and isinstance(images := first_tensor(arguments), Tensor):
            self._survey = _survey(network, images)

    def see(self, name: str, arguments: tuple, output: object) -> None:
        """A module has put out something. Raises what keeping it raises, unless the pass is shared."""
        if self.error is not None:
            return
        try:
            self._keep(name, arguments[0] if self._inputs else output)
        except Exception as error:
            if len(self.group) == 1:
                raise
            self.error = error
        if self.complete and all(recording.complete for recording in self.group):
            raise _Enough

    def _keep(self, name: str, value: Any) -> None:
        self._calls[name] = self._calls.get(name, 0) + 1
        key = image_axis.key(name, self._calls[name])
        if self._survey is not None:
            value = self._survey.of(key, value, inputs=self._inputs)
        if self.rows is not None:
            value = value[self.rows]
        self.outputs[key] = (self._reduce[name] if isinstance(self._reduce, dict) else self._reduce)(value)


_recordings: weakref.WeakKeyDictionary[nn.Module, list[Recording]] = weakref.WeakKeyDictionary()


def recordings(network: nn.Module) -> list[Recording]:
    """Those that passes of the network fill now."""
    return list(_recordings.get(network, ()))


@contextlib.contextmanager
def attached(network: nn.Module, kept: Iterable[Recording]) -> Generator[None]:
    """Passes of the network fill these recordings."""
    body = _body(network)

    def begin(recording: Recording):
        def hook(module, arguments):
            if not image_axis.measuring():
                recording.begin(network, arguments)

        return hook

    def see(recording: Recording, name: str):
        def hook(module, arguments, output):
            if not image_axis.measuring():
                recording.see(name, arguments, output)

        return hook

    with contextlib.ExitStack() as stack:
        for recording in kept:
            stack.callback(network.register_forward_pre_hook(begin(recording)).remove)
            for name in recording.names:
                stack.callback(body.get_submodule(name).register_forward_hook(see(recording, name)).remove)
        yield


Runner = Callable[[nn.Module, Tensor], Tensor | None]
runner: ContextVar[Runner | None] = ContextVar("runner", default=None)  # what makes passes here, such as shared ones


def run(network: nn.Module, images: Tensor) -> Tensor | None:
    """A forward pass; None if a `record` with `stop` had seen enough before its end."""
    run_here = runner.get() or run_alone
    return run_here(network, images)


def outputs(network: nn.Module, images: Tensor) -> Tensor:
    """What the network puts out, after a whole forward pass. Raises `ValueError` where a `record` with `stop` ended it."""
    found = run(network, images)
    if found is None:
        raise ValueError("a record with stop ends the pass before the network's output")
    return found


def run_alone(network: nn.Module, images: Tensor) -> Tensor | None:
    """A forward pass that is shared with nobody."""
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


def select(
    known: list[str],
    patterns: tuple[str, ...],
    groups: dict[str, list[str]],
    flag: str = "--layers",
    refused: dict[str, str] | None = None,
) -> list[str]:
    """The layers that a flag names: names, globs, or the words in `groups` (`cuts`, `all`), in the order of `known`.

    Raises `UserError`, which names the flag, for a pattern that matches nothing in `known`, or is the name of a layer in
    `refused`, with the reason that is there.
    """
    import fnmatch

    chosen = set()
    for pattern in patterns:
        if refused and pattern in refused and pattern not in known:
            raise UserError(f"{flag} {pattern}: {refused[pattern]}")
        matching = groups.get(pattern)
        if matching is None:
            matching = [name for name in known if name == pattern] or fnmatch.filter(known, pattern)
        if not matching and pattern.startswith("role:"):
            there = ", ".join(word for word, names in groups.items() if word.startswith("role:") and names)
            raise UserError(f"{flag} {pattern}: the network has no such layers; it has {there or 'none with a role'}")
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


def groups(listed: list[Layer], usable: list[str]) -> dict[str, list[str]]:
    """The words that flags take for several layers at once: `all` that are usable, `cuts`, and `role:ROLE`."""
    words = {"all": usable, "cuts": [layer.name for layer in listed if layer.cut and layer.name in usable]}
    for role in ROLES:
        words[f"role:{role}"] = [layer.name for layer in listed if layer.role == role and layer.name in usable]
    return words


def tapped(listed: list[Layer], patterns: tuple[str, ...], flag: str = "--layers") -> list[str]:
    """The layers with features that a flag names (`select`), in execution order.

    Layers that are named one by one must have features; those of globs and groups that have none are left out, with a
    warning, and so is one given of layers that mix images. Raises `UserError`.
    """
    import fnmatch

    usable = [layer.name for layer in listed if not layer.untapped]
    refused = {layer.name: layer.untapped for layer in listed if layer.untapped}
    chosen = select(usable, patterns, groups(listed, usable), flag, refused)
    roles_asked = {word.removeprefix("role:") for word in patterns}
    left_out = [
        layer.name
        for layer in listed
        if layer.untapped
        and (layer.role in roles_asked or any(word == "all" or fnmatch.fnmatch(layer.name, word) for word in patterns))
    ]
    if left_out:
        others = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        warnings.warn(f"{flag}: left out {left_out[0]}{others}: {refused[left_out[0]]}", stacklevel=2)
    warn_of_mixing(listed, chosen)
    return chosen


def warn_of_mixing(listed: list[Layer], chosen: list[str]) -> None:
    """Warns of those of the chosen layers whose output for an image depends on the other images of its batch."""
    mixing = [layer.name for layer in listed if layer.mixes and layer.name in chosen]
    if mixing:
        others = f" and {len(mixing) - 1} more" if len(mixing) > 1 else ""
        warnings.warn(
            f"layer {mixing[0]}{others}: what they put out for an image depends on the other images of its batch, {MIXING}, "
            "so that -b changes what is measured",
            stacklevel=3,
        )


MIXING = "as where attention is given the images for its tokens, or a normalisation has no running statistics"


def _mixing(axes: image_axis.Survey) -> list[str]:
    """The layers that mix the images of a batch, in the order in which they finish."""
    return list(dict.fromkeys(run.partition("@")[0] for run, axis in axes.outputs.items() if axis.mixes))


def answers_mix(network: nn.Module, images: Tensor) -> list[str]:
    """The layers that mix the images of a batch, where the one that finishes last does: so do the network's answers.

    images    (b, ...), of the form that the network takes
    """
    axes = _survey(network, images)
    last = next(reversed(axes.outputs.values()), image_axis.Axis())
    return _mixing(axes) if last.mixes else []


HEADLESS = "no module of the network puts out its logits, as where a function multiplies by the last weights"


def head(listed: list[Layer]) -> str:
    """The last layer to finish if it is the head, or a part of it; "" where no module puts out the network's logits."""
    last = max(listed, key=lambda layer: layer.runs[-1].index)
    return last.name if last.role == "head" else ""


def macs_before(listed: list[Layer]) -> dict[str, float]:
    """The share, in [0, 1], of the network's multiply-accumulates done when a layer has finished.

    By the keys of `record`: a layer that runs again has `name@2`, `name@3`, ... for its further runs.
    """
    total = sum(layer.own_macs for layer in listed) or 1
    return {
        image_axis.key(layer.name, number): run.before / total
        for layer in listed
        for number, run in enumerate(layer.runs, start=1)
    }


_graphs: "weakref.WeakKeyDictionary[nn.Module, dict[tuple, tracing.Graph]]" = weakref.WeakKeyDictionary()


def _traced(network: nn.Module, form: tuple[int, ...] | None, opened: Iterable[str]) -> tracing.Graph:
    """The graph of the network, into these of its modules, kept for the next time. Raises `tracing.Untraceable`."""
    entered = {"network"} | {inside(network, name) for name in opened}
    if isinstance(network, Normalized):
        entered.add("network.body")
    modules = tuple((name, id(module), module.training) for name, module in network.named_modules())
    kept, key = _graphs.setdefault(network, {}), (form, frozenset(entered), modules)
    if key not in kept:
        kept[key] = tracing.trace(network, None if form is None else _examples(network, form), entered)
        _thread_in_place(kept[key].graph, tracing.Root(network))
    return kept[key]


def _examples(network: nn.Module, form: tuple[int, ...]) -> tuple[tracing.Example, tracing.Example]:
    """What the network does with images of this form, in the two numbers that are traced."""
    weight = next(network.parameters(), torch.zeros(()))
    forms = _survey(network, torch.zeros(1, *form, device=weight.device)).forms
    few, more = (
        tracing.Example(
            torch.zeros(count, *form, device="meta"), {inside(network, key): output for key, output in outputs.items()}
        )
        for count, outputs in zip(tracing.COUNTS, forms, strict=True)
    )
    return few, more


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
        if not _is_form(current):
            waiting.extend(current.all_input_nodes)
    return True


def _is_form(node: fx.Node) -> bool:
    """Whether a node says only of what form its input is, which any representation of the same images tells, too."""
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in ("dtype", "device")
    return tracing.BATCH in node.meta


def _piece(traced: fx.GraphModule, begin: str | None, end: str | None) -> fx.GraphModule:
    """What lies between two nodes; None is the images, and the output."""
    graph = copy.deepcopy(traced.graph)
    if end is not None:
        next(reversed(graph.nodes)).args = (_find(graph, end),)
    if begin is None:
        return _pruned(traced, graph)
    node, images = _find(graph, begin), next(iter(graph.nodes))
    with graph.inserting_after(images):
        representation = graph.placeholder("representation")
    for told in graph.nodes:
        if _is_form(told) and told.target is not operator.mul and not _lies_behind(told, node):
            told.args = (representation, *told.args[1:])
    if any(_in_place(user, traced) for user in node.users):
        # the caller's tensor must not change under it
        with graph.inserting_after(representation):
            copied = graph.call_function(torch.clone, (representation,))
        node.replace_all_uses_with(copied)
    else:
        node.replace_all_uses_with(representation)
    return _pruned(traced, graph, unused=images)


def _lies_behind(node: fx.Node, cut: fx.Node) -> bool:
    """Whether a node is computed from what the cut puts out."""
    waiting, seen = [node], set()
    while waiting:
        current = waiting.pop()
        if current is cut:
            return True
        if current not in seen:
            seen.add(current)
            waiting.extend(current.all_input_nodes)
    return False


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


def _find_cuts(network: nn.Module, form: tuple[int, ...] | None) -> tuple[list[str], dict[str, str], set[str]]:
    """The cuts in execution order, innermost names first; of every other module why it is none; what was opened for them.

    Modules that nothing bypasses are opened to look for cuts inside, one depth after another; what cannot be traced stays
    whole.
    """
    body, prefix = _body(network), inside(network, "")
    names = [name for name, _ in body.named_modules() if name]
    opened: set[str] = set()
    closed: dict[str, str] = {}  # the module in which tracing stops, and why
    at: set[str] = set()
    uncut: dict[str, str] = {}
    while True:
        try:
            graph = _traced(network, form, opened)
        except tracing.Untraceable as error:
            stops = error.module.removeprefix(prefix) if error.module.startswith(prefix) else ""
            closed[stops] = f"tracing stops: {error.reason}"
            if stops not in opened:
                return [], dict.fromkeys(names, closed[stops]), set()
            opened = {name for name in opened if name != stops and not name.startswith(stops + ".")}
            continue
        calls: dict[str, list[fx.Node]] = {}
        for node in graph.graph.nodes:
            if node.op == "call_module" and str(node.target).startswith(prefix):
                calls.setdefault(str(node.target).removeprefix(prefix), []).append(node)
        reasons = {name: _uncut(graph.graph, nodes) for name, nodes in calls.items()}
        uncut |= {name: reason for name, reason in reasons.items() if reason}
        at |= {name for name, reason in reasons.items() if not reason}
        on_the_way = {name for name, (node, *more) in calls.items() if not more and _carries_everything(graph.graph, node)}
        whole = on_the_way - opened - closed.keys()
        deeper = {name for name in whole if any(True for _ in body.get_submodule(name).children())}
        if not deeper:
            break
        opened |= deeper
    order = [path.removeprefix(prefix) for path in graph.finished]
    for name in names:
        if name not in at and name not in uncut:
            around = [outer for outer in sorted(_ancestors(name), key=len) if outer in uncut or outer in closed]
            why = "does not run by itself in a forward pass"
            uncut[name] = f"inside {around[0]}: {uncut.get(around[0]) or closed[around[0]]}" if around else why
    return [name for name in dict.fromkeys(order) if name in at], uncut, opened


_forms: "weakref.WeakKeyDictionary[nn.Module, tuple[int, ...]]" = weakref.WeakKeyDictionary()


def _survey(network: nn.Module, images: Tensor) -> image_axis.Survey:
    """The axes of a network's layers; what form of image it takes is remembered for its cuts."""
    _forms[network] = tuple(images.shape[1:])
    return image_axis.survey(network, _body(network), images)


def _form(network: nn.Module, images: Tensor | None) -> tuple[int, ...] | None:
    """The shape of an image that a network takes: of these images, or of those that it ran on; None where it has not."""
    if images is not None:
        _forms[network] = tuple(images.shape[1:])
    return _forms.get(network)


def _nearest(network: nn.Module, layer: str, form: tuple[int, ...] | None, count: int = 4) -> str:
    """The end of an error message: the cuts around a layer, by registration order."""
    known, possible = [name for name, _ in _body(network).named_modules()], _find_cuts(network, form)[0]
    place = known.index(layer)
    possible.sort(key=lambda name: abs(known.index(name) - place))
    chosen = sorted(possible[:count], key=known.index)
    return "the nearest cuts are " + ", ".join(chosen) if chosen else "it has no cuts"


def _ancestors(layer: str) -> set[str]:
    parts = layer.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


def _body(network: nn.Module) -> nn.Module:
    return network.body if isinstance(network, Normalized) else network


def _macs(module: nn.Module, inputs: tuple, output: object) -> int:
    """Multiply-accumulates for a whole batch of a module's own arithmetic (not its children's)."""
    if isinstance(module, nn.modules.conv._ConvNd) and isinstance(output, Tensor):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear) and isinstance(output, Tensor):
        return output.numel() * module.in_features
    if isinstance(module, nn.MultiheadAttention):
        return 4 * inputs[0].numel() * module.embed_dim
    return 0
