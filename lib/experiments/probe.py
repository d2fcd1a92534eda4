"""Probes on every layer of a frozen network: `exec_probe.py`.

Uselis & Oh, "Intermediate Layer Classifiers for OOD Generalization", ICLR 2025, and the rank-limited linear probes of Balogh
& Jelasity, AAAI 2025. The paper chose epochs and layers on test images in places, let layers and baseline search for
unequal lengths, and had one seed; here the roles of images are disjoint, rules stand side by side and differences have
intervals, while `--roles paper` divides the images as its notebooks do.
"""

import time
from typing import TYPE_CHECKING

from lib import datasets
from lib.core.errors import UserError
from lib.datasets import names
from lib.runs import loading
from lib.runs.records import Result

if TYPE_CHECKING:
    from lib.probing.run import Data
import torch

from lib.datasets.sets import imagenet16
from lib.experiments.config.probe import ProbeConfig
from lib.models import checkpoints
from lib.plots import probe as plots
from lib.probing import evaluation, export, network_rows, shift_rows
from lib.probing import roles as role_draws
from lib.probing import rows as probing_rows
from lib.probing import run as runs

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
    "seed",
    "selected_by",
    "n",
    "accuracy",
    "baseline",
    "gain",
    "gain_low",
    "gain_high",
    "candidates",
)


def probe(config: ProbeConfig) -> Result:
    """A row per layer, candidate or rule, OOD set, group and seed; a row per rule and OOD set on what choosing gained."""
    device = loading.device(config)
    checkpoint = loading.load_checkpoint(config, config.model_path, config.model_type, device)
    data = _data(config, checkpoint)
    networks = {"trained": checkpoint.network}
    if config.untrained:
        torch.manual_seed(config.seed[0])
        networks["untrained"] = checkpoints.build(checkpoint.description).to(device).eval()
    rows, seconds = [], {}
    for name, network in networks.items():
        run = runs.Run(config, name, network, data, seconds)
        run.fit_and_score()
        rows += network_rows.rows(run) + probing_rows.rows(run)
        if config.export and name == "trained":
            place, linear = run.exported()
            export.export(config.outputs()[0], network, checkpoint.description, place.tap, linear, data.classes, data.size)
        if config.sensitivity:
            begin = time.perf_counter()
            rows += shift_rows.rows(run)
            run.count("sensitivity", begin)
    return Result(
        rows,
        figures=plots.figures(rows, checkpoint.description.architecture),
        seconds=seconds,
        columns=() if config.verbose else COLUMNS,
    )


def _data(config: ProbeConfig, checkpoint) -> "Data":
    description = checkpoint.description
    name = loading.dataset_name(config.dataset, checkpoint)
    base = name if "=" in name else name.partition(":")[0]
    train = loading.load_split(config, base, "train", image_size=description.image_size)
    if bool((train.labels < 0).any()):
        raise UserError(f"-d {name}: some of its training images have no labels")
    size = description.image_size or max(train.height, train.width)
    shifts = []
    for word in [name] if config.how == "id" else [one for several in config.ood for one in names.expand(several)]:
        test = loading.load_split(config, word, image_size=size)
        if test.classes != train.classes:
            raise UserError(
                f"-ood {word}: its {len(test.classes)} classes ({', '.join(test.classes[:3])}, ...) are not the "
                f"{len(train.classes)} of {base} ({', '.join(train.classes[:3])}, ...){_hint(word)}"
            )
        val = None
        divided = datasets.splits(word, config.data_root)
        if config.how != "id" and "val" in divided and "test" in divided and test.split == "test":
            val = loading.load_split(config, word, "val", image_size=size)
        shifts.append(
            evaluation.Shift(word, test, role_draws.origin(word, test), val, role_draws.origin(word, val) if val else "")
        )
    outputs = tuple(map(str, description.classes))
    members = imagenet16.members(train.classes, outputs) if len(outputs) != len(train.classes) else ()
    return runs.Data(base, train, role_draws.origin(base, train), shifts, train.classes, description.channels, size, members)


def _hint(word: str) -> str:
    """Which of ImageNet's images have the classes of an OOD set made for it."""
    inside = LEARNT_FROM.get(names.parse(word).base)
    return f"; -d {inside} has them" if inside else ""
