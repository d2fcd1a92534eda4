"""Probes on every layer of a frozen network: `exec_probe.py`.

Uselis & Oh, "Intermediate Layer Classifiers for OOD Generalization", ICLR 2025, and the rank-limited linear probes of Balogh
& Jelasity, AAAI 2025. The paper chose epochs and layers on test images in places, let layers and baseline search for
unequal lengths, and had one seed; here the roles of images are disjoint, rules stand side by side and differences have
intervals, while `--roles paper` divides the images as its notebooks do.
"""

import itertools
from dataclasses import replace

import torch
from torch import Tensor

from lib import datasets
from lib.core.errors import UserError
from lib.datasets import names
from lib.datasets.batching import Batching
from lib.datasets.sets import imagenet16
from lib.datasets.split import Split
from lib.datasets.subsets import in_classes, validation_split
from lib.experiments.config.probe import ProbeConfig
from lib.models import checkpoints
from lib.models.checkpoints import Checkpoint, Description
from lib.probing import export, network_rows, shift_rows
from lib.probing import rows as probe_rows
from lib.probing.clock import Clock
from lib.probing.distinct_layers import distinct
from lib.probing.feature_provider import plan
from lib.probing.fit import STEPWISE, ProbeRecipe
from lib.probing.options import ProbeOptions, ProbeProtocol
from lib.probing.roles import origin
from lib.probing.scores import score
from lib.probing.shifts import Shift
from lib.probing.stacked_probes import Setting
from lib.probing.study import ProbeData, prepare
from lib.probing.study_choices import choose, chosen_probe
from lib.probing.study_fit import fit
from lib.representations.features import Storage
from lib.runs import loading
from lib.runs.records import Result

LEAST_BATCH = 128  # images that a pass gives to the network at once, at least
# sets that ask for some of ImageNet's classes, or for groups of them -> its images with these classes
LEARNT_FROM = {
    "imagenet-a": "imagenet200a",
    "imagenet-r": "imagenet200",
    "cue-conflict": "imagenet16",
    "silhouette": "imagenet16",
}

COLUMNS = (
    "probe",
    "layer",
    "reduce",
    "rank",
    "data",
    "variant",
    "group",
    "solver",
    "lr",
    "l1",
    "l2",
    "l2_norm",
    "seed",
    "selected_by",
    "n",
    "accuracy",
    "baseline",
    "gain",
    "gain_low",
    "gain_high",
    "gain_bound",
    "best_set",
    "over",
    "candidates",
    "choice",
)


def probe(config: ProbeConfig) -> Result:
    """A row per layer, candidate or rule, OOD set, group and seed; a row per rule and OOD set on what choosing gained."""
    device = loading.device(config)
    checkpoint = loading.load_checkpoint(config, config.model_path, config.model_type, device)
    data = _data(config, checkpoint)
    batching = loading.batching(config, device, data.channels, data.size)
    asked = options(config, replace(batching, batch_size=max(batching.batch_size, LEAST_BATCH)))
    networks = {"trained": checkpoint.network}
    if config.untrained:
        torch.manual_seed(config.seed[0])
        networks["untrained"] = checkpoints.build(checkpoint.description).to(device).eval()
    rows, clock = [], Clock()
    for name, network in networks.items():
        study = prepare(asked, name, network, data)
        study, provider = distinct(study, plan(study, clock), clock)
        fitted = fit(study, provider, clock)
        scores = score(study, provider, fitted, clock)
        rows += network_rows.rows(study, provider, scores)
        with clock.stage("choosing"):
            choices = choose(study, fitted, scores)
            rows += probe_rows.rows(study, provider, fitted.bank, scores, choices)
        if config.export and name == "trained":
            site, linear = chosen_probe(study, fitted.bank, choices)
            export.export(config.outputs()[0], network, checkpoint.description, site.tap, linear, data.classes, data.size)
        if config.sensitivity:
            with clock.stage("sensitivity"):
                rows += shift_rows.rows(study, provider, fitted.bank, choices)
    return Result(
        rows,
        seconds=clock.seconds,
        facts={"classes": len(data.classes)},
        columns=() if config.verbose else _shown(config),
        always=lambda row: str(row["probe"]).endswith("gain"),
    )


def _shown(config: ProbeConfig) -> tuple[str, ...]:
    """The columns that are printed."""
    at = COLUMNS.index("best_set")
    return (*COLUMNS[:at], *(("null_mean", "p_null", "p_best") if config.null else ()), *COLUMNS[at:])


