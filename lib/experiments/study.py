"""Every experiment on one network from one pass over each data set: `exec_study.py`.

The experiments are those of the single scripts, and write the records that those would write with the same flags: a script
that is run later finds its record there, and a study passes over what is there. They run together and share their passes
(`lib.representations.shared_passes`); what holds much in memory runs in a round of its own. No paper has this.
"""

import dataclasses
import functools
import shlex
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lib.core import figures
from lib.core.errors import Interrupted, UserError
from lib.datasets import names, openood
from lib.datasets.subsets import in_classes
from lib.experiments import EXPERIMENTS
from lib.experiments.config.study import ALONE, SHARING, StudyConfig
from lib.models import cutting
from lib.models.checkpoints import Checkpoint
from lib.representations import shared_passes
from lib.runs import cli, command_lines, loading, records, script
from lib.runs.cli import RunConfig
from lib.runs.plan import seconds_per_image
from lib.runs.records import Result
from lib.tables import formats, network_overview, record_library

GIB = 2**30
# fields that are not handed down as they are
OWN = {"model_path", "model_type", "dataset", "ood", "against", "config", "plan", "list_layers", "seed"}


@dataclass(frozen=True)
class Run:
    """A run of one experiment: its command line, its configuration, and the bytes of activations that it holds at a time."""

    experiment: str
    words: tuple[str, ...]
    config: RunConfig
    bytes: int = 0

    @property
    def place(self) -> records.Place:
        return records.place(self.config, self.experiment)

    @property
    def there(self) -> bool:
        return not self.config.overwrite and records.finished(self.place, self.config)

    @property
    def command(self) -> str:
        return shlex.join(["python", *self.words])


@dataclass
class Planned:
    """The runs of a study, and what does not run, with the reason."""

    checkpoint: Checkpoint
    runs: list[Run] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def of(self, experiments: Iterable[str]) -> list[Run]:
        return [run for run in self.runs if run.experiment in experiments]


def study(config: StudyConfig) -> str:
    """Runs what is not there yet; the tables of the network, and where its figure and the records are.

    Raises `UserError` at the end where a run has failed; the others are done then.
    """
    planned, begin = plan_runs(config), time.perf_counter()
    for sentence in planned.left_out:
        script.say(config, sentence)
    failed: dict[str, BaseException] = {}
    saved = shared_passes.Shared()
    for together in _rounds([run for run in planned.of(SHARING) if not run.there], config.cache_gib * GIB):
        outcomes, shared = shared_passes.run({name: _function(run) for name, run in _named(together).items()})
        failed |= {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}
        saved = saved.plus(shared)
    for name, run in _named([run for run in planned.of(ALONE) if not run.there]).items():
        try:
            _function(run)()
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - the others have nothing to do with it
            failed[name] = error
    if saved.forwards:
        script.say(
            config,
            f"{saved.images} images were decoded for {saved.asked_images}, and {saved.forwards} forward passes made for "
            f"{saved.asked_forwards}, in {time.perf_counter() - begin:.1f} s",
        )
    if failed:
        sentences = "; ".join(f"{name}: {_reason(error)}" for name, error in failed.items())
        raise UserError(f"{len(failed)} of {len(planned.runs)} runs failed, the others are done. {sentences}")
    return page(config, planned)


