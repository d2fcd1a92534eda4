"""The command line: flags are derived from a frozen dataclass.

A field is a flag: its type, default and help are stated once. `bool` gives `--x/--no-x`, `tuple[T, ...]` takes several
values and may be repeated, a field without default is required. A YAML file given as `--config` sets defaults, the
command line wins. Flags as the papers' code spells them are understood, too (`published_flags`). Nothing here imports
torch, and nothing here knows an experiment.
"""

import argparse
import dataclasses
import datetime
import functools
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path

from lib.core import distributed, figures
from lib.core.errors import UsageError, UserError
from lib.core.registry import near
from lib.datasets.catalogue import DECODERS
from lib.runs import help_text, published_flags, yaml_files
from lib.runs.columns import Columns, Summary
from lib.runs.help_text import Flag

HOME = re.compile(r"^([a-z]+=)?~(?=/|$)")  # that a path begins with


def flag(
    default=MISSING,
    *names: str,
    help: str,
    group: str = "method",
    needed: bool = False,
    choices: Mapping | tuple | None = None,
    check: Callable | None = None,
    positional: bool = False,
    identity: bool = True,
    label: str = "",
    commas: bool = False,
    metavar: str | None = None,
    bare=None,
    selects: bool | tuple[str, str] = False,
    network: str = "",
    network_type: bool = False,
    missing: Callable[[], str] | None = None,
):
    """A field of a configuration.

    names       short spellings beside `--field-name`, or all spellings if a long one is among them
    group       the group of `help_text.GROUPS` in which help and documentation show it
    needed      whether no run does without it, although it has a default: a question that is answered does
    choices     the values there are (a registry or a tuple); the error for another names the near ones
    check       called with the value (with each one of a tuple), raises `UsageError`
    identity    whether the value is part of what the run is: records of runs that differ in it are different records
    label       how the value is written into the record's name: "{}", or with a word before it, "s{}"
    commas      a tuple's values may also be joined by commas
    bare        the value of the flag where none follows it
    missing     a clause on the values there are, said where a value is required and none is given

    What tables need to know, to tell which records are runs of one thing:

    selects       whether the value only says of which images, layers or pairs there are rows, and changes no number in
                  them; ("column", "value"): it changes those rows only that have this value in this column
    network       the role of the network that the value is the checkpoint of, such as "net", "front", "end"
    network_type  whether the value is the type of such a network, which its training says, too
    """
    metadata = dict(
        names=names,
        help=help,
        group=group,
        needed=needed,
        choices=choices,
        check=check,
        positional=positional,
        identity=identity,
        label=label,
        commas=commas,
        metavar=metavar,
        bare=bare,
        selects=selects,
        network=network,
        network_type=network_type,
        missing=missing,
    )
    if default is MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def at_least(low: float) -> Callable[[float], None]:
    """A check that a number is `low` or more."""

    def check(value):
        if not value >= low:
            raise UsageError(f"{value} is below {low}")

    return check


def above(low: float) -> Callable[[float], None]:
    """A check that a number is more than `low`."""

    def check(value):
        if not value > low:
            raise UsageError(f"{value} is not above {low}")
        if math.isinf(value):
            raise UsageError(f"{value} is not finite")

    return check


def fraction(value: float) -> None:
    """A check that a number is in [0, 1]."""
    if not 0 <= value <= 1:
        raise UsageError(f"{value} is not in [0, 1]")


