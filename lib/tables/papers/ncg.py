"""Yang, Rashtchian, Salakhutdinov & Chaudhuri, "Probing Predictions on OOD Images via Nearest Categories", TMLR 2023.

Networks have never seen class k of a data set (M-k, C10-k, C100-k, I-k); nat is plain training, AT(r) adversarial training
and TR(r) TRADES within L2 radius r.
"""

from dataclasses import replace

from lib.models.normalisations import IMAGENET
from lib.tables.papers.spec import PaperTable, Value

BASES = {"M": "mnist", "C10": "cifar10", "C100": "cifar100coarse", "I": "imagenet100"}
HEADLINE = {"M": range(10), "C10": (0, 4, 9), "C100": (0, 4, 9), "I": (0, 1, 2)}
SGD = {"net.optimizer": "sgd", "net.momentum": 0.9}
# the paper's settings, section 3.4 of its page
EVERYWHERE = {"net.epochs": 70, "net.milestones": [40, 50, 60], "net.weight_decay": 0.0, "net.augmentation": "none"}
WRN = {
    "net.model_type": "WRN_40_10",
    "net.optimizer": "adam",
    "net.learning_rate": 0.01,
    "net.batch_size": 64,
    "net.unnormalize": True,
}
PIXEL = {
    "M": {"net.model_type": "CNN002", **SGD, "net.learning_rate": 0.01, "net.batch_size": 128, "net.unnormalize": True},
    "C10": WRN,
    "C100": WRN,
    "I": {
        "net.model_type": "ResNet50",
        "net.optimizer": "adam",
        "net.learning_rate": 0.01,
        "net.batch_size": 128,
        "net.image_size": 112,
        "net.mean": list(IMAGENET[0]),
        "net.std": list(IMAGENET[1]),
    },
}
# MLPs on stored features of the natural network: its layer, and their settings
MLP = {
    **SGD,
    "net.model_type": "LargeMLP",
    "net.learning_rate": 0.01,
    "net.batch_size": 128,
    "net.augmentation": ("none", "auto"),
}  # the same for features
LAYERS = {"M": "flatten", "C10": "flatten", "C100": "flatten", "I": "avgpool"}
FEATURE = {
    "M": {**MLP, "net.batch_size": 256},
    "C10": MLP,
    "C100": MLP,
    "I": {**MLP, "net.model_type": "LargeMLPv4", "net.learning_rate": 0.1},
}
SLOW = {"net.learning_rate": 0.01}  # on the features of ImageNet-100 too: TR(2), and all natural ones of chi-square
EVERY = {"config.corruptions": ["all"]}
STANDARD = {
    "config.corruptions": [  # the 15 of ImageNet-C without its four extra ones
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "snow",
        "frost",
        "fog",
        "brightness",
        "contrast",
        "elastic_transform",
        "pixelate",
        "jpeg_compression",
    ]
}
CELLS = {"n_cells": 75}  # of them at five levels
CORRUPTED = {"ImageNet-100-C": "I", "CIFAR-10-C": "C10", "CIFAR-100-C": "C100"}


def loss(name: str, radius: float | None = None) -> dict:
    """The condition on a training with this loss."""
    return {"net.loss": name} | ({} if radius is None else {"net.eps": float(radius)})


NAT, AT = Value("nat", loss("ce")), Value("AT(2)", loss("at", 2))
TRADES = tuple(Value(f"TR({radius})", loss("trades", radius), {"net.beta": 6.0}) for radius in (2, 4, 8))
METHODS = (NAT, AT, *TRADES)


def unseen(numbers: dict, settings: dict) -> tuple[Value, ...]:
    """A heading per data set without one of its classes."""
    return tuple(
        Value(f"{short}-{k}", {"net.dataset": f"{BASES[short]}-wo{k}"}, settings[short])
        for short in numbers
        for k in numbers[short]
    )


def stored(numbers: dict) -> tuple[Value, ...]:
    """The same with MLPs on the features of the natural network of the same data; a backbone may be without a record."""

    def backbone(short: str, k: int) -> dict:
        trained = {**EVERYWHERE, **PIXEL[short], **loss("ce"), "net.dataset": f"{BASES[short]}-wo{k}"}
        return {name.replace("net.", "backbone."): (value, None) for name, value in trained.items()}

    return tuple(
        Value(
            f"{short}-{k}",
            {"net.dataset": f"{BASES[short]}-wo{k}"},
            FEATURE[short] | backbone(short, k),
            {"net.features": LAYERS[short]},
        )
        for short in numbers
        for k in numbers[short]
    )


