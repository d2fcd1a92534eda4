"""Evaluating a checkpoint: `exec_eval.py`."""

import math
import time
import warnings

import numpy as np
from torch import Tensor, nn

from lib.attacks import pgd, robust_accuracy
from lib.core import progress
from lib.core.errors import UsageError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.experiments.config.eval import EvalConfig
from lib.metrics import classification, group_accuracy
from lib.representations import feature_dataset, finite
from lib.runs import loading
from lib.runs.records import Result
from lib.training import loop


def eval(config: EvalConfig) -> Result:
    """One row per data set, then one per group, for the worst group and per class; confusion matrices; logits on request.

    With an attack every row has the accuracy under it, and the arrays say which images it leaves correct.
    """
    device = loading.device(config)
    checkpoint = loading.load_checkpoint(config, config.model_path, config.model_type, device)
    description = checkpoint.description
    names = config.dataset or (loading.dataset_name("", checkpoint),)
    batching = loading.batching(config, device, description.channels, description.image_size, config.precision)
    rows, arrays, seconds = [], {}, {}
    if config.attack not in ("", "pgd") and description.features:
        raise UsageError(f"--attack {config.attack} keeps what it changes in [0, 1]; stored features are attacked by pgd")
    if config.attack:
        robust_accuracy.check(config.attack)
    for name in names:
        name = feature_dataset.as_trained(name, description)
        begin = time.perf_counter()
        split = loading.load_split(config, name, image_size=description.image_size)
        network, split = loading.answering(checkpoint, split, name)
        if not rows:  # the sets that are still to be loaded are taken to be as large as the first
            batching.whole.plan(progress.FORWARD, *[len(split)] * len(names))
            batching.whole.plan(progress.ATTACK, *[len(split)] * len(names) * bool(config.attack))
            size = description.image_size or max(split.height, split.width)
            form = tuple(split.images.shape[1:]) if split.features else (description.channels, size, size)
            loading.warn_of_mixing(checkpoint, form, device)
        logits = finite.check(loop.predict(network, split, batching), f"{checkpoint.path}: its logits", split)
        labels = split.labels
        robust = _robust(config, network, split, batching) if config.attack else None
        rows += _rows(split, logits, labels, robust, config)
        key = f"{split.name}-{split.split}" + (f"-{split.variant}" if split.variant else "")
        if config.save_logits:
            arrays |= {
                f"logits_{key}": logits.numpy(),
                f"labels_{key}": labels.numpy(),
                f"indices_{key}": split.indices.numpy(),
            }
        if robust is not None:
            arrays |= {f"robust_{key}": robust.numpy(), f"indices_{key}": split.indices.numpy()}
        counts = classification.confusion(logits, labels, len(split.classes))
        arrays[f"confusion_{key}"] = counts.numpy().astype(np.int32)
        seconds[name] = time.perf_counter() - begin
    hidden = {id(row) for row in _better_classes(rows)}
    return Result(
        rows,
        arrays,
        seconds,
        printed=lambda row: id(row) not in hidden,
        columns=(
            "data",
            "split",
            "variant",
            "subset",
            "n",
            "accuracy",
            "se",
            "top5",
            "loss",
            "ece",
            *(("robust_accuracy",) if config.attack else ()),
        ),
    )


def _robust(config: EvalConfig, network: nn.Module, split: Split, batching: Batching) -> Tensor:
    """Which images the network classifies correctly under the attack; without labels there are none."""
    attack = robust_accuracy.Attack(
        name=config.attack,
        ball=pgd.Ball(config.norm, config.radius, box=not split.features),
        steps=config.attack_steps,
        step_size=config.step_size,
        restarts=config.restarts,
        seed=config.seed,
    )
    return robust_accuracy.robust_images(network, split, attack, batching, config.cache_dir)


def _rows(split, logits, labels, robust, config: EvalConfig) -> list[dict]:
    """The row of the whole split (subset "all"), of its groups and the worst of them, and of its classes."""
    parts = {"all": labels >= 0}
    if len(split.group_names) > 1:
        groups = split.groups.masked_fill(labels < 0, -1)  # images without a label count in none
        parts |= {f"group:{name}": groups == number for number, name in enumerate(split.group_names)}
        parts |= _worst(split, groups, logits.argmax(1) == labels)
    parts |= {f"class:{name}": labels == number for number, name in enumerate(split.classes)}
    rows = []
    for subset, chosen in parts.items():
        part, truth = logits[chosen], labels[chosen]
        accuracy = classification.accuracy(part, truth)
        top5 = classification.top_k_correct(part, truth, 5) / len(truth) if logits.shape[1] > 5 and len(truth) else None
        rows.append(
            {
                "data": split.name,
                "split": split.split,
                "variant": split.variant,
                "origin": split.origin,
                "subset": subset,
                "n": len(truth),
                "accuracy": accuracy,
                "se": classification.standard_error(accuracy, len(truth)),
                "top5": top5,
                "loss": classification.cross_entropy(part, truth),
                "ece": classification.calibration_error(part, truth) if subset == "all" else None,
            }
        )
        if robust is not None:
            rows[-1] |= {
                "attack": config.attack,
                "norm": config.norm,
                "eps": config.eps,
                "steps": config.attack_steps,
                "restarts": config.restarts,
                "robust_accuracy": robust[chosen].double().mean().item() if len(truth) else None,
            }
    return rows


SHOWN = 20  # classes of a data set that are printed


def _better_classes(rows: list[dict]) -> list[dict]:
    """Of every data set the rows of all classes but those with the lowest accuracies, if there are many."""
    sets: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["subset"].startswith("class:"):
            sets.setdefault((row["data"], row["split"], row["variant"]), []).append(row)
    ranked = (sorted(one, key=lambda row: math.inf if row["accuracy"] is None else row["accuracy"]) for one in sets.values())
    return [row for one in ranked if len(one) > 2 * SHOWN for row in one[SHOWN:]]


def _worst(split, groups, correct) -> dict:
    """The images of the group with the lowest accuracy; groups without images are named in a warning and do not count."""
    inside = groups >= 0
    accuracies, sizes = group_accuracy.group_accuracies(correct[inside], groups[inside], len(split.group_names))
    if absent := [name for name, size in zip(split.group_names, sizes.tolist(), strict=True) if not size]:
        warnings.warn(
            f"{split.name}:{split.split}: no image of group {', '.join(absent)}; the worst group is one of the others",
            stacklevel=2,
        )
    worst = int(group_accuracy.worst_group(accuracies)[1])
    return {f"worst group:{split.group_names[worst]}": groups == worst}
