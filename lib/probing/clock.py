"""Times the stages of a run."""

import contextlib
import time
from collections.abc import Generator


class Clock:
    """Seconds by stage, added up over all times that it runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Counts what is inside to a stage."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
