"""The commands that fill the empty cells of a paper's table in stages, each of which reads what earlier ones leave:
trainings, trainings on others' checkpoints, what looks at the networks, what reads records of that.

A command follows from the cell: `net.x` are flags of the training, `config.x` those of the experiment, what rows must
satisfy and what the paper did alike. Where a record of that very training is there, its network is taken.
"""

import itertools
import re
from collections.abc import Iterable

from lib.runs import command_lines
from lib.runs.command_lines import Experiments
from lib.tables.compare import Comparison
from lib.tables.papers.spec import Cell
from lib.tables.record_library import Library

LOSS = ("loss", "eps", "beta")
AFTER = "# then, when these are done:"  # the line between two stages
TRAINED = ("backbone", "net", "main", "front", "end", "against")  # what stands earlier is used by later ones


def commands(paper: str, lines: list[Comparison], library: Library, seeds: tuple[int, ...] = ()) -> list[str]:
    """The commands, each once, for every seed (0 where none is asked for) that a cell with an experiment lacks."""
    trainings, others, cells = [], [], {}
    for line in lines:
        cells.setdefault(line.labels, []).append(line)
    for alike in cells.values():
        cell = alike[0].cell
        if cell.lacks or not cell.experiment or not (library.fields(cell.experiment) or cell.before):
            continue
        for seed in _lacking(alike, seeds):
            first, then = _of_cell(paper, cell, seed, library)
            trainings += first
            others += then
    return in_turn([*trainings, *others], library.experiments)


def _lacking(lines: list[Comparison], seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds that the lines of one cell lack together; what several records give and has no seed is there for each."""
    if not seeds:
        return () if any(line.values and not line.earlier for line in lines) else (0,)
    done = [line for line in lines if line.values and line.as_published]
    if any(not line.seeds for line in done):
        return ()
    return tuple(seed for seed in seeds if not any(seed in line.seeds for line in done))


def in_turn(found: Iterable[str], experiments: Experiments) -> list[str]:
    """Commands, each once, by stage."""
    return sorted(dict.fromkeys(found), key=lambda command: _stage(command, experiments))


def staged(found: Iterable[str], experiments: Experiments) -> list[str]:
    """The same with `AFTER` between the stages."""
    lines: list[str] = []
    for _, commands_ in itertools.groupby(in_turn(found, experiments), lambda command: _stage(command, experiments)):
        lines += [*([AFTER] if lines else []), *commands_]
    return lines


def _stage(command: str, experiments: Experiments) -> int:
    experiment = command.split()[1].removeprefix("exec_").removesuffix(".py")
    if experiment == "train":
        return int(".pt" in command)  # a backbone's checkpoint
    return 3 if experiments[experiment].configuration.reads_records else 2


def _of_cell(paper: str, cell: Cell, seed: int, library: Library) -> tuple[list[str], list[str]]:
    """The trainings that a cell needs, and the commands of the runs that it is made from."""
    wanted = _stated(cell)
    folders, trainings, files = {}, [], {}
    of_net = _of_role("net", wanted)
    for role in TRAINED:
        flags = _of_role(role, wanted)
        if role in ("main", "against") and flags:  # trained as the other one, but for the loss
            flags = {name: value for name, value in of_net.items() if name not in LOSS} | flags
        if role == "end" and wanted.get("same_network"):
            folders[role], files[role] = folders["front"], files["front"]
        elif flags:
            name = _name(library, paper, cell, role, flags, seed + (role == "end"))
            if layer := flags.pop("features", ""):  # the network knows its backbone from here on
                flags["dataset"] = f"features={files.pop('backbone')}:{layer}:{flags['dataset']}"
            known = library.trained(flags, seed + (role == "end"))
            folder = f"models/{known or name}"
            folders[role], files[role] = folder, f"{folder}/model_{flags.get('epochs', 100)}.pt"
            trainings += (
                []
                if known
                else [
                    command_lines.command(
                        library.experiments,
                        "train",
                        {**flags, "directory": folder.removeprefix("models/"), "seed": seed + (role == "end")},
                    )
                ]
            )
    words = {f"{role}.folder": folder for role, folder in folders.items()}
    words |= {f"{role}.file": file for role, file in files.items()}
    runs = [_command(library, experiment, run, files, words, seed) for experiment, run in cell.before]
    if library.fields(cell.experiment):
        runs.append(_command(library, cell.experiment, wanted, files, words, seed))
    return trainings, runs


def _command(
    library: Library, experiment: str, wanted: dict, files: dict[str, str], words: dict[str, str], seed: int
) -> str:
    """The command of an experiment on these networks."""
    fields = library.fields(experiment)
    values = {name.partition(".")[2]: value for name, value in wanted.items() if name.startswith("config.")}
    for name, field in fields.items():
        if field.metadata["network"] in files:
            values.setdefault(name, files[field.metadata["network"]])
    if "main" in files:  # rows of the network that is compared with: the run is the other's
        values |= {"model_path": files["main"], "against": files["net"]}
    if "seed" in fields:
        values["seed"] = [seed] if isinstance(fields["seed"].default, tuple) else seed
    return command_lines.command(
        library.experiments, experiment, {name: _filled(value, words) for name, value in values.items()}
    )


def _stated(cell: Cell) -> dict:
    """What the cell, the paper and the command say together; the first of several, and no patterns."""
    found = {}
    for part in (cell.where, cell.setup, cell.run):
        for name, value in part.items():
            value = value[0] if isinstance(value, tuple) and value else value
            if value is None and part is not cell.where:
                found.pop(name, None)
            elif not (value is None or isinstance(value, str) and re.search(r"[*?]", value) and part is cell.where):
                found[name] = value
    return found


def _of_role(role: str, facts: dict) -> dict:
    """What is said of the network of a role, such as `net.x`."""
    return {name.partition(".")[2]: value for name, value in facts.items() if name.startswith(role + ".")}


def _name(library: Library, paper: str, cell: Cell, role: str, flags: dict, seed: int) -> str:
    """The folder of a training under models/; heads on stored features are trained at several learning rates."""
    fields = library.fields("train")
    told = [
        _word(name, value)
        for name, value in _of_role(role, cell.where).items()
        if name in fields and name not in ("model_type", "dataset") and value != fields[name].default
    ]
    told += [f"lr{flags['learning_rate']:g}"] if flags.get("features") else []
    words = [flags["model_type"], flags["dataset"], *filter(None, told), f"s{seed}"]
    return f"{paper}/" + "-".join(str(word) for word in words)


def _word(name: str, value) -> str:
    if value is True:
        return name.replace("_", "-")
    return (
        value
        if isinstance(value, str) and name in ("loss", "form")
        else f"{name.replace('_', '-')}{value:g}"
        if isinstance(value, int | float)
        else f"{name.replace('_', '-')}-{value}"
    )


def _filled(value, words: dict[str, str]):
    """The value with `{net.folder}` and the like replaced."""
    if isinstance(value, list):
        return [_filled(one, words) for one in value]
    return re.sub(r"\{([\w.]+)\}", lambda match: words[match[1]], value) if isinstance(value, str) else value
