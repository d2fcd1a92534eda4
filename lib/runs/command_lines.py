"""The scripts by the experiments they run: their configurations, and configurations as command lines.

An experiment is reached by its name, so that what reads records need not import the experiments, nor torch.
"""

import dataclasses
import functools
import importlib
import importlib.util
import shlex
from dataclasses import MISSING

from lib.runs import cli


@functools.cache
def configuration(experiment: str) -> type[cli.RunConfig] | None:
    """The configuration of an experiment: `OodLayersConfig` of `lib.experiments.ood_layers`; None where there is none."""
    module = f"lib.experiments.{experiment}"
    if importlib.util.find_spec(module) is None:
        return None
    name = "".join(word.capitalize() for word in experiment.split("_")) + "Config"
    return getattr(importlib.import_module(module), name)


def fields(experiment: str) -> dict[str, dataclasses.Field]:
    """The fields of an experiment's configuration by name; none for an experiment that is not there."""
    kind = configuration(experiment)
    return {field.name: field for field in dataclasses.fields(kind)} if kind else {}


def command(experiment: str, values: dict) -> str:
    """The command line, ready for a shell, of an experiment with these values of its fields; the others stay at default.

    Raises `KeyError` for a value of no field.
    """
    known = fields(experiment)
    given = {name: value for name, value in values.items() if not _same(value, known[name].default)}  # KeyError: no field
    positionals = [field for field in known.values() if field.metadata["positional"]]
    last = max((place for place, field in enumerate(positionals) if field.name in given), default=-1)
    words = ["python", f"exec_{experiment}.py"]
    for field in positionals[: last + 1]:
        words += _words(given.get(field.name, field.default))
    for name, field in known.items():
        if name not in given or field.metadata["positional"]:
            continue
        value, spelling = given[name], cli.spellings(field)[0]
        if isinstance(value, bool):
            words.append(spelling if value else "--no-" + spelling.removeprefix("--"))
        else:
            words += [spelling, *_words(value)]
    return shlex.join(words)


def _same(value, default) -> bool:
    value, default = (list(one) if isinstance(one, tuple) else one for one in (value, default))
    return default is not MISSING and value == default


def _words(value) -> list[str]:
    if isinstance(value, tuple | list):
        return [word for item in value for word in _words(item)]
    return [f"{value:g}" if isinstance(value, float) else str(value)]
