"""Where re-initialised weights come from: other epochs' files, folders, lists of paths, fresh draws.

Torch is imported where weights are read.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lib.core.errors import UserError
from lib.runs import input_files
from lib.runs.input_files import ModelsDir

if TYPE_CHECKING:
    from lib.models.checkpoints import Description
    from lib.reinit.targets import Target


@dataclass(frozen=True)
class Source:
    """Where re-initialised weights come from. `label` is the row's source; draws share theirs."""

    label: str
    epoch: int | None
    state: dict
    file: Path | None = None


class InitialWeights(ModelsDir, Protocol):
    """The flags that say which weights layers are given."""

    @property
    def model_path(self) -> str: ...

    @property
    def inits_from(self) -> tuple[str, ...]: ...

    @property
    def rand(self) -> int: ...

    @property
    def seed(self) -> int: ...


def files(config: InitialWeights) -> tuple[list[Path], list[str]]:
    """The files with initial weights, each once, in the order given, and what is named but not there."""
    there, missing = {}, []
    for word in config.inits_from:
        path = input_files.locate(config, word)
        words = [word]
        if is_list(config, word):
            try:
                words = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
            except UnicodeDecodeError:
                raise UserError(f"--inits-from {word}: neither a checkpoint nor a list of paths") from None
        for line in words:
            named = input_files.locate(config, line)
            if not named.exists() and (path.parent / line).exists():
                named = path.parent / line
            if named.exists():
                there |= dict.fromkeys(input_files.snapshots(config, str(named)))
            else:
                missing.append(line)
    return list(there), missing


def require(config: InitialWeights) -> None:
    """Raises `UserError` if none of the files of `--inits-from` is there, and none is drawn."""
    if not config.rand and not files(config)[0]:
        raise UserError(f"--inits-from {' '.join(config.inits_from)}: none of its files is there")


def is_list(config: ModelsDir, word: str) -> bool:
    """Whether a word of `--inits-from` names a text file with a path per line."""
    path = input_files.locate(config, word)
    return path.is_file() and path.suffix not in input_files.SUFFIXES


def load(
    config: InitialWeights, description: "Description", units: list["Target"], own: dict
) -> tuple[list[Source], list[str]]:
    """Snapshots by epoch and fresh draws, with the tensors that are needed only; and the files that are missing."""
    from lib.models import checkpoints

    there, missing = files(config)
    for path in missing:
        warnings.warn(f"--inits-from: {path} is missing; the others are used", stacklevel=2)
    require(config)
    needed = {key for unit in units for key in unit.keys}
    sources = []
    for file in there:
        described, state = checkpoints.weights(file, description.architecture)
        wrong = [key for key in needed if state[key].shape != own[key].shape]
        if wrong:
            raise UserError(
                f"--inits-from {file}: {wrong[0]} has the shape {tuple(state[wrong[0]].shape)}, in "
                f"{config.model_path} it has {tuple(own[wrong[0]].shape)}"
            )
        epoch = described.epoch if described.epoch is not None else input_files.epoch_of(file)
        label = str(epoch) if epoch is not None else file.stem
        parts, taken = file.with_suffix("").parts, {source.label for source in sources}
        longer = (f"{label} {'/'.join(parts[-count:])}" for count in range(2, len(parts) + 1))
        label = next((name for name in (label, *longer) if name not in taken), f"{label} {file}")
        sources.append(Source(label, epoch, {key: state[key].to(own[key].device) for key in needed}, file))
    for draw in range(config.rand):
        state = checkpoints.fresh(description, config.seed, "rand", draw).body.state_dict()
        sources.append(Source("rand", None, {key: state[key].to(own[key].device) for key in needed}))
    return sources, missing