def python_file(path: str) -> None:
    """A check that a Python file is there."""
    if not path.endswith(".py") or not Path(path).is_file():
        raise UsageError(f"{path} is no Python file (relative to {Path.cwd()})")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The flags of every script."""

    # of the method: one more when a command that stays the same gives other numbers, so that records of before are not taken
    # for those of after; a comment beside it says what was corrected
    revision: typing.ClassVar[int] = 1
    reads_records: typing.ClassVar[bool] = False  # whether it reads records of other experiments, so that these come first
    takes_features: typing.ClassVar[bool] = False  # whether stored features may take the place of images
    # whether torchrun's processes share the work of the script's experiment: in passes (`Processes.together`), or by itself
    parallel: typing.ClassVar[typing.Literal["", "passes", "itself"]] = ""
    # flags of a repetition that leaves the checkpoints and detectors there are as they are; "{models}" is another folder
    aside: typing.ClassVar[tuple[str, ...]] = ()
    answers_at_once: typing.ClassVar[bool] = True  # whether what `answer` does is done in seconds
    common: typing.ClassVar[str] = "plan"  # fields that the short help shows, beside positional arguments

    name: str = flag(
        "", help="name of the record; without it the name follows from the configuration", group="output", identity=False
    )
    overwrite: bool = flag(False, help="run even if the record is there, and replace it", group="output", identity=False)
    results_dir: str = flag("results", help="folder of the records and figures", group="output", identity=False)
    figure_format: str = flag(
        "png",
        help="format of the figures; a finished run draws them again",
        choices=figures.FORMATS,
        group="output",
        identity=False,
    )
    figure_width: str = flag(
        "screen",
        help="width of the figures: single (3.3 in) and double (6.8 in) are columns of a paper, screen is as wide as needed",
        choices=tuple(figures.WIDTHS),
        group="output",
        identity=False,
    )
    models_dir: str = flag("models", help="folder of the checkpoints", group="output", identity=False)
    cache_dir: str = flag(
        ".cache",
        help="folder of decoded images, features and hashes, all of which can be computed again",
        group="machine",
        identity=False,
    )
    trust: tuple[str, ...] = flag(
        (),
        help="Python files that may be run as a network's type where a sidecar, a record or a YAML file names them",
        group="network",
        check=python_file,
        identity=False,
        metavar="FILE.py",
    )
    config: str = flag(
        "",
        help="YAML file with defaults for the flags of this script; the command line wins",
        group="output",
        identity=False,
        metavar="FILE.yaml",
    )
    plan: bool = flag(False, help="say what the command would do, and stop", group="output", identity=False)
    quiet: bool = flag(False, help="no progress bars and no messages but errors", group="output", identity=False)
    debug: bool = flag(False, help="show the traceback of an error", group="output", identity=False)

    columns: typing.ClassVar[Columns] = Columns()  # of the rows that the experiment writes
    summary: typing.ClassVar[Summary | None] = None  # what its table shows of them

    def __post_init__(self) -> None:
        _check_values(type(self), vars(self))

    @classmethod
    def stated(cls, values: dict) -> typing.Self:
        """The configuration that a command line with these values stands for.

        A notation for several settings, such as a paper's string for a network and its loss, becomes these settings: the
        record is that of what it stands for.
        """
        return cls(**cls.settings(values))

    @classmethod
    def settings(cls, values: dict) -> dict:
        """The values with notations replaced by the settings that they stand for; others are as they were."""
        return values

    @classmethod
    def remarks(cls, values: dict) -> list[str]:
        """What is said, a line each, of flags that are taken although they change nothing of this run."""
        return []

    @classmethod
    def value(cls, values: dict, name: str):
        """The value of a field, its default where it is not among the values."""
        if name in values:
            return values[name]
        return next(field.default for field in dataclasses.fields(cls) if field.name == name)

    def inputs(self) -> dict[str, list[Path]]:
        """The files and folders that the run reads, under the names they have in the record."""
        return {}

    def implied(self) -> dict[str, list[Path]]:
        """The files that it reads as well although the command does not name them; their names in the record."""
        return {}

    def check_inputs(self) -> None:
        """Raises `UserError` for what the run would read and is not there; asked before torch is loaded."""
        self.inputs()

    def outputs(self) -> list[Path]:
        """The files beside the record without which the run is not done: checkpoints."""
        return []

    def work(self) -> list[str]:
        """What `--plan` says besides files and settings: passes, networks, layers, memory, data."""
        return []

    def repeatable(self) -> bool:
        """Whether the command makes a record, so that a record can ask for it again."""
        return True

    def answer(self) -> str | None:
        """What the command prints instead of running, where a flag asks for that."""
        return None


@dataclass(frozen=True, kw_only=True)
class DeviceConfig(RunConfig):
    """The flags of every script that runs a network on data."""

    common: typing.ClassVar[str] = "dataset batch_size gpu seed plan"

    data_root: str = flag("data", "-data", help="folder of the data sets", group="data", identity=False)
    batch_size: int = flag(64, "-b", help="images per batch", group="machine", check=at_least(1))
    gpu: int | None = flag(
        None,
        "-gpu",
        help="index of the GPU, -1 for the CPU; default: 0 where there is a GPU, else -1",
        group="machine",
        identity=False,
    )
    workers: int = flag(
        1,
        "-workers",
        help="processes that decode images which do not fit into memory",
        group="machine",
        check=at_least(0),
        identity=False,
    )
    prefetch: int = flag(
        2,
        "-prefetch",
        help="batches that each process of -workers decodes ahead",
        group="machine",
        check=at_least(1),
        identity=False,
    )
    decoder: str = flag(
        "pil",
        choices=DECODERS,
        group="machine",
        help="decoder of JPEGs that do not fit into memory: pil, or torchvision, faster and a level off in few pixels",
    )
    precision: str = flag(
        "auto",
        help="arithmetic of the networks; auto is bf16 for training on a GPU, else fp32",
        group="machine",
        choices=("auto", "fp32", "bf16"),
    )
    deterministic: bool = flag(
        False, help="deterministic kernels on a GPU, at some cost; on the CPU all are", group="machine"
    )
    max_examples: int | None = flag(
        None, help="use only this many images of each data set, evenly spread over it", group="data", check=at_least(1)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if distributed.world() > 1 and self.gpu is not None and self.gpu >= 0:
            raise UsageError(f"-gpu {self.gpu}: under torchrun each process takes the GPU of its own number; without -gpu")


@dataclass(frozen=True, kw_only=True)
class SeedConfig(RunConfig):
    """The flag of every script whose run has one seed."""

    seed: int = flag(0, "-s", help="seed of every random draw", label="s{}")


def parse(config_class: type[RunConfig], argv: list[str], *, prog: str = "", description: str = "") -> RunConfig:
    """The configuration that a command line describes. Raises `UsageError`; `--help` prints and exits."""
    reader = _parser(config_class, prog, description)
    words = [_hyphened(word, reader._option_string_actions) for word in argv]
    given, unknown = reader.parse_known_args(words)
    if unknown:
        _refuse(config_class, reader, unknown[0])
    stated, remarks = vars(given).pop(_PUBLISHED, {}), vars(given).pop(_REMARKS, [])
    values = _from_yaml(config_class, given.config) if getattr(given, "config", "") else {}
    values.update(vars(given))
    said = dict(vars(given))
    for (spelling, name), value in sorted(stated.items(), key=lambda item: [*published_flags.MEANING].index(item[0][0])):
        values[name] = said[name] = _joined(config_class, said, name, spelling, value)
    for field in dataclasses.fields(config_class):
        if field.default is MISSING and values.get(field.name) in (None, ()):
            more = field.metadata["missing"] if argv else None  # `brief` says it of a command line without a word
            raise UsageError(f"{_spelling(field)} is required: {field.metadata['help']}" + (f"; {more()}" if more else ""))
        if isinstance(values.get(field.name), list):
            values[field.name] = tuple(map(_at_home, _flatten(values[field.name], field.metadata["commas"])))
        elif isinstance(values.get(field.name), str):
            values[field.name] = _at_home(values[field.name])
    config = config_class.stated(values)
    if not config.quiet and distributed.rank() == 0:
        for remark in dict.fromkeys([*remarks, *config_class.remarks(values)]):
            print(remark, file=sys.stderr)
    return config


def swallowed(config: "RunConfig", suffixes: tuple[str, ...]) -> str:
    """What to say where a positional is missing: which flag with several values took a file that was meant for it."""
    for field in dataclasses.fields(config):
        values = getattr(config, field.name)
        for word in values if isinstance(values, tuple) and not field.metadata["positional"] else ():
            if str(word).endswith(suffixes) and Path(word).is_file():
                return f"; {_spelling(field)} took {word}, which stands before the flags"
    return ""


def brief(config_class: type[RunConfig], prog: str, description: str) -> str:
    """What a script says first that needs arguments and was started without: its usage, an example, the values there are."""
    values = [field.metadata["missing"]() for field in dataclasses.fields(config_class) if field.metadata["missing"]]
    return help_text.brief(prog, description or inspect.getdoc(config_class) or "", flags(config_class), values)


def parser(config_class: type[RunConfig], prog: str) -> argparse.ArgumentParser:
    """What reads the command line of a script, as far as flags and their values go."""
    return _parser(config_class, prog, "")


def _hyphened(word: str, options: typing.Container[str]) -> str:
    """A long flag with hyphens for underscores where only that is one of the script's, as in --weight_decay=0."""
    name, equals, value = word.partition("=")
    hyphened = "--" + name.removeprefix("--").replace("_", "-")
    return hyphened + equals + value if name.startswith("--") and name not in options and hyphened in options else word


