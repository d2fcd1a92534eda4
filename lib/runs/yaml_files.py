"""The YAML files of `--config`: small and flat; larger or deeper ones are refused before they are built."""

import stat
from pathlib import Path
from typing import Any

from lib.core.errors import UsageError
from lib.core.registry import misspelt

MOST_BYTES = 1 << 16
DEEPEST = 8  # of brackets in brackets; a flag's value is one, or a list
MOST_ALIASES = 20  # so that aliases of aliases stay few, too
STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/")  # what a shell's <(...) is


def read(path: str) -> dict[Any, Any]:
    """The pairs in a YAML file. Raises `UsageError` for what is not there, is no YAML, or holds something else."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = _text(path)
    try:
        depth = aliases = 0
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > DEEPEST or aliases > MOST_ALIASES:
                what = "brackets in brackets" if depth > DEEPEST else "aliases"
                raise UsageError(f"--config {path}: more {what} than a file of flags has")
        loaded = yaml.load(text, loader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, OverflowError):  # tags on what they do not fit
        raise UsageError(f"--config {path}: not a YAML file") from None
    if not isinstance(loaded, dict | None):
        raise UsageError(f"--config {path}: holds no 'flag: value' pairs")
    return loaded or {}


def _text(path: str) -> str:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode) and not path.startswith(STREAMS):
            raise UsageError(f"--config {path}: not a file")  # reading a pipe or a device would not end
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UsageError(f"--config {path}: larger than {MOST_BYTES >> 10} KiB, which no file of flags is")
        return content.decode()
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}{misspelt(path)}") from None
    except ValueError:
        raise UsageError(f"--config {path}: not a YAML file") from None
