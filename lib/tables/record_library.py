"""Records as a library: which networks, data, settings and code the numbers of a record belong to, apart from seeds.

Runs that differ in nothing but their seeds are runs of one thing, in whatever folders their checkpoints lie: a network is
known by the record of its training, found by its folder, and trainings of the same settings and seed are one training
repeated. Where a folder was trained in again, records are of the training whose checkpoint they read, by its hash, else of
the latest before them. Without a training a network is known by its path and its hash.
"""

import dataclasses
import functools
import itertools
import json
import os
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.core.errors import UserError
from lib.datasets import names
from lib.runs import records
from lib.runs.columns import Columns
from lib.runs.command_lines import Experiments
from lib.runs.input_files import SUFFIXES

Fields = dict[str, dataclasses.Field]
Instance = tuple[tuple[str, ...], tuple[int, ...]]  # what tells the runs of one thing apart: networks and seeds

COMPARED = ("main", "against")  # roles of networks whose rows are the same whatever they stand beside
STITCH = ("type", "init", "epochs", "samples", "solver")  # columns of how a stitch was made whose record is not there
# columns that say which images a row is of, where it was computed from records
DERIVED = Columns(images=("data", "split", "model_type", "probes"), sets=("data",))


@dataclass(frozen=True)
class Network:
    """A checkpoint: its file, its seed, the settings of its training, and those of them that are not at default.

    Without a record of the training, `training` is empty and path and hash are the identity.
    """

    path: str
    seed: int | None
    training: Mapping
    identity: Mapping

    @property
    def instance(self) -> str:
        """What tells it from networks that were trained alike: its seed and its backbone's; without a training the path."""
        seeds = [self.seed, self.training.get("backbone", {}).get("seed")]
        return self.path if self.seed is None else " on ".join(str(seed) for seed in seeds if seed is not None)

    def __str__(self) -> str:
        if not self.training:
            return self.path
        told = [f"{name.replace('_', ' ')} {value}" for name, value in self.identity.items() if name in TOLD]
        loss = [self.training["loss"]] if self.training["loss"] != "ce" else []
        file = [self.identity["file"]] if "file" in self.identity else []
        return ", ".join(
            [
                f"{self.training['model_type']} {self.training['dataset']}",
                *loss,
                *told,
                f"{self.training['epochs']} epochs",
                *file,
            ]
        )


@dataclass(frozen=True)
class Origin:
    """What a line of a table is of, as readers look for it: experiments, networks and data sets by name, and its records."""

    experiments: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    records: tuple[Path, ...] = ()


def joined(origins: Iterable[Origin]) -> Origin:
    """The origin of what is of all of these."""
    several = list(origins)
    return Origin(
        *(
            tuple(dict.fromkeys(itertools.chain.from_iterable(getattr(one, item.name) for one in several)))
            for item in dataclasses.fields(Origin)
        )
    )


TOLD = ("eps", "noise", "pixel_shuffle", "outliers", "subsample_classes", "class_sample_seed", "ema")


