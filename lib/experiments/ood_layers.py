"""Layers as detectors of out-of-distribution images: `exec_ood_layers.py`.

Guglielmo & Masana, "Leveraging Intermediate Representations for Better Out-of-Distribution Detection", CVWW 2025. The
paper's figure turns every AUROC below 0.5 round; rows here carry the raw one, and the turned one as that of an oracle
that knows the sign. A row belongs to one (layer, OOD set, temperature, score) and says what data its score needs.
"""

import math
import time
import warnings

import numpy as np
import torch
from torch import nn

from lib.core import progress, saved_state
from lib.core.errors import UserError
from lib.datasets import openood, overlap
from lib.datasets.subsets import in_classes
from lib.experiments.config.ood_layers import OodLayersConfig
from lib.metrics import classification
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.ood import comparison, early_exit, layer_choice, layer_energies, passes
from lib.ood import rows as ood_rows
from lib.ood.flags import DETECTORS
from lib.runs import loading, records, training_data
from lib.runs.records import Result


def ood_layers(config: OodLayersConfig) -> Result:
    """Rows per (layer, OOD set, temperature, score); every image's energies in the arrays."""
    device = loading.device(config)
    checkpoint = loading.load_checkpoint(config, config.model_path, config.model_type, device)
    network, description = checkpoint.network, checkpoint.description
    name = loading.dataset_name(config.dataset, checkpoint)
    inside = in_classes(
        loading.load_split(config, name, image_size=description.image_size), loading.known_classes(description)
    )
    size = description.image_size or max(inside.height, inside.width)
    outliers = openood.expand(config.ood, name, config.data_root)

    def load(other):
        """A set by name: one at a time, because many corrupted sets would not fit into memory together."""
        return inside if other == "id" else loading.load_split(config, other.removeprefix("validation "), image_size=size)

    fitted = loading.fitting_images(config, name, config.fit_on, config.fit_examples, size)
    if len(fitted.classes) == len(description.classes):
        fitted = in_classes(fitted, loading.known_classes(description))
    keys = _check_outliers(config, description, inside, outliers, load)
    _warn_of_calibration(config, description, inside, name, fitted)
    listed = cutting.layers(network, torch.zeros(1, description.channels, size, size, device=device))
    layers, exits = layer_energies.choose(network, listed, config.layers), _exits(config, listed)
    head, linear = _head(network, listed) if config.baselines else ("", None)
    _warn_of_final(listed, layers)
    study = passes.LayerStudy(
        network=network,
        batching=loading.batching(config, device, description.channels, size),
        listed=listed,
        layers=layers,
        temperatures=config.temperature,
        exits=exits,
        alpha=config.early_exit or math.nan,
        head=head,
        linear=linear,
        baselines=config.baselines,
        detectors=tuple(DETECTORS) if "all" in config.detectors else config.detectors,
        aggregators=config.aggregate,
        choices=config.choose,
        validation=config.val_ood,
        seed=config.seed,
        conformal=config.conformal,
    )
    planned = [len(fitted), len(inside), *(keys[other]["n_ood"] for other in outliers)]
    planned += [len(load(f"validation {other}")) for other in config.val_ood] + [len(fitted)] * ("jigsaw" in config.choose)
    study.batching.whole.plan(progress.FORWARD, *planned)
    seconds = {}
    journal = _journal(config)
    kept = passes.PassesUnderWay(journal, study.batching.processes)
    fit, detectors = passes.fit(study, fitted, seconds, kept)
    passed = {other: passes.measure(study, load(other), other, seconds, detectors, kept) for other in ("id", *outliers)}
    passed |= {
        other: passes.measure(study, load(other), other, seconds, under_way=kept)
        for other in (f"validation {other}" for other in config.val_ood)
    }
    if "jigsaw" in config.choose:
        shuffled = layer_choice.jigsaw(fitted, config.seed)
        passed["jigsaw"] = passes.measure(study, shuffled, "shuffled images", seconds, under_way=kept)
    calibrate_on = f"{fitted.name}:{fitted.split}, a half" if config.fit_on else ""
    left = passes.run_early_exits(study, fit, calibrate_on, outliers, load, passed, seconds) if exits else {}

    begin = time.perf_counter()
    once = passes.distinct(study, [fit, *passed.values()], [word for word in config.layers if word in layers])
    fit, passed = fit.keep(once.kept), {other: measured.keep(once.kept) for other, measured in passed.items()}

    def about_inside(tested: np.ndarray) -> dict:
        """What rows say of the in-distribution images at the positions that a score is tested on."""
        known = _same_classes(inside, description)
        return {
            "id": inside.name,
            "id_split": inside.split,
            "n_id": len(tested),
            "id_accuracy": classification.accuracy(passed["id"].logits[tested], inside.labels[tested]) if known else None,
            "fit_on": f"{fitted.name}:{fitted.split}",
            "n_fit": len(fitted),
        }

    every = about_inside(np.arange(len(inside)))
    facts = ood_rows.facts(network, listed, fit.columns)
    for column, told in facts.items():
        told["aliases"] = once.words(column)
    rows = [
        {**every, **keys[other], **row} for other, row in ood_rows.rows(study, list(facts.values()), fit, passed, outliers)
    ]
    rows += [
        {**about_inside(leaving.positions), **keys[other], **row} for other, leaving in left.items() for row in leaving.rows
    ]
    for word in ("near", "far"):
        rows += comparison.group_rows(rows, word) if word in config.ood else []
    arrays = {
        "layers": np.array(list(facts)),
        "temperatures": np.array(config.temperature),
        "energies_fit": fit.of(layers),
        "predictions_id": passed["id"].logits.argmax(1).numpy(),
        "labels_id": inside.labels.numpy(),
    }
    for other, measured in passed.items():
        arrays |= {f"energies_{other}": measured.of(layers)}
        arrays |= {f"{score}_{other}": values for score, values in measured.scores.items()}
        for score, of_columns in measured.detected.items():
            arrays |= {f"layer {score}_{other}": np.stack([of_columns[column] for column in of_columns], 1)}
            arrays |= {f"layer {score}": np.array(list(of_columns))}
    if left:
        of_outliers = {other: leaving.outside for other, leaving in left.items()}
        first = left[outliers[0]]
        arrays |= {"exit_layers": np.array(exits), "exits_id": first.inside, "exit_positions_id": first.positions}
        arrays |= {f"exits_{other}": values for other, values in of_outliers.items()}
    seconds["scoring"] = time.perf_counter() - begin
    if study.batching.processes.rank == 0:
        journal.remove()
    seen = ("seen_in_training",) if any(key["seen_in_training"] for key in keys.values()) else ()
    variants = ("variant",) if any(key["variant"] for key in keys.values()) else ()
    alarms = ("alpha", "n_id", "false_alarms", "false_alarms_low", "false_alarms_high")
    exiting = (*alarms, "detected", "mac_id", "mac_ood", "time_id", "time_ood") if left else ()

    return Result(
        rows,
        arrays,
        seconds,
        columns=(
            "layer",
            "ood",
            *variants,
            *seen,
            "T",
            "score",
            "mac_fraction",
            "auroc",
            "ci_low",
            "ci_high",
            *(("auroc_low", "auroc_high") if config.conformal else ()),
            "vs_final",
            "p_holm",
            "p_best",
            "in_best_set",
            "gain_bound",
            "auroc_two_sided",
            "fpr95",
            *(("fpr95_low", "fpr95_high") if config.conformal else ()),
            *exiting,
            "needs",
        ),
    )