def _refuse(config_class: type[RunConfig], parser: argparse.ArgumentParser, word: str) -> typing.NoReturn:
    """Raises `UsageError` for the first word that the parser does not take."""
    if not word.startswith("-"):
        raise UsageError(f"{word}: more arguments than the script takes")
    name = word.split("=")[0]
    instead = published_flags.refusal(
        "-" * name.startswith("--") + "-" + name.lstrip("-").replace("_", "-"), _names(config_class)
    )
    shown = [option for action in parser._actions if action.help != argparse.SUPPRESS for option in action.option_strings]
    raise UsageError(f"{name}: {instead}" if instead else f"{name}: no such flag; {near(name, shown)}")


def _joined(config_class: type[RunConfig], given: Mapping, name: str, spelling: str, value):
    """The value of a field that a paper's flag states, too; of a field with several values it comes last."""
    if kinds(config_class)[name][1]:
        return [*given.get(name, ()), *(value if isinstance(value, list) else [value])]
    if given.get(name, value) != value:
        raise UsageError(f"{spelling} {value}: {given[name]} is given already, as {_spelling(_field(config_class, name))}")
    return value


class Settings(typing.Protocol):
    """Any configuration: an instance of a dataclass of flags."""

    __dataclass_fields__: typing.ClassVar[dict[str, dataclasses.Field[typing.Any]]]


