"""Experiments as scripts: their configurations and functions, and configurations as command lines.

The scripts hand down the table of all experiments; nothing here, and nothing that reads records, knows one of them.
"""

import dataclasses
import functools
import shlex
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING

from lib.core.registry import resolve
from lib.runs import cli
from lib.runs.columns import Columns
from lib.runs.records import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Experiment:
    """What a script runs: a configuration, and a function from it to a result; each itself, or as "module:name".

    figures_  a function from the finished run (`lib.plots.recorded`) to its figures, "" or a suffix -> figure; it needs no
              torch. "" where there are none
    """

    configuration_: str | type[cli.RunConfig]
    function_: str | Callable[..., Result]
    figures_: str | Callable[..., Mapping[str, "Figure"]] = ""

    @property
    def configuration(self) -> type[cli.RunConfig]:
        """The class of its configurations; imported when it is asked for, as the function is."""
        kind = resolve(self.configuration_) if isinstance(self.configuration_, str) else self.configuration_
        if not (isinstance(kind, type) and issubclass(kind, cli.RunConfig)):
            raise TypeError(f"{self.configuration_} is no configuration")
        return kind

    @property
    def function(self) -> Callable[..., Result]:
        """The function that runs it."""
        return resolve(self.function_) if isinstance(self.function_, str) else self.function_

    @property
    def figures(self) -> Callable[..., Mapping[str, "Figure"]]:
        """The function that draws its figures."""
        if not self.figures_:
            return lambda run: {}
        return resolve(self.figures_) if isinstance(self.figures_, str) else self.figures_

    @property
    def columns(self) -> Columns:
        """What is known of the columns of its rows."""
        return self.configuration.columns

    @property
    def revision(self) -> int:
        """The present version of its method."""
        return self.configuration.revision

    def problem(self, settings: Mapping) -> str | None:
        """The first of a record's settings that is of another kind than its flag's values, in words; None if none is.

        A single value may stand where a flag takes several: flags have become lists.
        """
        kinds = cli.kinds(self.configuration)
        for name, value in settings.items():
            if name not in kinds or value is None:
                continue
            kind, several = kinds[name]
            values = value if several and isinstance(value, list) else [value]
            allowed = (int, float) if kind is float else (kind,)
            if not all(type(one) in allowed for one in values):
                return f"setting {name} is {value!r}, not of the flag's kind"
        return None

    @functools.cached_property
    def fields(self) -> dict[str, dataclasses.Field]:
        """The fields of its configuration by name."""
        return {field.name: field for field in dataclasses.fields(self.configuration)}


Experiments = Mapping[str, Experiment]


def command(experiments: Experiments, name: str, values: dict) -> str:
    """The command line, ready for a shell, of the experiment `name` with these values of its fields, the others at default.

    Raises `KeyError` for a value of no field.
    """
    known = experiments[name].fields
    given = {key: value for key, value in values.items() if not _same(value, known[key].default)}  # KeyError: no field
    positionals = [field for field in known.values() if field.metadata["positional"]]
    last = max((place for place, field in enumerate(positionals) if field.name in given), default=-1)
    words = ["python", f"exec_{name}.py"]
    for field in positionals[: last + 1]:
        words += _words(given.get(field.name, field.default))
    for key, field in known.items():
        if key not in given or field.metadata["positional"]:
            continue
        value, spelling = given[key], cli.spellings(field)[0]
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
