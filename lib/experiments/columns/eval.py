"""The columns of `exec_eval.py`: a row per data set, and one per group and class of it."""

from lib.runs.columns import DATA, Column, Columns, count, share

COLUMNS = Columns(
    words={
        **DATA,
        "subset": Column("`all`; `group:NAME`; `worst group:NAME`, the group of lowest accuracy; `class:NAME`"),
        "attack": Column("attack of `--attack`: pgd, apgd or aa"),
        "norm": Column("norm that limits the attack: 2 or inf"),
    },
    numbers={
        "n": count("labelled images of the subset"),
        "accuracy": share("share of the images, classified correctly", "higher"),
        "se": Column("binomial standard error of `accuracy`", "fraction", 0, 0.5),
        "top5": share(
            "share of the images whose class is among the five highest logits; empty for 5 classes or fewer", "higher"
        ),
        "loss": Column("mean cross-entropy", "nats", 0, better="lower"),
        "ece": share("expected calibration error, 15 equal bins of confidence; of `all` only", "lower"),
        "eps": Column("radius of the attack, for images in [0, 1]", "", 0),
        "steps": count("gradient steps of the attack", "steps"),
        "restarts": count("restarts of the attack", "restarts"),
        "robust_accuracy": share(
            "of the images, classified correctly without the attack and in every restart of it", "higher"
        ),
    },
    images=("data", "split", "origin"),
    sets=("data",),
)
