"""Guglielmo & Masana, "Leveraging Intermediate Representations for Better Out-of-Distribution Detection", CVWW 2025.

Of the paper's tables nothing was found; its bar figure was read off, and the other entries are the experiments that its
claims ask for. OpenOOD's numbers are of the same scores on the same data, from elsewhere.
"""

from lib.tables.papers.spec import PaperTable, Value

OUTSIDE = {
    "cifar10": ("svhn", "cifar100", "mnist", "fashionmnist"),
    "cifar100": ("svhn", "cifar10", "mnist", "fashionmnist"),
}
# OpenOOD's recipe; the paper's own was not found
TRAINING = {
    "net.epochs": 100,
    "net.optimizer": "sgd",
    "net.learning_rate": 0.1,
    "net.momentum": 0.9,
    "net.weight_decay": 5e-4,
    "net.batch_size": 128,
    "net.schedule": "cosine",
}
PLAIN = {"net.loss": "ce"}


def sets(ood: list[str] | None = None) -> tuple[Value, ...]:
    """In-distribution sets, with the outliers of the command: by default the other small sets."""
    return tuple(
        Value(
            label,
            {"id": name, "net.dataset": name, "net.model_type": "resnet18"},
            run={"config.ood": ood or list(OUTSIDE[name])},
        )
        for label, name in (("CIFAR-10", "cifar10"), ("CIFAR-100", "cifar100"))
    )


ENERGY = {"score": ("energy", None), "T": 1.0, "variant": ("", None)}
CI = ("ci_low", "ci_high")
AGGREGATES = ("mean", "absmean", "sq", "maha", "knn", "fisher", "max", "oracle")
LAST = ("energy", "msp", "max_logit", "knn", "mahalanobis", "vim", "react", "ash")
GROUPS = (Value("near", {"ood": "near"}), Value("far", {"ood": "far"}))
NEAR_FAR = {"config.aggregate": list(AGGREGATES), "config.baselines": ["all"]}

TABLES = {
    "explainer": PaperTable("schematic figure of densities per block", lacks="a drawing without axes or numbers"),
    "layers": PaperTable(
        "AUROC of every layer's energy, ResNet-18 with ImageNet stem, CIFAR-10 against SVHN (the bar figure)",
        {
            "layer": "layer",
            "AUROC": (Value("oracle sign", metric="auroc_oracle_sign"), Value("raw", metric="auroc", interval=CI)),
        },
        "ood_layers",
        {**ENERGY, "id": "cifar10", "ood": "svhn", "net.model_type": "tv_resnet18", "net.dataset": "cifar10", **PLAIN},
        {},
        {**TRAINING, "config.ood": list(OUTSIDE["cifar10"])},
        note="The figure turns AUROCs below 0.5 round, which an oracle alone can; its checkpoint's training is not stated.",
    ),
    "signs": PaperTable(
        "raw AUROC per layer and set of outliers (claim C1): do the signs agree?",
        {"data": sets(), "layer": "layer", "outliers": "ood"},
        "ood_layers",
        {**ENERGY, **PLAIN},
        {},
        TRAINING,
        metric="auroc",
        interval=CI,
    ),
    "choice": PaperTable(
        "a layer chosen without outliers' labels: AUROC and regret (claim C2)",
        {
            "data": sets(),
            "score": tuple(Value(name, {"score": f"two-sided, chosen by {name}"}) for name in ("mixture", "jigsaw")),
            "outliers": "ood",
            "measure": (Value("AUROC", metric="auroc", interval=CI), Value("regret", metric="regret")),
        },
        "ood_layers",
        {"variant": ("", None), "T": 1.0, **PLAIN},
        {},
        {**TRAINING, "config.choose": ["mixture", "jigsaw", "transfer"]},
    ),
    "aggregates": PaperTable(
        "AUROC of scores from all layers and of the last layer, near and far outliers (claim C3)",
        {
            "data": sets(["near", "far"]),
            "score": (
                *(
                    Value("oracle: an upper bound" if name == "oracle" else name, {"score": name, "layer": "all layers"})
                    for name in AGGREGATES
                ),
                *(Value(f"last layer: {name}", {"score": name, "layer": "fc"}) for name in LAST),
            ),
            "outliers": GROUPS,
        },
        "ood_layers",
        {"T": (1.0, None), **PLAIN},
        {},
        {**TRAINING, **NEAR_FAR},
        metric="auroc",
    ),
    "openood": PaperTable(
        "OpenOOD v1.5's last-layer scores, ResNet-18",
        {
            "data": sets(["near", "far"]),
            "score": tuple(Value(name, {"score": name}) for name in ("energy", "msp", "knn", "vim")),
            "outliers": GROUPS,
        },
        "ood_layers",
        {"T": (1.0, None), "layer": "fc", **PLAIN},
        TRAINING,
        NEAR_FAR,
        metric="auroc",
    ),
    "energy-loss": PaperTable(
        "training with the energies of hidden layers (claim C4): AUROC of the last layer and accuracy",
        {
            "data": sets(),
            "training": (
                Value("plain", PLAIN),
                Value("energies, hinge", {"net.loss": "energy_layers", "net.form": "hinge"}, {"net.outliers": "300k"}),
                Value(
                    "energies, contrastive",
                    {"net.loss": "energy_layers", "net.form": "contrastive"},
                    {"net.outliers": "300k"},
                ),
            ),
            "outliers": "ood",
            "measure": (Value("AUROC", metric="auroc", interval=CI), Value("ID accuracy", metric="id_accuracy")),
        },
        "ood_layers",
        {**ENERGY, "layer": "fc"},
        {},
        TRAINING,
        note="The form of the loss is ours: the paper's was not found.",
    ),
    "corruptions": PaperTable(
        "AUROC per layer against the severity of corruption, mean of the corruptions (claim C5)",
        {"layer": "layer", "severity": tuple(Value(str(level), {"severity": level}) for level in range(1, 6))},
        "ood_layers",
        {
            "score": "energy",
            "T": 1.0,
            "id": "cifar10",
            "ood": "cifar10-c",
            "net.dataset": "cifar10",
            "net.model_type": "resnet18",
            **PLAIN,
        },
        {},
        {**TRAINING, "config.ood": ["cifar10-c"]},
        metric=lambda rows: sum(row["auroc"] for row in rows) / len(rows),
    ),
    "early-exit": PaperTable(
        "stopping at the first layer that flags an image, false alarms calibrated to 5 % (claim C6)",
        {
            "data": sets(),
            "outliers": "ood",
            "measure": (
                Value("AUROC", metric="auroc"),
                Value("false alarms", metric="false_alarms", interval=("false_alarms_low", "false_alarms_high")),
                Value("detected", metric="detected"),
                Value("cost, outliers", metric="mac_ood"),
                Value("time, outliers", metric="time_ood"),
            ),
        },
        "ood_layers",
        {"score": "early exit", "layer": "* exits", "config.early_exit": 0.05, **PLAIN},
        {},
        TRAINING,
    ),
    "ablations": PaperTable(
        "AUROC of the last layer's energy against temperature",
        {"data": sets(), "temperature": tuple(Value(f"{T:g}", {"T": T}) for T in (0.1, 1.0, 10.0)), "outliers": "ood"},
        "ood_layers",
        {"score": "energy", "layer": "fc", "variant": ("", None), **PLAIN},
        {},
        {**TRAINING, "config.temperature": [0.1, 1.0, 10.0]},
        metric="auroc",
        interval=CI,
    ),
}