class Library:
    """All records of a results folder, their trainings by folder; `experiments` are those that there are."""

    def __init__(self, found: Iterable[tuple[Path, dict]], experiments: Experiments) -> None:
        found, self.experiments = list(found), experiments
        self._trainings: dict[str, list[dict]] = {}  # folder -> its trainings, the latest last
        self._read: dict[str, list[tuple[str, str]]] = {}  # file -> when records read it, and its hash then
        by_time = sorted((record for _, record in found), key=lambda record: record["started"])
        for record in by_time:
            if record["experiment"] == "train":
                self._trainings.setdefault(_folder(record["config"]), []).append(record)
        for record in by_time:
            for name, known in record["inputs"].items():
                place, folder = self.locate(name, _root(record["config"]))
                if folder and "sha256" in known:
                    self._read.setdefault(place, []).append((record["started"], known["sha256"]))
        self.runs = [RecordedRun(path, record, self) for path, record in found]
        self.stitches = {run.path.name: run for run in self.of("stitch")}

    def fields(self, experiment: str) -> Fields:
        """The fields of an experiment's configuration; none of what was computed from records."""
        return self.experiments[experiment].fields if experiment in self.experiments else {}

    def is_earlier(self, record: Mapping) -> bool:
        """Whether a record is of an earlier version of its experiment's method."""
        experiment = self.experiments.get(record["experiment"])
        return experiment is not None and records.revision(record) < experiment.revision

    def columns(self, experiment: str) -> Columns:
        """What is known of the columns of its rows."""
        return self.experiments[experiment].columns if experiment in self.experiments else DERIVED

    def of(self, experiment: str) -> "list[RecordedRun]":
        """The runs of an experiment, those of earlier versions of its method among them."""
        return [run for run in self.runs if run.experiment == experiment]

    def present(self, experiment: str) -> "list[RecordedRun]":
        """The runs of an experiment by the present version of its method, for what joins the numbers of several."""
        return [run for run in self.of(experiment) if not run.earlier]

    def derive(self, name: str, sources: Iterable[Path], rows: list[dict]) -> None:
        """Adds what was computed from the records `sources`, as if it were the record of a run called `name`."""
        self.runs.append(
            RecordedRun(
                Path(name),
                {
                    "experiment": name,
                    "config": {},
                    "inputs": {},
                    "environment": {},
                    "started": "",
                    "command": [],
                    "seconds": {},
                    "rows": rows,
                },
                self,
                tuple(sources),
            )
        )

    def trained(self, flags: Mapping, seed: int) -> str:
        """The folder under models/ of the training with these flags, all others at default; "" if no record tells of it."""
        fields = self.fields("train")
        changed = {name: value for name, value in flags.items() if value != _plain(fields[name].default)}
        return next(
            (
                folder.removeprefix("models/")
                for folder, (*_, record) in self._trainings.items()
                if record["config"].get("seed") == seed
                and not self.is_earlier(record)
                and settings_of(fields, record["config"], ("seed", "directory"))[1] == changed
            ),
            "",
        )

    def _training(self, record: dict) -> tuple[dict, dict]:
        """Settings and identity of a training; stored features are those of any backbone that differs in its seed only."""
        fields = self.fields("train")
        training, changed = settings_of(fields, record["config"], ("seed", "directory", *selections(fields)))
        changed |= _version(record, self.is_earlier(record))
        parsed = _parsed(str(training["dataset"]))
        if parsed and parsed.features:
            images = {"dataset": parsed.images.name, "features": parsed.features[1]}
            backbone = self.network(parsed.features[0], record["started"])
            return (
                training | images | {"backbone": backbone.training},
                changed | images | {f"backbone {name}": value for name, value in backbone.identity.items()},
            )
        contents = {name: str(known.get("sha256"))[:8] for name, known in record["inputs"].items()}
        read = {name: content for name, content in contents.items() if name.endswith(".py") or _parsed(name)}
        return training, changed | {f"content of {Path(name).name}": content for name, content in read.items()}

    @functools.cache  # noqa: B019 - a library lives as long as the command
    def network(self, path: str, read: str = "", content: str = "", root: str = "models") -> Network:
        """The network of a checkpoint, or of a folder of checkpoints.

        read, content    when a record read it, and its hash then; without them it is that of the latest training
        root             the folder that paths may leave out
        """
        place, folder = self.locate(path, root)
        content = content if place != folder else ""
        trainings = self._trainings.get(folder, [])
        begun = [record for record in reversed(trainings) if not read or record["started"] <= read]
        candidates = [*begun, *trainings] if content else begun
        record = next((one for one in candidates if not content or self._left(place, folder, one) == content), None)
        if record is None:
            return Network(place, None, {}, {"path": place, **({"content": content[:8]} if content else {})})
        training, changed = self._training(record)
        file = Path(place).name if folder != place else ""
        other = {} if file == f"model_{training['epochs']}.pt" else {"file": file}
        return Network(place, training.get("seed"), training, {**changed, **other})

    def locate(self, path: str, root: str) -> tuple[str, str]:
        """The path as the working directory has it, and the folder of its training; "" where there is no such record."""
        for place in (below_here(path), below_here(f"{root}/{path}")):
            for folder in (str(Path(place).parent), place):
                if folder in self._trainings:
                    return place, folder
        return below_here(path), ""

    def _left(self, place: str, folder: str, training: dict) -> str:
        """The hash of the checkpoint that a training left; where its record tells of none, that which was read first, before
        the next training began.
        """
        left = {below_here(name): known["sha256"] for name, known in training.get("outputs", {}).items()}
        if place in left:
            return left[place]
        later = [other["started"] for other in self._trainings[folder] if other["started"] > training["started"]]
        return next(
            (
                content
                for read, content in self._read.get(place, ())
                if training["started"] <= read and not any(start <= read for start in later)
            ),
            "",
        )


