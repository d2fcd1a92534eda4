"""Functions that run together and share their passes: an image is decoded once and goes through a network once for all.

Each function runs in a thread of its own, and only one of them at a time, until it asks for a pass over a split
(`lib.datasets.batching`). When all of them ask, those that ask for the same images are given them in step, batch by batch,
and one forward pass serves all that run the same network on a batch: every recording (`lib.models.cutting`) takes from it
what it wants. No function knows of the others. What it measures is what it would measure alone, but for rounding, since
batches may be divided in another way.
"""

import contextlib
import hashlib
import itertools
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.core import saved_state
from lib.core.errors import Interrupted
from lib.datasets import batching as batching_module
from lib.datasets.batching import Batches, Batching
from lib.datasets.split import Split
from lib.datasets.storage.lazy_images import LazyImages
from lib.models import cutting
from lib.models.cutting import Recording
from lib.representations import feature_files

SMALL = 0.05  # of the images of the largest pass: a smaller one goes first, since what comes behind it may be shared


@dataclass
class Outcome:
    """What a function returned or raised, and its seconds: its own, and its part of those of the passes it shared."""

    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0


@dataclass
class Shared:
    """What sharing saved: images that were decoded and that went through a network, and how many were asked for.

    Passes that could not be shared, such as those in a random order, are not counted.
    """

    images: int = 0
    forwards: int = 0
    asked_images: int = 0
    asked_forwards: int = 0

    def plus(self, other: "Shared") -> "Shared":
        """The sums of both."""
        return Shared(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


def seconds() -> float:
    """Those of the function that asks: its own, and its part of those of the passes it shared; 0 outside."""
    member = _member.get()
    return 0.0 if member is None else member.outcome.seconds + time.perf_counter() - member.resumed


def run(functions: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Outcome], Shared]:
    """Runs all functions, and shares the passes that they make; what each came to, and what sharing saved.

    Raises what interrupts the process, after every function has been left by way of it.
    """
    scheduler = _Scheduler(functions)
    return scheduler.run(), scheduler.shared


@dataclass(frozen=True)
class _Pass:
    """A function wants the images of a split in an order, which rises."""

    batching: Batching
    split: Split
    label: str
    order: Tensor | None

    @property
    def positions(self) -> Tensor:
        return torch.arange(len(self.split)) if self.order is None else self.order

    @property
    def key(self) -> tuple:
        """What passes share that may be over the same images, given in the same form."""
        split, given = self.split, self.batching
        return split.name, split.split, split.variant, split.origin, split.features, given.channels, given.size, given.device

    @property
    def ids(self) -> Tensor:
        return self.split.indices.cpu()[self.positions]


@dataclass(frozen=True)
class _Forward:
    """A function wants what a network makes of the images that it was given."""

    network: nn.Module


class _Next:
    """A function wants the next batch of its pass."""


@dataclass
class _Generators:
    """The states of all global generators, so that functions do not draw from one another's."""

    states: tuple = field(default_factory=lambda: _Generators.now())

    @staticmethod
    def now() -> tuple:
        return torch.get_rng_state(), np.random.get_state(), random.getstate()

    def exchange(self) -> None:
        """Puts these states in force, and keeps those that were."""
        before = self.now()
        torch.set_rng_state(self.states[0])
        np.random.set_state(self.states[1])
        random.setstate(self.states[2])
        self.states = before