def identity(config: Settings) -> dict:
    """What makes the run the run it is: the values of all fields but those about where and how it is run."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.metadata.get("identity", True)
    }


def flags(config_class: type[RunConfig]) -> list[Flag]:
    """Every flag as `--help` and the documentation show it, those of the script itself before those that others have too."""
    depths = {name: depth for depth, kind in reversed([*enumerate(config_class.__mro__)]) for name in _annotated(kind)}
    fields = sorted(
        dataclasses.fields(config_class), key=lambda field: (not field.metadata["positional"], depths[field.name])
    )
    common = config_class.common.split()
    return [_flag(field, field.name in common, *kinds(config_class)[field.name]) for field in fields]


def _annotated(kind: type) -> list[str]:
    """The fields that a class declares itself, in their order."""
    return list(vars(kind).get("__annotations__", ()))


def _flag(field: dataclasses.Field, common: bool, kind: type, several: bool) -> Flag:
    """A field as help shows it; a value is N where it is a whole number, X where it is a number."""
    about, required = field.metadata, field.default is MISSING
    if about["positional"]:
        names, value = (spellings(field)[0] + " ..." * several,), ""
    elif kind is bool:
        negated = field.default is not False
        names, value = tuple(f"--[no-]{name[2:]}" if negated else name for name in spellings(field)), ""
    else:
        names = tuple(_distinct(spellings(field)))
        value = about["metavar"] or {int: "N", float: "X"}.get(kind, field.name.upper().rpartition("_")[2])
    if value and about["bare"] is not None:
        value = f"[{value}]"
    return Flag(
        spellings=names,
        value=value + " ..." * bool(value and several),
        default="required" if required else _default(field.default),
        meaning=_meaning(field),
        group=about["group"],
        common=common or required or about["needed"] or about["positional"],
        needed=required or about["needed"],
    )


def _distinct(names: list[str]) -> list[str]:
    """The spellings, without a long one that only adds a hyphen to a short one."""
    return [name for name in names if not (name.startswith("--") and name[1:] in names)]


def _meaning(field: dataclasses.Field) -> str:
    """The help, and behind it the choices that it does not name."""
    text, choices = field.metadata["help"], field.metadata["choices"]
    if choices is None or all(re.search(rf"(?<!\w){re.escape(str(word))}(?!\w)", text) for word in choices):
        return text
    return f"{text}; one of {', '.join(map(str, choices))}"


def _parser(config_class: type[RunConfig], prog: str, description: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog or None, allow_abbrev=False, argument_default=argparse.SUPPRESS, add_help=False)
    about = description or inspect.getdoc(config_class) or ""
    for words in (("-h", "--help"), ("--help-all",)):
        parser.add_argument(*words, action=_Help, const=(config_class, about), nargs=0, dest=argparse.SUPPRESS)
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        kind, several = _kind(hints[field.name])
        options = spellings(field)
        if kind is bool:
            parser.add_argument(*options, dest=field.name, action=argparse.BooleanOptionalAction)
            continue
        if field.metadata["positional"]:
            required = field.default is MISSING
            nargs = ("+" if required else "*") if several else (None if required else "?")
            # required positionals are checked in `parse`, after the YAML file had its say
            parser.add_argument(
                field.name,
                nargs={"+": "*", None: "?"}.get(nargs, nargs),
                type=_converter(kind),
                metavar=field.name.upper(),
            )
        else:
            extra: dict[str, typing.Any] = {}
            if several:  # of a flag that comes again, names add to those before, and numbers are instead of them
                extra = {"nargs": "+", "action": "extend" if kind is str else "store"}
            if field.metadata["bare"] is not None:
                extra = {"nargs": "?", "const": field.metadata["bare"]}
            parser.add_argument(*options, dest=field.name, type=_converter(kind), metavar=field.name.upper(), **extra)
    _add_published(parser, config_class)
    return parser


def _add_published(parser: argparse.ArgumentParser, config_class: type[RunConfig]) -> None:
    """The papers' spellings, of which --help says nothing: they are for command lines that are brought along."""
    taken, names = parser._option_string_actions, _names(config_class)
    for spelling in published_flags.MEANING:
        name = published_flags.meant(spelling, names)
        if name is not None and spelling not in taken:
            kind, several = kinds(config_class)[name]
            # a flag that several values may follow would swallow positionals, where its field is one
            nargs = "+" if several and not _field(config_class, name).metadata["positional"] else None
            parser.add_argument(
                spelling,
                action=_Published,
                const=name,
                dest=_PUBLISHED,
                type=_converter(kind),
                nargs=nargs,
                help=argparse.SUPPRESS,
            )
    for spelling, known in published_flags.without_effect(names).items():
        if spelling not in taken:
            parser.add_argument(
                spelling,
                action=_WithoutEffect,
                const=known.because,
                dest=_REMARKS,
                nargs=known.values,
                help=argparse.SUPPRESS,
            )