def _journal(config: OodLayersConfig) -> saved_state.Journal:
    """What the passes of an interrupted run of the same command on the same files have kept: beside the record."""
    key = saved_state.content_key(records.under_way(config))
    return saved_state.Journal(records.place(config, "ood_layers").beside(".partial"), key)


def _exits(config: OodLayersConfig, listed: list[cutting.Layer]) -> list[str]:
    """The cuts at which `--early-exit` may stop, in execution order."""
    if config.early_exit is None:
        return []
    cuts = early_exit.possible_exits(listed)
    if not cuts:
        raise UserError(f"--early-exit {config.early_exit}: the network has no cuts at which a pass could stop")
    if not config.exits:
        return early_exit.default_exits(listed)
    try:
        return cutting.select(cuts, config.exits, {"cuts": cuts, "all": cuts}, "--exits")
    except UserError:
        raise UserError(f"--exits {' '.join(config.exits)}: a pass can stop at {', '.join(cuts)}") from None


def _head(network: Normalized, listed: list[cutting.Layer]) -> tuple[str, nn.Linear]:
    """The last linear layer, whose input the baselines look at, by name and itself."""
    modules = dict(network.body.named_modules())
    last = max(
        (layer for layer in listed if not list(modules[layer.name].children())), key=lambda layer: layer.runs[-1].index
    )
    linear = modules[last.name]
    if last.role != "head":
        raise UserError(f"--baselines: {cutting.HEADLESS}; they need a linear layer that does")
    if not isinstance(linear, nn.Linear):
        raise UserError(f"--baselines: the network ends in {last.name}, a {last.kind}; they need a linear layer there")
    return last.name, linear