def page(config: StudyConfig, planned: Planned) -> str:
    """The tables of the network from all records that there are, the path of its figure, and those of the records."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = record_library.Library(records.records(config.results_dir, EXPERIMENTS, []), EXPERIMENTS)
    found = network_overview.tables(config.model_path, library)
    figure = Path(config.results_dir) / "tables" / f"{found.name}.{config.figure_format}"
    figures.write_all(lambda: {"": found.figure()}, lambda _: figure, config.figure_width)
    parts = [formats.write("text", table) for table in found.tables]
    return "\n\n".join([*parts, *(str(run.place.path) for run in planned.runs), f"figure: {figure}"])


def plan(config: StudyConfig) -> list[str]:
    """What `--plan` says: every command, the rounds, forward passes, memory, and seconds from a timed batch."""
    planned = plan_runs(config)
    missing = [run for run in planned.of(SHARING) if not run.there]
    lines = [f"run:        {run.command}  ({'is there already' if run.there else 'runs'})" for run in planned.runs]
    lines += [f"left out:   {sentence}" for sentence in planned.left_out]
    for number, together in enumerate(_rounds(missing, config.cache_gib * GIB), 1):
        held = sum(run.bytes for run in together) / GIB
        lines.append(f"round {number}:    {len(together)} runs share their passes; they hold {held:.2f} GiB of activations")
    if missing:
        images = sum(_images(config, planned.checkpoint))
        each = seconds_per_image(config, planned.checkpoint.network, planned.checkpoint.description, config.batch_size)
        lines.append(
            f"passes:     {images} images through the network in each round, about {images * each:.0f} s by a timed batch; "
            "what is made of them, and re-initialisation, is not in this"
        )
    return lines


def plan_runs(config: StudyConfig) -> Planned:
    """The runs of all experiments that apply to the network and the data sets."""
    checkpoint = loading.load_checkpoint(config, config.model_path, config.model_type)
    name = loading.dataset_name(config.dataset, checkpoint)
    outliers = openood.expand(config.ood, name, config.data_root)
    planned = Planned(checkpoint)
    against = _against(config)
    for experiment in config.experiments:
        if experiment in ("similarity", "stitch") and not against:
            planned.left_out.append(f"{experiment}: no --against, and no init.pt lies beside {config.model_path}")
        elif experiment in ("ood_layers", "ncg") and not outliers:
            planned.left_out.append(f"{experiment}: no -ood")
        else:
            planned.runs += _runs(config, experiment, checkpoint, name, outliers, against, planned.left_out)
    for run in planned.runs:
        if not run.there:
            _check_inputs(run)
    return planned


def _check_inputs(run: Run) -> None:
    """Raises `UserError` for what a run would read and is not there, before any of them has begun."""
    try:
        run.config.check_inputs()
    except UserError as error:
        raise UserError(f"{run.experiment}: {error}") from None


def _runs(
    config: StudyConfig,
    experiment: str,
    checkpoint: Checkpoint,
    name: str,
    outliers: list[str],
    against: str,
    left_out: list[str],
) -> list[Run]:
    alone = {"model_path": config.model_path, "model_type": config.model_type}
    data = {"dataset": config.dataset} if config.dataset else {}
    run = functools.partial(_run, config, experiment)
    if experiment == "eval":
        return [run({**alone, **({"dataset": (config.dataset,)} if data else {})})]
    if experiment == "ood_layers":
        return [run({**alone, **data, "ood": config.ood})]
    if experiment == "probe":
        shifts = [word for word in outliers if _has_classes(config, checkpoint, name, word)]
        others = [word for word in outliers if word not in shifts]
        if others and shifts:
            left_out.append(f"probe: of -ood it leaves out {', '.join(others)}, which have other classes than {name}")
        return [run({**alone, **data, "ood": tuple(shifts), "reduce": ("gap",)})]
    if experiment == "ncg":
        layers = _ncg_layers(config, checkpoint)
        size = len(loading.load_split(config, names.undivided(name), "train"))
        return [
            run({**alone, **data, **_of_layer(config, layer), "ood": tuple(outliers), "space": ("feature",)}, 4 * size * dim)
            for layer, dim in layers.items()
        ]
    if experiment == "similarity":
        held = 2 * 4 * 1000 * sum(dim for layer, dim in _listed(checkpoint).items() if layer.cut)
        two = {"model1_path": against, "model2_path": config.model_path, "model2_type": config.model_type or "auto"}
        return [run({**two, **data, "model1_type": config.model_type or "auto"}, held)]
    if experiment == "stitch":
        two = {"front_path": against, "end_path": config.model_path}
        types = {"front_type": config.model_type or "auto", "end_type": config.model_type or "auto"}
        matched = int(str(EXPERIMENTS["stitch"].fields["pinv_samples"].default))
        few = len(loading.load_split(config, names.undivided(name), "train")) < matched
        samples = {"pinv_samples": "all"} if few else {}
        return [run({**two, **types, "dataset": name, "init": "pinv", "epochs": 0, **samples})]
    if experiment == "projections":
        return [
            run({"model_path": (config.model_path, *([config.model_type] if config.model_type else [])), "normalize": True})
        ]
    return [run({**alone, **data, "rand": 3})]


def _of_layer(config: StudyConfig, layer: str) -> dict:
    """The layer of a run of nearest categories, and its record's name where the study's has one."""
    return {"layer": layer} | ({"name": f"{config.name}-{layer}"} if config.name and layer else {})


def _run(config: StudyConfig, experiment: str, values: dict, held: int = 0) -> Run:
    """A run with these values, the study's own flags and those of `--more`, as its command line would be read."""
    fields, own = EXPERIMENTS[experiment].fields, {item.name: item for item in dataclasses.fields(config)}
    shared = {
        name: getattr(config, name)
        for name in fields.keys() & own.keys() - OWN
        if getattr(config, name) != own[name].default
    }
    if config.seed and "seed" in fields:
        shared["seed"] = (config.seed,) if isinstance(fields["seed"].default, tuple) else config.seed
    given = {name: value for name, value in {**shared, **values}.items() if value not in ("", ())}
    words = shlex.split(command_lines.command(EXPERIMENTS, experiment, given))[2:]
    for text in config.more:
        of, _, further = text.partition(":")
        words += shlex.split(further) if of == experiment else []
    name = f"exec_{experiment}.py"
    return Run(experiment, (name, *words), cli.parse(EXPERIMENTS[experiment].configuration, words, prog=name), held)