class RecordedRun:
    """A record, and what is to be known of its rows; `sources` are the records that its numbers are from."""

    def __init__(self, path: Path, record: dict, library: Library, sources: tuple[Path, ...] = ()) -> None:
        self.path, self.record, self.library, self.sources = path, record, library, sources or (path,)
        self.experiment, self.rows = record["experiment"], record["rows"]
        self.code = str(record["environment"].get("commit") or "unknown")[:8]
        self.earlier = library.is_earlier(record)  # of an earlier version of the method, whose numbers are not joined
        fields = library.fields(self.experiment)
        roles = {name: field.metadata["network"] for name, field in fields.items() if field.metadata["network"]}
        types = [name for name, field in fields.items() if field.metadata["network_type"]]
        left_out = (*roles, *types, *selections(fields), "seed", "directory")
        self.config, self.setting = settings_of(fields, record["config"], left_out)
        self._known: dict[tuple, tuple[dict, dict]] = {}  # network of a row -> its networks, and what is known of them
        paths = {role: record["config"].get(name) for name, role in roles.items()}
        self._paths = {role: path for role, path in paths.items() if path and isinstance(path, str)}
        self.columns = library.columns(self.experiment)
        if self.experiment == "train":
            self._paths["net"] = f"{_folder(record['config'])}/model_{record['config'].get('epochs')}.pt"

    def networks(self, row: dict) -> dict[str, Network]:
        """The networks that a row is of, by role."""
        return self._of(row)[0]

    def subjects(self, row: dict, compared: Iterable[str] = ()) -> dict[str, Network]:
        """The networks that a row's numbers depend on; those it is compared with only where the roles are named."""
        return {role: network for role, network in self.networks(row).items() if role not in COMPARED or role in compared}

    def about(self, row: dict) -> dict:
        """What is known of a row beside its columns: `config.x`, `net.x` and the like for its networks, `same_network`."""
        return self._of(row)[1]

    def column(self, row: dict, name: str):
        """A column of a row, by the name that all experiments share; None where it has none."""
        return row.get(self.columns.shared.get(name, name))

    def facts(self, row: dict) -> dict:
        """Everything that a condition may ask of a row."""
        renamed = {name: self.column(row, name) for name in self.columns.shared}
        return {**self.about(row), **renamed, **row}

    def _of(self, row: dict) -> tuple[dict[str, Network], dict]:
        """Networks and what is known of them, made once for all rows of the same network."""
        own = row.get(self.columns.network) or None
        roles = {role: row[role] for role in self.columns.roles if isinstance(row.get(role), str)}
        key = own, *roles.values()
        if key not in self._known:
            paths = self._paths | ({"net": own} if own else {}) | roles
            if own and below_here(own) != below_here(self._paths.get("net", own)):
                paths["main"] = self._paths["net"]
            networks = {
                role: self.library.network(path, self.record["started"], self._content(path), _root(self.config))
                for role, path in paths.items()
            }
            found = {f"config.{name}": value for name, value in self.config.items()}
            for role, network in networks.items():
                found |= {f"{role}.{name}": value for name, value in network.training.items()}
                found |= {f"backbone.{name}": value for name, value in network.training.get("backbone", {}).items()}
            if {"front", "end"} <= networks.keys():
                found["same_network"] = networks["front"] == networks["end"]
            self._known[key] = networks, found
        return self._known[key]

    def _content(self, path: str) -> str:
        """The hash of a file that the run read; "" where it says nothing."""
        return self.record["inputs"].get(path, {}).get("sha256", "")

    def identity(self, row: dict, compared: Iterable[str] = ()) -> dict:
        """What rows must share, beside the condition of a cell, to be runs of one thing: settings, networks, data."""
        return self.settings(row, compared) | self.images([row])

    def settings(self, row: dict, compared: Iterable[str] = ()) -> dict:
        """Its part that rows of one run have in common, whichever corruption of a data set they are of."""
        networks = self.subjects(row, compared)
        found = {f"{self.experiment} {name}": value for name, value in self.setting.items()}
        found |= _version(self.record, self.earlier)
        for role, network in networks.items():
            found |= {f"{role} {name}": value for name, value in network.identity.items()}
        if {"front", "end"} <= networks.keys():
            found["same network"] = networks["front"].path == networks["end"].path
        if self.experiment == "stitch_ood":
            stitch = self.library.stitches.get(Path(row.get("record") or "").name)
            made = stitch.setting if stitch else {name: row[name] for name in STITCH if row.get(name) is not None}
            found |= {f"stitch {name}": value for name, value in made.items()}
        if others := self._weights_of_others(networks):
            found["weights from"] = others
        found |= {
            f"{self.experiment} {name}": self.config.get(name)
            for name, field in self.library.fields(self.experiment).items()
            if _changes(field, row)
        }
        if len(seeds := self._own_seeds(row)) > 1:
            found["seeds in one number"] = len(seeds)
        return found | {name: row[name] for name in self.columns.images if row.get(name) not in (None, "")}

    def _weights_of_others(self, networks: dict[str, Network]) -> list[str]:
        """The files that layers were given weights of, or that distances are from, which are of another run."""
        own = {str(Path(network.path).parent) for network in networks.values()}
        return [place for place in self._given if str(Path(place).parent) not in own]

    @functools.cached_property
    def _given(self) -> list[str]:
        """The files whose weights layers were given, or that distances are from."""
        if self.experiment == "reinit":
            found = [name for name in self.record["inputs"] if Path(name).suffix in SUFFIXES]
        else:
            found = [self.config["init_from"]] if self.config.get("init_from") else []
        return sorted(self.library.locate(name, _root(self.config))[0] for name in found)

    def images(self, rows: list[dict], joined: bool = False) -> dict:
        """Its other part, of the rows that make one number: what the files hold, and over which corruptions it is joined."""
        sets = {row[column] for row in rows for column in self.columns.sets if row.get(column)}
        sets |= {part for name in sets for part in _listed(name)}
        found, variants = {}, sorted({variant for row in rows for variant in self._variants(row)})
        if variants and (joined or variants != [rows[0]["variant"]]):
            found["over"] = variants
        for name, known in self.record["inputs"].items():
            parsed = _parsed(name)
            if parsed and parsed.short_variant in ("", *variants) and parsed.name in sets:
                found[f"content of {parsed.name}/{parsed.short_variant}".rstrip("/")] = str(known.get("sha256"))[:8]
        return found

    def _variants(self, row: dict) -> list[str]:
        """The corruptions and levels that a row is of: its own, all levels of its corruption, or all of the run."""
        own = row.get("variant") or ""
        if own == "mean" or row.get("n_cells"):
            return self._levels
        return [one for one in self._levels if one == own or one.startswith(f"{own}-")] if own else []

    @functools.cached_property
    def _levels(self) -> list[str]:
        """All corruptions with their levels that there are rows of."""
        return [
            one
            for one in dict.fromkeys(row.get("variant") for row in self.rows)
            if isinstance(one, str) and re.fullmatch(r".+-\d+", one)
        ]

    def instance(self, row: dict, compared: Iterable[str] = ()) -> Instance:
        """What tells the runs of one thing apart: the networks, and the seeds of row or run."""
        return tuple(network.instance for network in self.subjects(row, compared).values()), self._own_seeds(row)

    def origin(self, row: dict) -> Origin:
        """What readers find the row by."""
        return Origin(
            (self.experiment,), tuple(dict.fromkeys(map(str, self.networks(row).values()))), self.sets(row), self.sources
        )

    @functools.cached_property
    def whole_origin(self) -> Origin:
        """What readers find the run by: all that its rows are of."""
        return joined(map(self.origin, self.rows or [{}]))

    @functools.cached_property
    def checkpoints(self) -> frozenset[str]:
        """The paths of all networks that its rows are of."""
        return frozenset(network.path for row in self.rows for network in self.networks(row).values())

    def sets(self, row: dict) -> tuple[str, ...]:
        """The data sets that a row is of, without split and variant: those its columns name, else the one that the run
        was given, else the one that its networks learnt.
        """
        named = [part for column in self.columns.sets if row.get(column) for part in _listed(row[column])]
        if not named and (given := self.config.get("dataset")):
            named = given if isinstance(given, list) else [given]
        if not named:
            named = [network.training["dataset"] for network in self.networks(row).values() if network.training]
        return tuple(dict.fromkeys(parsed.name if (parsed := _parsed(name)) else name for name in named))

    def seeds(self, row: dict) -> tuple[int, ...]:
        """The seeds by which `--seeds` chooses: that of the row's first network, else those of the row or run."""
        known = [network.seed for network in self.networks(row).values() if network.seed is not None]
        return tuple(known[:1]) or self._own_seeds(row)

    def _own_seeds(self, row: dict) -> tuple[int, ...]:
        """The seed of the row, else those of the run, over which it is then; none of what other records give."""
        found = row["seed"] if row.get("seed") is not None else self.config.get("seed")
        return tuple(found) if isinstance(found, list) else () if found is None else (found,)


