"""The pass that writes the features of a split, continued from where a killed one had got.

Beside the finished files of a folder lie the unfinished ones of a pass and `.pass.partial`, which says of each how it is
called and how many images it holds, and has the moments of layers so far. It is renewed every `saved_state.SAVE_EVERY`
seconds, always between two batches, so that a continued pass has the batches, and the numbers, of one that was not stopped.
"""

import contextlib
import time
import warnings
from collections.abc import Collection, Generator, Mapping
from typing import Any

import torch
from torch import Tensor

from lib.core import checked_arrays, locks, saved_state
from lib.core.errors import Interrupted, UserError
from lib.representations.feature_files import FeatureFolder, Writer
from lib.representations.principal_components import Moments

STATE, LOCK = ".pass.partial", ".pass.lock"


@contextlib.contextmanager
def writing(
    folder: FeatureFolder,
    types: Mapping[str, torch.dtype],
    layers: Collection[str],
    n: int,
    batch_size: int,
    device: torch.device,
) -> Generator["FeaturePass"]:
    """The pass that writes files of these types, for n images, and takes the moments of these layers.

    Where the pass fails, nothing is left of it; where it is stopped from outside, what it continues from is. While another
    process writes into the folder, nothing is continued.
    """
    with contextlib.ExitStack() as held:
        state = None
        if folder.path is not None:
            with contextlib.suppress(UserError):
                held.enter_context(locks.locked(folder.path / LOCK, "another process writes features"))
                state = saved_state.RunFile(folder.path / STATE, f"{n} images in batches of {batch_size}")
        under_way = FeaturePass({name: folder.writer(name, n, kind) for name, kind in types.items()}, layers, state)
        try:
            under_way.take_up(device)
            yield under_way
        except (Interrupted, KeyboardInterrupt):
            if not under_way.saved:
                under_way.discard()
            raise
        except BaseException:
            under_way.discard()
            raise


class FeaturePass:
    """How many images a pass has behind it, the writers of its files by name, and the moments by layer."""

    def __init__(
        self, writers: dict[str, Writer], layers: Collection[str], state: saved_state.RunFile | None = None
    ) -> None:
        self.writers, self.moments, self.state = writers, {layer: Moments() for layer in layers}, state
        self.images, self.saved, self._since = 0, False, time.monotonic()

    def add(self, rows: Mapping[str, Tensor], images: int, moments: Mapping[Any, Any]) -> None:
        """Takes in the features (b, d) of the next b images by file, and the moments of their channels by layer."""
        for name, writer in self.writers.items():
            writer.add(rows[name])
        for layer in self.moments:
            self.moments[layer] += moments[layer]
        self.images += images
        if time.monotonic() - self._since > saved_state.SAVE_EVERY:
            self._save()

    def finish(self) -> dict[str, tuple[Tensor, float]]:
        """The stored numbers and the scale of every file, which is there now."""
        if any(len(writer.scales) > 1 for writer in self.writers.values()):
            self._forget()  # rows are brought to one scale where they lie: half of them done is nothing to continue from
        stored = {name: writer.finish() for name, writer in self.writers.items()}
        self._forget()
        return stored

    def discard(self) -> None:
        """Leaves nothing."""
        self._forget()
        for writer in self.writers.values():
            writer.discard()

    def take_up(self, device: torch.device) -> None:
        """Continues a pass that was stopped, for the same files and perhaps more; of any other nothing stays."""
        if self.state is None:
            return
        left = self.state.read() or {"files": {}, "moments": {}}
        fits = self.writers.keys() <= left["files"].keys() and self.moments.keys() <= left["moments"].keys()
        wanted = {name: left["files"][name] for name in self.writers} if fits else {}
        checked_arrays.clear(self.state.path.parent, [file["temporary"] for file in wanted.values()])
        try:
            for name, file in wanted.items():
                self.writers[name].go_on(file)
        except UserError:
            fits = False
            for name, writer in self.writers.items():
                writer.discard()
                self.writers[name] = Writer(writer.path, writer.n, writer.dtype)
        if not fits:
            self._forget()
            return
        for layer in self.moments:
            count, total, products = left["moments"][layer]
            self.moments[layer] = Moments(count, total.to(device), products.to(device))
        self.images, self.saved = left["images"], True

    def _save(self) -> None:
        files = {name: writer.state() for name, writer in self.writers.items()}
        if self.state is not None and None not in files.values():
            moments = {layer: (one.count, one.total, one.products) for layer, one in self.moments.items()}
            try:
                self.state.write(images=self.images, files=files, moments=moments)
                self.saved = True
            except UserError as error:
                warnings.warn(f"{error}; a pass that is stopped will begin anew", stacklevel=2)
                self.state = None
        self._since = time.monotonic()

    def _forget(self) -> None:
        if self.state is not None:
            self.state.remove()
        self.saved = False