_PUBLISHED, _REMARKS = "papers' flags", "remarks"  # of the parsed words, beside the fields


class _Help(argparse.Action):
    """Prints the help and exits."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        config_class, about = typing.cast(tuple, self.const)
        print(help_text.text(parser.prog, about, flags(config_class), everything=option_string == "--help-all"))
        parser.exit()


class _Published(argparse.Action):
    """Keeps the value of a paper's flag under its spelling and field."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        stated = getattr(namespace, self.dest, {})
        setattr(namespace, self.dest, stated | {(str(option_string), str(self.const)): values})


class _WithoutEffect(argparse.Action):
    """Keeps the sentence that says why a paper's flag changes nothing."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        remarks = getattr(namespace, self.dest, [])
        setattr(namespace, self.dest, [*remarks, f"{option_string} has no effect: {self.const}"])


def _names(config_class: type[RunConfig]) -> set[str]:
    return {field.name for field in dataclasses.fields(config_class)}


def _field(config_class: type[RunConfig], name: str) -> dataclasses.Field:
    return next(field for field in dataclasses.fields(config_class) if field.name == name)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise UsageError(message.removeprefix("argument ").replace("\n", " "))


@functools.cache
def kinds(config_class: type[RunConfig]) -> dict[str, tuple[type, bool]]:
    """By field, the type of one value, and whether there are several."""
    hints = typing.get_type_hints(config_class)
    return {field.name: _kind(hints[field.name]) for field in dataclasses.fields(config_class)}


def _kind(hint) -> tuple[type, bool]:
    """The type of one value, and whether there are several, of `int`, `int | None`, `tuple[int, ...]`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(argument for argument in typing.get_args(hint) if argument is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def _converter(kind: type) -> Callable[[str], object]:
    def convert(text: str):
        try:
            value = kind(text)
        except ValueError:
            words = {int: "a whole number", float: "a number"}.get(kind, kind.__name__)
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}") from None
        if kind is float and value != value:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number")
        if kind is int and not -(2**63) <= value < 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is more than 64 bits hold")
        return value

    return convert