def of_networks(values: Iterable[list[float]]) -> list[float]:
    """Of several networks the mean of each, of one all its values, which are of seeds of its evaluation: no networks."""
    values = list(values)
    return [mean(own) for own in values if own] if len(values) > 1 else [value for own in values for value in own]


def mean(values: list[float]) -> float:
    """The mean; the number itself where all are the same, without rounding."""
    return values[0] if len(set(values)) == 1 else statistics.fmean(values)


def latest(runs: Iterable[RecordedRun]) -> RecordedRun:
    """Of runs of the same instance the one that was started last."""
    return max(runs, key=lambda run: run.record["started"])


def key(identity: Mapping) -> str:
    """An identity as one word to group by."""
    return json.dumps(identity, sort_keys=True)


def differences(identities: list[dict]) -> list[str]:
    """For each identity, as words, what is not the same in all of them."""
    names_ = dict.fromkeys(name for one in identities for name in one)
    varying = [name for name in names_ if len({json.dumps(one.get(name)) for one in identities}) > 1]
    return ["; ".join(f"{name} {_words(one[name])}" for name in varying if name in one) for one in identities]


def _version(record: dict, earlier: bool) -> dict:
    """What tells a record of an earlier version of the method from those of the present one."""
    return {"earlier version": records.revision(record)} if earlier else {}