def options(config: ProbeConfig, batching: Batching) -> ProbeOptions:
    """What the command line asks for."""
    rates = config.learning_rate if config.solver in STEPWISE else (None,)
    return ProbeOptions(
        protocol=ProbeProtocol(
            name=config.how,
            roles=config.roles,
            seeds=config.seed,
            shots=config.shots,
            fractions=config.fraction,
            shared=config.tuning == "shared",
            class_balance=config.class_balance,
            views=config.augment,
        ),
        settings=[Setting(*one) for one in itertools.product(rates, config.l1, config.l2, config.l2_norm)],
        recipe=ProbeRecipe(
            solver=config.solver,
            epochs=config.epochs,
            batch_size=config.batch_size,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            milestones=config.milestones,
            keep=config.keep_epochs,
            standardise=config.standardise,
            gib=config.cache_gib,
            device=batching.device,
        ),
        batching=batching,
        storage=Storage(cache_dir=config.cache_dir, dtype=config.cache_type, gib=config.cache_gib / 2),
        layers=config.layers,
        reduce=config.reduce,
        ranks=config.ranks,
        per_batch=config.rank_basis == "per-batch",
        warm_start=config.warm_start,
        baselines=config.baselines,
        rules=config.select,
        metric=config.metric,
        exported=bool(config.export),
        draws=config.null,
        cache_limit=config.cache_limit,
    )


def _data(config: ProbeConfig, checkpoint: Checkpoint) -> ProbeData:
    description = checkpoint.description
    name = loading.dataset_name(config.dataset, checkpoint)
    base = names.undivided(name)
    train = loading.load_split(config, base, "train", image_size=description.image_size)
    if bool((train.labels < 0).any()):
        raise UserError(f"-d {name}: some of its training images have no labels")
    if len(train.classes) == len(description.classes):  # so that the head answers in the same classes
        train = in_classes(train, loading.known_classes(description))
        loading.check_classes(description, train.classes, name)
    size = description.image_size or max(train.height, train.width)
    shifts = []
    for word in [name] if config.how == "id" else [one for several in config.ood for one in names.expand(several)]:
        test = in_classes(loading.load_split(config, word, image_size=size), train.classes)
        if test.classes != train.classes:
            raise UserError(
                f"-ood {word}: its {len(test.classes)} classes ({', '.join(test.classes[:3])}, ...) are not the "
                f"{len(train.classes)} of {base} ({', '.join(train.classes[:3])}, ...){_hint(word)}"
            )
        val = None
        divided = datasets.splits(word, config.data_root)
        if config.how != "id" and "val" in divided and "test" in divided and test.split == "test":
            val = in_classes(loading.load_split(config, word, "val", image_size=size), train.classes)
        shifts.append(Shift(word, test, origin(word, test), val, origin(word, val) if val else ""))
    outputs = tuple(map(str, description.classes))
    members = imagenet16.members(train.classes, outputs) if len(outputs) != len(train.classes) else ()
    return ProbeData(
        base,
        train,
        origin(base, train),
        shifts,
        train.classes,
        description.channels,
        size,
        members,
        _unseen(config, description, base, train),
    )


def _unseen(config: ProbeConfig, description: Description, base: str, train: Split) -> Tensor | None:
    """The positions of training images that the network has not learnt from, by its sidecar; None where nobody knows."""
    trained = description.config
    theirs = names.undivided(description.dataset) if description.dataset else ""
    if not trained or ("=" in theirs and theirs != base):  # what lay at a path may lie elsewhere now
        return None
    if theirs == base and trained.get("max_examples") == config.max_examples:
        split = train
    else:
        split = loading.load_split(replace(config, max_examples=trained.get("max_examples")), theirs, "train")
        if origin(theirs, split) != origin(base, train):
            return None
    if trained.get("split"):
        seed = trained["seed"] if trained.get("split_seed") is None else trained["split_seed"]
        split, _ = validation_split(split, trained["split"], seed, bool(trained.get("stratified")))
    unseen = (~torch.isin(train.indices, split.indices)).nonzero().squeeze(1)
    before = trained.get("resume_from") or trained.get("pretrained") and base.startswith("imagenet")
    return None if len(unseen) and before else unseen  # what it started from may have learnt from them


def _hint(word: str) -> str:
    """Which of ImageNet's images have the classes of an OOD set made for it."""
    inside = LEARNT_FROM.get(names.parse(word).base)
    return f"; -d {inside} has them" if inside else ""