def _function(run: Run) -> Callable[[], Path | None]:
    """Runs the experiment as its script does; the seconds of its record are its own, and its part of shared ones."""

    def measured(config) -> Result:
        result = EXPERIMENTS[run.experiment].function(config)
        if total := shared_passes.seconds():
            result.seconds = {"total": total}
        return result

    experiment = dataclasses.replace(EXPERIMENTS[run.experiment], function_=measured)
    return lambda: script.run({run.experiment: experiment}, run.experiment, run.config, list(run.words))


def _named(runs: list[Run]) -> dict[str, Run]:
    """The runs by the names of their experiments, numbered where there are several of one."""
    counts: dict[str, int] = {}
    found = {}
    for run in runs:
        counts[run.experiment] = counts.get(run.experiment, 0) + 1
        found[run.experiment + (f" {counts[run.experiment]}" if counts[run.experiment] > 1 else "")] = run
    return found


def _rounds(runs: list[Run], limit: float) -> list[list[Run]]:
    """The runs in as few rounds as hold no more than so many bytes each, in order; what is larger has one for itself."""
    rounds: list[list[Run]] = []
    for run in runs:
        if rounds and sum(other.bytes for other in rounds[-1]) + run.bytes <= limit:
            rounds[-1].append(run)
        else:
            rounds.append([run])
    return rounds


def _against(config: StudyConfig) -> str:
    """The checkpoint that is compared with; "" where none is named and no initial weights lie beside the network."""
    if config.against:
        return config.against
    beside = Path(config.model_path).with_name("init.pt")
    return str(beside) if beside.exists() and beside != Path(config.model_path) else ""


def _has_classes(config: StudyConfig, checkpoint: Checkpoint, name: str, other: str) -> bool:
    """Whether the images of another set have labels of the classes of `name`."""
    if names.parse(other).base == names.parse(name).base and names.parse(other).variant:
        return True
    size = checkpoint.description.image_size
    train = loading.load_split(config, names.undivided(name), "train", image_size=size)
    split = in_classes(loading.load_split(config, other, image_size=size), train.classes)
    return split.classes == train.classes and bool((split.labels >= 0).any())


def _listed(checkpoint: Checkpoint) -> dict[cutting.Layer, int]:
    """The layers with features, and the numbers that each puts out for an image."""
    listed = loading.layers(checkpoint, checkpoint.description.image_size or 32)
    return {layer: torch.Size(layer.shape).numel() for layer in listed if layer.cut or not layer.untapped}


def _ncg_layers(config: StudyConfig, checkpoint: Checkpoint) -> dict[str, int]:
    """The layers of `--ncg-layers` with their widths; "" is the one that `exec_ncg.py` takes by itself."""
    if not config.ncg_layers:
        return {"": 0}
    listed = _listed(checkpoint)
    dims, cuts = {layer.name: dim for layer, dim in listed.items()}, [layer.name for layer in listed if layer.cut]
    chosen = cutting.select(list(dims), config.ncg_layers, {"cuts": cuts, "all": list(dims)}, "--ncg-layers")
    return {layer: dims[layer] for layer in chosen}


def _images(config: StudyConfig, checkpoint: Checkpoint) -> list[int]:
    """How many images the training split, the test split and each set of -ood have."""
    name = loading.dataset_name(config.dataset, checkpoint)
    outliers = openood.expand(config.ood, name, config.data_root)
    train = loading.load_split(config, names.undivided(name), "train")
    return [len(train), *(len(loading.load_split(config, one)) for one in (name, *outliers))]


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
