"""Completion of a script's command line in bash and zsh, by argcomplete where that is installed. Free of torch."""

import argparse
import dataclasses
import sys
import typing
from collections.abc import Iterable
from pathlib import Path

from lib import datasets, models
from lib.core.errors import UserError
from lib.datasets import names
from lib.runs import cli, input_files
from lib.runs.cli import RunConfig


def answer(config_class: type[RunConfig], prog: str) -> typing.NoReturn:
    """Writes the completions of the line that the shell asks about, and exits; none where argcomplete is not installed."""
    try:
        import argcomplete
    except ImportError:
        sys.exit(1)
    parser = cli.parser(config_class, prog)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and action.dest in fields:
            action.completer = _completer(fields[action.dest], argcomplete)  # ty: ignore[missing-attribute] - argcomplete's
    argcomplete.autocomplete(parser, always_complete_options=False)
    sys.exit(1)  # it did not take the line for one of its own


def _completer(field: dataclasses.Field, argcomplete):
    """What completes the values of a flag: its choices, data sets, types, or files of a kind."""
    about = field.metadata
    if about["choices"]:
        return argcomplete.ChoicesCompleter(tuple(map(str, about["choices"])))
    if about["network_type"] or about["check"] is models.check:
        return argcomplete.ChoicesCompleter(tuple(models.MODELS))
    if about["network"] or about["metavar"] == "CHECKPOINT":
        return argcomplete.FilesCompleter(tuple(suffix.lstrip(".") for suffix in input_files.SUFFIXES))
    if about["metavar"] == "DATASET" or "dataset" in field.name.split("_"):
        return _data_sets
    if field.name == "arguments":
        return _arguments
    if field.name.endswith(("_dir", "_root")) or about["metavar"] == "DIR" or field.name == "directory":
        return argcomplete.DirectoriesCompleter()
    if about["metavar"] in ("FILE.py", "FILE.yaml", "FILE.html", "RECORD", "PATH") or field.name == "stitch_run":
        return argcomplete.FilesCompleter()
    return argcomplete.SuppressCompleter() if about["positional"] else _nothing


def _data_sets(prefix: str, parsed_args: argparse.Namespace, **_) -> Iterable[str]:
    """The registered names, folders of images under the data root, and behind a colon the splits of a set."""
    name, colon, _ = prefix.partition(":")
    if colon and name in datasets.DATASETS:
        return [f"{name}:{split}" for split in _splits(name)]
    root = Path(getattr(parsed_args, "data_root", None) or "data")
    folders = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted({*datasets.DATASETS, *(folder for folder in folders if _is_name(folder))})


def _arguments(prefix: str, parsed_args: argparse.Namespace, **_) -> Iterable[str]:
    """What the actions of exec_data.py are for: data sets, once there is an action."""
    return _data_sets(prefix, parsed_args) if hasattr(parsed_args, "action") else ()


def _splits(name: str) -> tuple[str, ...]:
    from lib.datasets.catalogue import KNOWN

    return KNOWN[name].splits if name in KNOWN else ()


def _is_name(folder: str) -> bool:
    try:
        names.parse(folder)
    except UserError:
        return False
    return not folder.startswith(".")


def _nothing(**_) -> Iterable[str]:
    """No guess, and no files either: the value is a number or a name of one's own."""
    return ()