def spellings(field: dataclasses.Field) -> list[str]:
    """How a field is written on the command line: its flags, or the name of its position."""
    if field.metadata["positional"]:
        return [field.name.upper()]
    names = list(field.metadata["names"])
    if any(name.startswith("--") for name in names):
        return names
    return [*names, "--" + field.name.replace("_", "-")]


def _spelling(field: dataclasses.Field) -> str:
    return spellings(field)[0]


def _default(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _at_home(value):
    """A path that begins with ~, also behind `csv=` and the like, as shells give it where it is a word of its own."""
    return HOME.sub(lambda match: f"{match[1] or ''}{Path.home()}", value) if isinstance(value, str) else value


def _flatten(values: list, commas: bool) -> tuple:
    if not commas:
        return tuple(values)
    return tuple(word for value in values for word in str(value).split(",") if word)


def _check_values(config_class: type[RunConfig], values: Mapping) -> None:
    for field in dataclasses.fields(config_class):
        value = values.get(field.name, field.default)
        if value is None or value == field.default:
            continue
        for item in value if isinstance(value, tuple) else (value,):
            _check_value(field, item)


def _check_value(field: dataclasses.Field, value) -> None:
    choices, check = field.metadata.get("choices"), field.metadata.get("check")
    if choices is not None and value not in choices:
        raise UsageError(f"{_spelling(field)} {value}: no such choice; {near(str(value), choices)}")
    if check is not None:
        try:
            check(value)
        except UserError as error:
            raise type(error)(f"{_spelling(field)} {value}: {str(error).removeprefix(f'{value}: ')}") from None


def _from_yaml(config_class: type[RunConfig], path: str) -> dict:
    """The defaults that a YAML file sets, with the types of the fields. Raises `UsageError`."""
    loaded = yaml_files.read(path)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    spelled = {option.lstrip("-").replace("-", "_"): name for name, field in fields.items() for option in spellings(field)}
    hints = typing.get_type_hints(config_class)
    values = {}
    for key, value in loaded.items():
        name = key if key in fields else spelled.get(str(key).lstrip("-").replace("-", "_"))
        if name is None:
            raise UsageError(f"--config {path}: {key} is no flag of this script; {near(str(key), fields)}")
        if name == "trust":
            raise UsageError(f"--config {path}: {key} says which files may be run; only the command line can")
        kind, several = _kind(hints[name])
        values[name] = (
            None if value is fields[name].default is None else _typed(value, kind, several, f"--config {path}: {key}")
        )
    return values


def _typed(value, kind: type, several: bool, where: str):
    if several:
        items = value if isinstance(value, list) else [value]
        return [_typed(item, kind, False, where) for item in items]
    if value is None:
        raise UsageError(f"{where} has no value")
    if kind is bool:
        if not isinstance(value, bool):
            raise UsageError(f"{where}: {value!r} is neither true nor false")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float | datetime.date):
        raise UsageError(f"{where}: {_shown(value)} is not one value")
    try:
        return _converter(kind)(str(value))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{where}: {error}") from None


def _shown(value) -> str:
    """The value, unless it is a collection, which may hold itself or be immense."""
    return repr(value) if isinstance(value, bool) else f"a {type(value).__name__}"
