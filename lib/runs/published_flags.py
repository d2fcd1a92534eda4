"""Flags in the spelling of the five papers' code: what each means here, or that it has no effect.

A spelling that a script has itself is not looked up here, so that one spelling keeps one meaning in a script. The others
are in none of its help: they are for command lines that are brought along (docs/published_calls.md). Free of torch.
"""

from dataclasses import dataclass

# The paper's spelling -> the fields that it may state, of which a script's first one counts.
MEANING = {
    "--load-from": ("model_path",),
    "--arch": ("model_type", "model_path"),  # of exec_projections.py the type is the last of its paths
    "-a": ("model_type", "model_path"),
    "--model": ("model_type",),
    "--in-dataset": ("id_dataset", "dataset"),
    "--id-dataset": ("dataset",),
    "--out-datasets": ("ood",),
    "--ood-dataset": ("ood",),
    "--lr": ("learning_rate",),
    "--wd": ("weight_decay",),
    "--reduce-lr-epochs": ("milestones",),
    "--save-frequency": ("snapshot_every",),
    "--random-seed": ("seed",),
    "-j": ("workers",),
    "--data-path": ("data_root",),
    "--data-dir": ("data_root",),
    "--models-path": ("models_dir",),
    "--results": ("results_dir",),
    "--output-dir": ("results_dir",),
}


@dataclass(frozen=True)
class WithoutEffect:
    """A flag that is taken and changes nothing; `values` follow it, and `of` is a field of the scripts that take it."""

    because: str
    values: int = 0
    of: str = "name"


WITHOUT_EFFECT = {
    "--cuda": WithoutEffect("a GPU is used where there is one, and -gpu -1 takes the CPU"),
    "--log": WithoutEffect("progress goes to stderr, and what is measured into the record", 1),
    "--verbose": WithoutEffect("rows are printed as they are, and all of them are in the record"),
    "--plots": WithoutEffect("figures lie beside the record", 1),
    "--energy-dir": WithoutEffect("energies are in the record's .npz", 1, "detectors"),
    "-ed": WithoutEffect("energies are in the record's .npz", 1, "detectors"),
    "--tb-logdir": WithoutEffect("curves are in the folder tensorboard of the training's -dir", 1, "snapshot_all_until"),
    "--shuffle": WithoutEffect(
        "training images have a new random order in every epoch, and --class-sample-seed draws classes",
        of="class_sample_seed",
    ),
    "--override": WithoutEffect("the settings of the command line hold in any case", of="resume_from"),
    "--print-freq": WithoutEffect("there is a line per epoch", 1, "snapshot_all_until"),
    "-p": WithoutEffect("there is a line per epoch", 1, "snapshot_all_until"),
    "--attack": WithoutEffect(
        "the attack of a training is that of its loss, with --eps and --norm", 1, "snapshot_all_until"
    ),
}

_TORCHRUN = "several processes are started by torchrun --nproc-per-node N exec_train.py"
_BY_POSITION = "there are several networks, and their paths and types are given by position: see --help"

# The paper's spelling -> [(a field of the scripts that it is about, what is said there)].
REFUSED = {
    "--arch": [("front_type", _BY_POSITION), ("model1_type", _BY_POSITION), ("source_type", _BY_POSITION)],
    "--load-from": [
        ("front_path", _BY_POSITION),
        ("model1_path", _BY_POSITION),
        ("source_path", _BY_POSITION),
        ("resume_from", "a training starts from --resume-from"),
    ],
    "--out-datasets": [
        ("ft_outliers", "outliers of the fine-tuning are -ftoodd, data to score is exec_stitch_ood.py -scd"),
        ("sanity", "data whose own representations are scored is -scd"),
        ("outliers", "outliers of --loss energy_layers are --outliers; exec_ood_layers.py -ood scores others"),
    ],
    "--evaluate": [("resume_from", "exec_eval.py CHECKPOINT TYPE -d DATA evaluates on the test images")],
    "--evaluate-train": [("resume_from", "exec_eval.py CHECKPOINT TYPE -d DATA:train evaluates on the training images")],
    "--multiprocessing-distributed": [("sync_batchnorm", _TORCHRUN)],
    "--world-size": [("sync_batchnorm", _TORCHRUN)],
    "--rank": [("sync_batchnorm", _TORCHRUN)],
    "--dist-url": [("sync_batchnorm", _TORCHRUN)],
    "--dist-backend": [("sync_batchnorm", _TORCHRUN)],
    "--dummy": [("resume_from", "-d patches is built in, and needs no files")],
    "--experiment": [
        ("resume_from", "exec_train.py trains; exec_ncg.py has the representations and distances, and --radius the radius"),
        ("against", "without --radius this is oos_repr, out_of_sample and get_preds, with it ood_robustness_correct"),
    ],
}


def meant(spelling: str, fields: set[str]) -> str | None:
    """The field that a paper's spelling states in a script with these fields; None if it states none of them."""
    several = REFUSED.get(spelling, [])
    if any(field in fields for field, _ in several):
        return None
    return next((field for field in MEANING.get(spelling, ()) if field in fields), None)


def without_effect(fields: set[str]) -> dict[str, WithoutEffect]:
    """The spellings that a script with these fields takes and does nothing with."""
    return {spelling: known for spelling, known in WITHOUT_EFFECT.items() if known.of in fields}


def refusal(spelling: str, fields: set[str]) -> str | None:
    """What takes the place of a paper's flag in a script with these fields, where it cannot be taken as it is."""
    return next((sentence for field, sentence in REFUSED.get(spelling, ()) if field in fields), None)
