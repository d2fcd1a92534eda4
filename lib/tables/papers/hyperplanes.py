"""Gamba, Carlsson, Azizpour & Björkman, "Hyperplane Arrangements of Trained ConvNets Are Biased", 2023.

No number, table or caption of the paper was found: the entries are those that its code writes.
"""

from lib.tables.papers.spec import PaperTable, Value

NETWORKS = (
    Value("LeNet, MNIST", {"net.model_type": "lenet", "net.dataset": "mnist"}),
    Value("VGG-11, CIFAR-10", {"net.model_type": "vgg11", "net.dataset": "cifar10"}),
    Value("VGG-19, CIFAR-10", {"net.model_type": "vgg19", "net.dataset": "cifar10"}),
)
CLEAN = {"net.noise": 0.0, "net.pixel_shuffle": False}
# the main example of the paper's code, for a VGG-19; early epochs densely, then sparsely
TRAINING = {
    "net.epochs": 40,
    "net.optimizer": "sgd",
    "net.batch_size": 128,
    "net.learning_rate": 0.01,
    "net.snapshot_all_until": 10,
    "net.snapshot_every": 10,
}
RESETS = {**TRAINING, "config.rand": 3, "config.inits_from": ["{net.folder}"]}
WEIGHTS = {"config.model_path": ["{net.folder}"], "config.normalize": True}
SNAPSHOTS = {**TRAINING, **WEIGHTS}
CORRUPTED = (
    *(Value(f"label noise {share}", {"net.noise": share}) for share in (0.2, 0.4, 0.6, 0.8, 1.0)),
    Value("pixel shuffle", {"net.pixel_shuffle": True}),
)
DROP = {"layer": "*", "status": ("measured", "unchanged"), "config.what": "weights", "config.recalibrate_bn": False}

TABLES = {
    "f1": PaperTable(
        "projections per layer, trained: mean cosine with the all-ones vector (F1)",
        {"network": NETWORKS, "epoch": "epoch", "layer": "layer"},
        "projections",
        {**CLEAN, "config.normalize": True, "config.fold_bn": False},
        {},
        SNAPSHOTS,
        metric="mean",
        interval=("q05", "q95"),
        note="The interval of a single run is that of 90 % of the filters; distributions are the figures of these records.",
    ),
    "f2": PaperTable(
        "mass P(X <= 0) per layer against epoch (F2)",
        {"network": NETWORKS, "epoch": "epoch", "layer": "layer"},
        "projections",
        {**CLEAN, "config.fold_bn": False},
        {},
        SNAPSHOTS,
        metric="mass",
        interval=("mass_low", "mass_high"),
    ),
    "f3": PaperTable(
        "relative loss of accuracy with a layer of another epoch, or drawn anew (F3)",
        {"network": NETWORKS, "source": "source", "layer": "layer"},
        "reinit",
        {**CLEAN, **DROP},
        {},
        RESETS,
        metric="relative_drop",
    ),
    "f4": PaperTable(
        "relative L2 distance from the initial weights per layer (F4)",
        {"network": NETWORKS, "epoch": "epoch", "layer": "layer"},
        "projections",
        CLEAN,
        {},
        SNAPSHOTS,
        metric="l2_distance",
    ),
    "f5": PaperTable(
        "relative loss of accuracy under label noise and pixel shuffling (F5)",
        {"network": NETWORKS, "training": CORRUPTED, "source": "source", "layer": "layer"},
        "reinit",
        DROP,
        {},
        RESETS,
        metric="relative_drop",
    ),
    "f6": PaperTable(
        "projections of the linear layers of an MLP (F6)",
        {
            "network": (Value("MLP, CIFAR-10", {"net.model_type": "mlp_bn", "net.dataset": "cifar10"}),),
            "epoch": "epoch",
            "layer": "layer",
        },
        "projections",
        {**CLEAN, "config.with_linear": True},
        {
            "net.epochs": 300,
            "net.optimizer": "sgd",
            "net.batch_size": 128,
            "net.learning_rate": 0.01,
            "net.schedule": "step",
            "net.lr_step": 100,
            "net.weight_decay": 5e-4,
            "net.snapshot_every": 10,
            "net.snapshot_all_until": 10,
        },
        WEIGHTS,
        metric="mass",
        interval=("mass_low", "mass_high"),
    ),
    "correlation": PaperTable(
        "rank correlation over layers of what a layer is with its drop (claim C4)",
        {
            "network": NETWORKS,
            "source": (Value("0", {"source": "0"}), Value("rand", {"source": "rand"})),
            "predictor": tuple(
                Value(name, {"predictor": name}) for name in ("bias", "bias_z", "abs_mean", "l2_distance", "criticality")
            ),
            "correlation": (Value("Spearman", metric="spearman"), Value("given depth", metric="partial")),
        },
        "reinit",
        {**CLEAN, "status": "analysis", "config.what": "weights"},
        {},
        {**RESETS, "config.criticality": 0.1},
    ),
}
