"""Progress bars on a terminal, nothing in a log: how far a pass has come, and what time the whole run still takes."""

import contextlib
import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from lib.core.text import duration

Item = TypeVar("Item")

FORWARD, TRAINING, ATTACK = "forward", "training", "attack"  # kinds of passes, by what an image costs
BACKWARD = 3  # passes forward that one forward and backward takes, while none has been measured
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
WAIT = 0.5  # seconds between looks at the clock


@dataclass
class Whole:
    """The passes of a run: what is still to come, and how long an image of each kind of pass has taken.

    planned   kind and images of the passes that have not begun
    seconds, images   by kind, of all passes so far
    """

    planned: list[tuple[str, int]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    _kind: str = ""
    _left: int = 0
    _since: float = 0.0
    _begun: float = 0.0

    def plan(self, kind: str, *images: int) -> None:
        """Adds passes to those that are to come."""
        self.planned += [(kind, count) for count in images]

    def begin(self, kind: str, images: int) -> None:
        """A pass begins, that was planned or was not."""
        place = next((place for place, (planned, _) in enumerate(self.planned) if planned == kind), None)
        if place is not None:
            del self.planned[place]
        self._kind, self._left, self._since = kind, images, time.perf_counter()
        self._begun = self._begun or self._since

    def advance(self, images: int) -> None:
        """So many images of the pass are done."""
        now = time.perf_counter()
        self.seconds[self._kind] = self.seconds.get(self._kind, 0.0) + now - self._since
        self.images[self._kind] = self.images.get(self._kind, 0) + images
        self._left, self._since = self._left - images, now

    def of_pass(self) -> float | None:
        """The seconds that are left of the present pass; None while that is not known."""
        per_image = self._per_image(self._kind)
        return None if per_image is None else self._left * per_image

    def left(self) -> float | None:
        """The seconds that are left of the run; None while no image of a kind of pass that is to come has been timed.

        What passes between passes, such as saving, is taken to go on as it has.
        """
        parts = [self._per_image(kind) for kind, _ in self.planned]
        here, measured = self.of_pass(), sum(self.seconds.values())
        if here is None or not measured or None in parts:
            return None
        to_come = sum(part * images for part, (_, images) in zip(parts, self.planned, strict=True) if part is not None)
        return (here + to_come) * max(1.0, (time.perf_counter() - self._begun) / measured)

    def _per_image(self, kind: str) -> float | None:
        if self.images.get(kind):
            return self.seconds[kind] / self.images[kind]
        if kind == FORWARD and self.images.get(TRAINING):
            return self.seconds[TRAINING] / self.images[TRAINING] / BACKWARD
        return None


def bar(items: Iterable[Item], *, total: int, label: str, unit: str, quiet: bool = False) -> Iterable[Item]:
    """The items, with a bar on stderr while they are consumed; nothing is shown where stderr is no terminal."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=label, unit=unit, leave=False, disable=True if quiet else None, dynamic_ncols=True)


def image_bar(
    batches: Iterable[Item],
    n: int,
    batch_size: int,
    *,
    label: str,
    quiet: bool = False,
    whole: Whole | None = None,
    kind: str = FORWARD,
) -> Generator[Item]:
    """The batches of n images, with a `bar` that counts images, and says what time the pass and the whole run still take."""
    from tqdm import tqdm

    whole = whole if whole is not None else Whole()
    whole.begin(kind, n)
    with tqdm(
        total=n, desc=label, leave=False, disable=True if quiet else None, dynamic_ncols=True, bar_format=FORMAT
    ) as shown:
        looked = 0.0
        for number, batch in enumerate(batches):
            yield batch
            count = min(batch_size, n - number * batch_size)
            whole.advance(count)
            if shown.disable:
                continue
            if time.perf_counter() - looked > WAIT:
                looked = time.perf_counter()
                shown.set_postfix_str(_said(whole, kind), refresh=False)
            shown.update(count)


def _said(whole: Whole, kind: str) -> str:
    """What stands behind the bar: time left, memory of the GPU, speed."""
    here, left = whole.of_pass(), whole.left()
    words = [] if here is None else [f"{duration(here)} left"]
    if whole.planned and left is not None:
        words.append(f"run {duration(left)}")
    words += filter(None, [gpu_memory()])
    if whole.seconds.get(kind):
        words.append(f"{whole.images[kind] / whole.seconds[kind]:.0f} images/s")
    return ", ".join(words)


def gpu_memory() -> str:
    """The memory that this process has taken of its GPU at most, as words; none where it uses none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    return f"GPU {torch.cuda.max_memory_reserved() / 2**30:.1f} GiB"


@contextlib.contextmanager
def status(words: str, quiet: bool = False) -> Generator[None]:
    """Says on a terminal what is going on, until it is done: for what takes seconds and has no steps to count."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    print(f"{words} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