def whole(settings: dict) -> tuple[Value, ...]:
    """A heading per data set with all its classes, corrupted at test time."""
    return tuple(
        Value(
            label,
            {"net.dataset": BASES[short]},
            settings[short] | (CELLS if short == "I" else {}),
            STANDARD if short == "I" else EVERY,
        )
        for label, short in CORRUPTED.items()
    )


ELSEWHERE = {"subset": "all", "in_distribution": False, "split": "ood"}
TEST = {"subset": "all", "in_distribution": True}
NCG = ("ncg_low", "ncg_high")
SPACES = (Value("pixel", {"space": "pixel"}), Value("feature", {"space": "feature"}))
NO_MLP = "on stored features only networks of unseen-class sets are trained"
CORRUPTED_SPACES = (SPACES[0], Value("feature", {"space": "feature"}, lacks=NO_MLP))


def slopes(label: str, measure: str) -> tuple[Value, ...]:
    """How slopes over the levels of each corruption differ: rows are of the natural network, `main` is the robust one."""
    less, two_sided = f"p_slope_less_{measure}", f"p_slope_two_sided_{measure}"

    def count(column: str, holds):
        def metric(rows: list[dict]) -> float | None:
            found = [holds(row[column]) for row in rows if row.get(column) is not None]
            return sum(found) if found else None

        return metric

    return (
        Value(f"{label}: nat falls faster", metric=count(less, lambda p: p > 0.5)),
        Value(f"{label}: significantly", metric=count(less, lambda p: p > 0.95)),
        Value(f"{label}: not different", metric=count(two_sided, lambda p: p >= 0.05)),
    )


STORED = {"space": "feature", **ELSEWHERE, "net.features": "?*"}