class _Member:
    """A function in its thread, from the scheduler's side (`resume`) and from its own (`feed`, `run`)."""

    def __init__(self, name: str, function: Callable[[], Any]) -> None:
        self.name, self.outcome, self.done = name, Outcome(), False
        self.request: _Pass | _Forward | _Next | None = None
        self.current: Tensor | None = None  # the images that it was given last
        self.rows: Tensor | None = None  # which rows of the batch these are; None for all
        self._inside = False  # of a pass
        self._answer: Any = None
        self._error: BaseException | None = None
        self.resumed = 0.0  # when it was last let go on
        self._go, self._came = threading.Semaphore(0), threading.Semaphore(0)
        self._generators = _Generators()
        self._thread = threading.Thread(target=self._work, args=(function,), name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()
        self.resume()

    def resume(self, answer: Any = None, error: BaseException | None = None) -> None:
        """Lets the function go on with an answer or an error, until it asks for something or ends."""
        self._answer, self._error, self.request = answer, error, None
        self._generators.exchange()
        self.resumed = time.perf_counter()
        try:
            self._go.release()
            self._came.acquire()
        finally:
            self.outcome.seconds += time.perf_counter() - self.resumed
            self._generators.exchange()

    def stop(self, error: BaseException) -> None:
        """Raises the error in the function, where it was started and has not ended, until it ends."""
        while self._thread.ident is not None and not self.done:
            self.resume(error=error)

    def _work(self, function: Callable[[], Any]) -> None:
        self._go.acquire()
        batching_module.feed.set(self.feed)
        cutting.runner.set(self.run)
        _member.set(self)
        try:
            self.outcome.value = function()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asked for the function
            self.outcome.error = error
        finally:
            self.done = True
            self._came.release()

    def _ask(self, request: _Pass | _Forward | _Next) -> Any:
        self.request = request
        self._came.release()
        self._go.acquire()
        if self._error is not None:
            raise self._error
        return self._answer

    def feed(self, batching: Batching, split: Split, label: str, order: Tensor | None) -> Batches:
        """The batches of a pass: in step with others, unless it is inside another pass or in an order of its own."""
        order = None if order is None else torch.as_tensor(order, dtype=torch.int64).cpu()
        if order is not None and not bool((order.diff() > 0).all()):
            return batching.alone(split, label, order=order)
        return self._batches(_Pass(batching, split, label, order))

    def _batches(self, wanted: _Pass) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if self._inside:
            yield from wanted.batching.alone(wanted.split, wanted.label, order=wanted.order)
            return
        self._inside = True
        try:
            batch = self._ask(wanted)
            while batch is not None:
                yield batch
                batch = self._ask(_Next())
        finally:
            self._inside, self.current = False, None

    def run(self, network: nn.Module, images: Tensor) -> Tensor | None:
        """A forward pass: a shared one where it is of the images that were given to it, and leaves no gradient."""
        if images is not self.current or torch.is_grad_enabled() or torch.is_autocast_enabled(images.device.type):
            return cutting.run_alone(network, images)
        if any(module.training for module in network.modules()):
            return cutting.run_alone(network, images)
        return self._ask(_Forward(network))


_member: ContextVar[_Member | None] = ContextVar("member", default=None)


class _Scheduler:
    def __init__(self, functions: Mapping[str, Callable[[], Any]]) -> None:
        self.members = [_Member(name, function) for name, function in functions.items()]
        self.shared = Shared()
        self._seen: dict[tuple, int] = {}  # keys of passes in the order in which they were first asked for
        self._digests: weakref.WeakKeyDictionary[nn.Module, tuple[tuple, str]] = weakref.WeakKeyDictionary()

    def run(self) -> dict[str, Outcome]:
        try:
            for member in self.members:
                member.start()
            while waiting := [member for member in self.members if not member.done]:
                self._pass(self._group(waiting))
        except BaseException as error:
            for member in self.members:
                member.stop(error)
            raise
        return {member.name: member.outcome for member in self.members}

    def _group(self, waiting: list[_Member]) -> list[_Member]:
        """Who makes the next pass: all that ask for images of the one whose turn it is.

        Small passes have theirs first, then training images, then it goes by when images were first asked for.
        """
        requests = {member.name: _asked(member) for member in waiting}
        for request in requests.values():
            self._seen.setdefault(request.key, len(self._seen))
        largest = max(len(request.positions) for request in requests.values())
        small = [member for member in waiting if len(requests[member.name].positions) < SMALL * largest]
        if small:
            return small[:1]
        turn = min(requests.values(), key=lambda request: (request.split.split != "train", self._seen[request.key])).key
        return [member for member in waiting if requests[member.name].key == turn]

    def _pass(self, group: list[_Member]) -> None:
        """One pass over the images of the largest split of a group, for all whose images are among them."""
        requests = {member.name: _asked(member) for member in group}
        whole = max(group, key=lambda member: len(requests[member.name].positions))
        base = requests[whole.name]
        tables = {whole.name: torch.arange(len(base.positions))}
        for name, request in requests.items():
            if name != whole.name and (table := _table(base, request)) is not None:
                tables[name] = table
        joined = {member.name: member for member in group if member.name in tables}
        names = ", ".join(joined)
        label = f"{base.label} for {names}" if len(joined) < 4 else f"{base.label} for {len(joined)} runs"
        self.shared.asked_images += sum(len(requests[name].positions) for name in joined)
        self.shared.images += len(base.positions)
        first, begin = 0, time.perf_counter()
        # nobody gets more images at once than it asked for
        size = min(requests[name].batching.batch_size for name in joined)
        for images, _, positions in replace(base.batching, batch_size=size).alone(base.split, label, order=base.order):
            _divide(joined.values(), time.perf_counter() - begin)
            for name, member in joined.items():
                steps = tables[name][first : first + len(positions)]
                self._give(member, requests[name], images, steps)
            self._forwards(list(joined.values()), images)
            joined = {name: member for name, member in joined.items() if isinstance(member.request, _Next)}
            first += len(positions)
            if not joined:
                break
            begin = time.perf_counter()
        for member in joined.values():
            member.resume(None)

    @staticmethod
    def _give(member: _Member, request: _Pass, images: Tensor, steps: Tensor) -> None:
        """Gives a member its images of a batch, with their labels and positions; nothing where none is its own."""
        own = steps >= 0
        if not bool(own.any()):
            return
        everything = bool(own.all())
        member.rows = None if everything else own.nonzero().squeeze(1).to(images.device)
        member.current = images if member.rows is None else images[member.rows]
        positions = request.positions[steps if everything else steps[own]]
        labels = request.split.labels[positions.to(request.split.labels.device)].to(images.device)
        member.resume((member.current, labels, positions))

    def _forwards(self, members: list[_Member], images: Tensor) -> None:
        """The forward passes over a batch, one per network, until every member wants the next batch or something else."""
        while asking := [member for member in members if not member.done and isinstance(member.request, _Forward)]:
            networks: dict[str, list[tuple[_Member, nn.Module]]] = {}
            for member in asking:
                if isinstance(member.request, _Forward):
                    network = member.request.network
                    networks.setdefault(self._digest(network), []).append((member, network))
            for together in networks.values():
                self._forward(together, images)

    def _forward(self, together: list[tuple[_Member, nn.Module]], images: Tensor) -> None:
        """One forward pass for all members that run the same network, over the images that they want."""
        leader = together[0][1]
        batch, rows = _wanted(images, [member.rows for member, _ in together])
        kept = [cutting.recordings(network) for _, network in together]
        every = [recording for recordings in kept for recording in recordings]
        if not all(any(recording.stop for recording in recordings) for recordings in kept):
            every.append(Recording([], {}, inputs=False, stop=False, raw=False))  # who wants the output waits for the end
        for recordings, own in zip(kept, rows, strict=True):
            for recording in recordings:
                recording.rows, recording.group = own, every
        self.shared.forwards += len(batch)
        begin, output, failed = time.perf_counter(), None, None
        try:
            with contextlib.ExitStack() as stack, torch.no_grad():
                for recordings in kept[1:]:
                    stack.enter_context(cutting.attached(leader, recordings))
                output = cutting.run_alone(leader, batch)
        except Interrupted:  # the process, not this pass
            raise
        except Exception as error:  # noqa: BLE001 - it is that of each member
            failed = error
        _divide([member for member, _ in together], time.perf_counter() - begin)
        for (member, _), recordings, own in zip(together, kept, rows, strict=True):
            error = next((recording.error for recording in recordings if recording.error is not None), failed)
            for recording in recordings:
                recording.rows, recording.group, recording.error = None, [recording], None
            self.shared.asked_forwards += len(batch) if own is None else len(own)
            member.resume(output if output is None or own is None else output[own], error)

    def _digest(self, network: nn.Module) -> str:
        """Stands for the network's form and weights; taken again when a weight has changed."""
        tensors = itertools.chain(network.parameters(), network.buffers())
        versions = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        known = self._digests.get(network)
        if known is None or known[0] != versions:
            known = self._digests[network] = versions, saved_state.content_key(*saved_state.network_parts(network))
        return known[1]


def _asked(member: _Member) -> _Pass:
    if not isinstance(member.request, _Pass):
        raise TypeError(f"{member.name} asks for {member.request}, and not for a pass")
    return member.request


def _wanted(images: Tensor, rows: list[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
    """The images of a batch that somebody wants, and which rows of them each wants; None for all."""
    given = [own for own in rows if own is not None]
    if len(given) < len(rows):
        return images, rows
    union = torch.cat(given).unique()
    places = [torch.searchsorted(union, own) for own in given]
    batch = images if len(union) == len(images) else images[union]
    return batch, [None if len(place) == len(union) else place for place in places]


def _divide(members: Iterable[_Member], seconds: float) -> None:
    """Charges each of the members with its part of shared seconds."""
    members = list(members)
    for member in members:
        member.outcome.seconds += seconds / len(members)


def _table(base: _Pass, other: _Pass) -> Tensor | None:
    """By step of the base's pass the step of the other one at which it wants that image, -1 where it does not, int64 (n,).

    None where its images are not all among those of the base, in the same order, and the same numbers.
    """
    ids, wanted = base.ids, other.ids
    place = torch.full((int(max(ids.max(), wanted.max())) + 1,), -1)
    place[ids] = torch.arange(len(ids))
    steps = place[wanted]
    alike = len(ids.unique()) == len(ids) and bool((steps >= 0).all()) and bool((steps.diff() > 0).all())
    if not alike or not _same_images(base, other, steps):
        return None
    table = torch.full((len(ids),), -1)
    table[steps] = torch.arange(len(wanted))
    return table


def _same_images(base: _Pass, other: _Pass, steps: Tensor) -> bool:
    ours, theirs = base.split.images, other.split.images
    if isinstance(ours, LazyImages) or isinstance(theirs, LazyImages):
        return (
            isinstance(ours, LazyImages)
            and isinstance(theirs, LazyImages)
            and _of_files(ours.subset(base.positions[steps].numpy())) == _of_files(theirs.subset(other.positions.numpy()))
        )
    if ours.shape[1:] != theirs.shape[1:] or ours.dtype != theirs.dtype:
        return False
    parts = zip(base.positions[steps].split(4096), other.positions.split(4096), strict=True)
    return all(torch.equal(ours[one.to(ours.device)].cpu(), theirs[two.to(theirs.device)].cpu()) for one, two in parts)


def _of_files(images: LazyImages) -> str:
    digest = hashlib.sha256()
    feature_files.add_lazy(digest, images)
    return digest.hexdigest()