def _warn_of_final(listed: list[cutting.Layer], layers: list[str]) -> None:
    """Warns where the layer that others are compared with is not the network's head, as it has none."""
    deepest = max((layer for layer in listed if layer.name in layers), key=lambda layer: layer.runs[-1].index)
    if not cutting.head(listed):
        warnings.warn(
            f"{cutting.HEADLESS}: vs_final, gain_bound and p are against {deepest.name}, the deepest layer that is read",
            stacklevel=3,
        )


def _check_outliers(config: OodLayersConfig, description, inside, outliers: list[str], load) -> dict[str, dict]:
    """What the rows of each OOD set say of it.

    Warns of sets that make a measure meaningless, and refuses those that make it a lie, before any pass.
    """
    validation = {other: load(other) for other in config.val_ood}
    learnt, about = _training_outliers(config, description), {}
    for other in outliers:
        split = load(other)
        seen = training_data.seen_in_training(description, other, split)
        count = overlap.shared(learnt, split) if learnt is not None else 0
        about[other] = {**ood_rows.about(inside, split), "seen_in_training": True if count else seen}
        if (split.name, split.split, split.variant) == (inside.name, inside.split, inside.variant):
            warnings.warn(f"-ood {other} is the in-distribution set itself: every AUROC is 0.5", stacklevel=3)
        elif seen:
            warnings.warn(
                f"-ood {other}: the network was trained on {description.dataset}, so that these images are not out of "
                "distribution for it",
                stacklevel=3,
            )
        for name, chosen in validation.items():
            if shared := overlap.shared(split, chosen):
                raise UserError(
                    f"--val-ood {name}: {shared} of its images are also in -ood {other}; what is fitted on must "
                    "not be tested on"
                )
        if count:
            warnings.warn(f"-ood {other}: {count} of its images are outliers that the network was trained on", stacklevel=3)
    return about


def _warn_of_calibration(config: OodLayersConfig, description, inside, name: str, fitted) -> None:
    """Warns where --early-exit is calibrated on images that the network has learnt from."""
    flag, asked, split = ("--fit-on", config.fit_on, fitted) if config.fit_on else ("-d", name, inside)
    if config.early_exit is not None and training_data.learnt_images(description, asked, split):
        warnings.warn(
            f"{flag} {asked}: the network was trained on these images, and is calibrated on them: on others --early-exit "
            "has another rate of false alarms",
            stacklevel=3,
        )


def _training_outliers(config: OodLayersConfig, description):
    """The outliers that the network was trained against, if any."""
    name = description.config.get("outliers")
    if not name:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a set is not divided was said when the network was trained
            return loading.load_split(config, name, "train", image_size=description.image_size)
    except UserError as error:
        warnings.warn(f"whether -ood shares images with the training's --outliers is unknown: {error}", stacklevel=4)
        return None


def _same_classes(split, description) -> bool:
    """Whether images are labelled in the network's classes: by name, or by place where nothing says how these are called."""
    ours = loading.known_classes(description) or split.classes
    return split.classes == ours and len(ours) == len(description.classes) and bool((split.labels >= 0).any())