TABLES = {
    "pixel": PaperTable(
        "NCG in pixel space (Tables 1, 2, 17-20, App. D.5)",
        {
            "set": unseen(HEADLINE, PIXEL),
            "measure": (Value("accuracy", TEST, metric="accuracy"), Value("NCG", ELSEWHERE, metric="ncg", interval=NCG)),
            "method": METHODS,
        },
        "ncg",
        {"space": "pixel"},
        EVERYWHERE,
    ),
    "feature": PaperTable(
        "NCG in feature space: MLPs on features of the natural network (Tables 1, 2, 17-20, App. D.5)",
        {
            "set": stored(HEADLINE),
            "measure": (Value("NCG"),),
            "method": (NAT, Value("mixup", loss("mixup")), replace(TRADES[0], setup=TRADES[0].setup | SLOW), *TRADES[1:]),
        },
        "ncg",
        STORED,
        EVERYWHERE,
        metric="ncg",
        interval=NCG,
    ),
    "chi-square": PaperTable(
        "hits of natural MLPs on all 40 sets, in feature space (Tables 1, 2)",
        {
            "set": stored(dict.fromkeys(BASES, range(10))),
            "measure": (Value("hits", setup=SLOW, metric="hits"), Value("n", setup=SLOW, metric="n", exact=True)),
        },
        "ncg",
        {**STORED, **loss("ce")},
        EVERYWHERE,
    ),
    "in-distribution": PaperTable(
        "NCG of test images of seen classes (App. B.1)",
        {"set": unseen(HEADLINE, PIXEL), "space": SPACES[:1], "method": METHODS},
        "ncg",
        TEST,
        EVERYWHERE,
        metric="ncg",
        interval=NCG,
    ),
    "in-distribution-feature": PaperTable(
        "NCG of test images of seen classes, MLPs on stored features (App. B.1)",
        {"set": stored({"C10": (0, 4, 9), "C100": (0, 4, 9)}), "space": SPACES[1:], "method": (NAT, TRADES[0])},
        "ncg",
        {**TEST, "net.features": "?*"},
        EVERYWHERE,
        metric="ncg",
        interval=NCG,
    ),
    "table3": PaperTable(
        "empirical robust radius and distance to the training set, L2 in [0, 1] units (plausibly Table 3)",
        {
            "set": unseen({"M": (0, 1, 4, 9), "C10": (0, 4, 9), "I": (0, 1, 2)}, PIXEL),
            "measure": (
                Value("radius", metric="radius_mean"),
                Value("distance", metric="mean_distance"),
                Value("covered", metric="covered"),
            ),
            "method": METHODS,
        },
        "ncg",
        {"subset": "radius", "at": "neighbours", "split": "ood"},
        {**EVERYWHERE, "config.radius": 300},
        note="The paper drops attacks that fail; its ImageNet distances are in other units and left out here.",
    ),
    "fig3": PaperTable(
        "radius and distance, of which Figure 3 shows the histograms",
        {
            "set": unseen({"M": (0, 1, 4, 9), "I": (0, 1, 2)}, PIXEL),
            "measure": (
                Value("median radius", metric="radius_median"),
                Value("share of attacks that succeed", metric="attack_success"),
            ),
            "method": METHODS,
        },
        "ncg",
        {"subset": "radius", "at": "neighbours", "split": "ood"},
        {**EVERYWHERE, "config.radius": 300},
        note="The histograms are the figures of these records.",
    ),
    "fig5": PaperTable(
        "NCG by distance to the training set, fifths (Figure 5, App. D.6.3)",
        {
            "set": unseen(HEADLINE, PIXEL),
            "method": (NAT, AT, TRADES[0]),
            "fifth": tuple(Value(str(number), {"subset": f"quintile:{number}"}) for number in range(1, 6)),
        },
        "ncg",
        {"space": "pixel", "in_distribution": False, "split": "ood"},
        EVERYWHERE,
        metric="ncg",
        interval=NCG,
    ),
    "table4": PaperTable(
        "NCG of corrupted images, TR(2) less and over nat, mean of all cells (Table 4)",
        {
            "set": whole(PIXEL),
            "space": CORRUPTED_SPACES,
            "comparison": (
                Value("difference", metric="difference"),
                Value("ratio", metric="ratio"),
                Value("cells above", metric="cells_above"),
            ),
        },
        "ncg",
        {"subset": "cells", "against.loss": "ce", **loss("trades", 2)},
        EVERYWHERE,
    ),
    "fig6": PaperTable(
        "slopes over the level of corruption, nat against TR(2) (Figure 6, App. D.6.1)",
        {"space": CORRUPTED_SPACES, "comparison": (*slopes("accuracy", "accuracy"), *slopes("NCG", "ncg"))},
        "ncg",
        {"subset": "slope", "net.dataset": "imagenet100", "net.loss": "ce", "main.loss": "trades", "main.eps": 2.0},
        {**EVERYWHERE, **PIXEL["I"], "rows": 15},
        STANDARD,
    ),
    "corruptions": PaperTable(
        "NCG per corruption and level, pixel space (App. D.7)",
        {
            "corruption": tuple(
                Value(kind, {"variant": kind})
                for kind in (f"{kind}-{level}" for kind in ("contrast", "brightness", "zoom_blur") for level in range(1, 6))
            ),
            "method": (NAT, AT, TRADES[0]),
        },
        "ncg",
        {"subset": "all", "in_distribution": False, "space": "pixel", "net.dataset": "imagenet100"},
        {**EVERYWHERE, **PIXEL["I"]},
        STANDARD,
        metric="ncg",
        interval=NCG,
    ),
    "conditional": PaperTable(
        "cells in which accuracy is higher on NCG-correct images (App. D.3)",
        {"space": CORRUPTED_SPACES, "method": (NAT, TRADES[0])},
        "ncg",
        {"subset": "cells", "net.dataset": "imagenet100"},
        {**EVERYWHERE, **PIXEL["I"], **CELLS},
        STANDARD,
        metric="welch",
    ),
    "distance-accuracy": PaperTable(
        "Pearson's r of mean distance and accuracy over corruptions and levels",
        {"space": CORRUPTED_SPACES, "method": (NAT, AT, *TRADES[:2])},
        "ncg",
        {"subset": "cells", "net.dataset": "imagenet100"},
        {**EVERYWHERE, **PIXEL["I"], **CELLS},
        STANDARD,
        metric="r_distance_accuracy",
    ),
    "distance": PaperTable(
        "mean distance to the training set and NCG of the ten digits (App. D.6.2)",
        {
            "set": unseen({"M": range(10)}, PIXEL),
            "measure": (
                Value("mean distance", metric="mean_distance", exact=True),
                Value("NCG", metric="ncg", interval=NCG),
            ),
        },
        "ncg",
        {"space": "pixel", **ELSEWHERE, **loss("ce")},
        EVERYWHERE,
    ),
    "robust-checkpoints": PaperTable(
        "published robust CIFAR-10 ResNet-50 checkpoints (App. D.4)",
        {
            "checkpoint": (Value("natural"), Value("L2 AT(0.25)"), Value("L2 AT(0.5)"), Value("L2 AT(1.0)")),
            "measure": (Value("train accuracy"), Value("test accuracy")),
        },
        lacks="files from elsewhere: exec_eval.py and exec_ncg.py take them, and records cannot tell which is which",
    ),
    "robust-noise": PaperTable(
        "Gaussian noise in the feature space of the natural robust-benchmark checkpoint (App. D.4)",
        {
            "method": (NAT, TRADES[0]),
            "measure": tuple(map(Value, ("accuracy", "NCG", "accuracy on NCG-correct", "accuracy on NCG-incorrect"))),
            "level": tuple(Value(str(level)) for level in range(1, 6)),
        },
        lacks="files from elsewhere: exec_eval.py and exec_ncg.py take them, and records cannot tell which is which",
    ),
}