def selections(fields: Fields) -> list[str]:
    """The fields that only say of which images, layers or pairs there are rows."""
    return [name for name, field in fields.items() if field.metadata["selects"]]


def _changes(field: dataclasses.Field, row: dict) -> bool:
    """Whether a selecting field is one that changes rows such as this one."""
    selects = field.metadata["selects"]
    return isinstance(selects, tuple) and row.get(selects[0]) == selects[1]


def settings_of(fields: Fields, config: dict, left_out: Iterable[str]) -> tuple[dict, dict]:
    """A whole configuration, younger flags at default, and its changed values that make the run what it is."""
    whole = {name: _plain(field.default) for name, field in fields.items()} | config
    changed = {
        name: value
        for name, value in whole.items()
        if name not in left_out
        and (name not in fields or fields[name].metadata.get("identity", True) and value != _plain(fields[name].default))
    }
    return whole, changed


def _plain(value):
    """A default as a record has it."""
    return list(value) if isinstance(value, tuple) else value


def below_here(path: str) -> str:
    """A path as the working directory has it: relative if it lies there."""
    for here in (os.getcwd(), os.environ.get("PWD", "")):
        if here and Path(path).is_relative_to(here):
            return str(Path(path).relative_to(here))
    return str(Path(path))


def _folder(config: dict) -> str:
    """The folder of a training, whether its flag names the one above or not."""
    root, given = Path(_root(config)), Path(str(config.get("directory", "")))
    return below_here(str(given if given.is_relative_to(root) else root / given))


def _root(config: Mapping) -> str:
    return config.get("models_dir") or "models"


def _words(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _listed(names_: str) -> list[str]:
    """The data sets of a column that may name several."""
    return re.split(r", |\+", names_)


@functools.cache
def _parsed(name: str) -> names.DataName | None:
    """The parts of a data set's name; None for another kind of file."""
    try:
        return names.parse(name)
    except UserError:
        return None
