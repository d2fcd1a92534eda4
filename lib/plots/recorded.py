"""What figures are drawn from: a finished run, as its record tells it. Free of torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Recorded:
    """A run's settings, rows and arrays, and what is known of the networks that it read.

    networks  path, as settings and rows name it -> its architecture, data set, epoch, loss, seed, classes, as far as known
    facts     what else the experiment says of the run as a whole
    """

    config: Mapping[str, Any]
    rows: list[dict]
    arrays: Mapping[str, "np.ndarray"] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def name(self, path: str) -> str:
        """What a reader calls the network: `resnet20 (digits, 6 epochs)`; the end of its path where nothing is known."""
        known = self.networks.get(path, {})
        if not known.get("architecture"):
            return "/".join(PurePath(path).with_suffix("").parts[-2:])
        epoch = known.get("epoch")
        trained = "" if epoch is None or epoch < 0 else "untrained" if epoch == 0 else f"{epoch} epoch{'s' * (epoch > 1)}"
        loss = known.get("loss") or "ce"
        told = [known.get("dataset"), "" if loss == "ce" else loss, trained]
        about = ", ".join(str(word) for word in told if word)
        return f"{known['architecture']} ({about})" if about else str(known["architecture"])

    def names(self, paths: Iterable[str]) -> dict[str, str]:
        """path -> name, with the seed, or the end of the path, behind names that several networks would share."""
        paths = list(dict.fromkeys(paths))
        named = {path: self.name(path) for path in paths}
        for more in (lambda path: f"seed {self.networks.get(path, {}).get('seed')}", lambda path: _end(path)):
            for name in set(named.values()):
                same = [path for path in paths if named[path] == name]
                if len({more(path) for path in same}) > 1:
                    named |= {path: f"{name}, {more(path)}" for path in same}
        return named

    def pair(self, first: str, second: str, between: str) -> str:
        """Two networks in a title: `a into b`, or `a into itself`."""
        if first == second:
            return f"{self.name(first)} {between} itself"
        named = self.names((first, second))
        return f"{named[first]} {between} {named[second]}"


def _end(path: str) -> str:
    return "/".join(PurePath(path).with_suffix("").parts[-2:])
