"""Balogh & Jelasity, "How not to Stitch Representations to Measure Similarity", AAAI 2025.

The paper's tables, figures and numbers were not found; E1 to E7 are the experiments that its code supports. DM is
direct matching (least squares), TLM task-loss matching. Grids are over all cuts, which hold the paper's blocks.
"""

from dataclasses import replace

from lib.tables.papers.spec import PaperTable, Value


def both(model_type: str, dataset: str) -> dict:
    """The condition that both networks are of this type and data."""
    return {
        f"{role}.{name}": value
        for role in ("front", "end")
        for name, value in (("model_type", model_type), ("dataset", dataset))
    }


NETWORKS = (
    Value("ResNet-18, CIFAR-10", both("resnet18", "cifar10")),
    Value("ViT-Ti/4, CIFAR-10", both("vit_tiny_patch4_32", "cifar10")),
)
WIDTHS = tuple(
    Value(label, both(name, "cifar10"))
    for label, name in (
        ("ResNet-18", "resnet18"),
        ("equal width", "resnet18_samewidth"),
        ("equal size", "resnet18_samesize"),
        ("both", "resnet18_samewidth_samesize"),
    )
)
TLM = Value(
    "TLM",
    {"init": "rand", "trained": True},
    {"config.epochs": 30, "config.batch_size": 256},
    {"config.init": "rand", "config.mod_only_stitch": True},
)
DM = Value(
    "DM",
    {"init": "pinv", "trained": False},
    {"config.pinv_samples": "100"},
    {"config.init": "pinv", "config.epochs": 0, "config.mod_only_stitch": True},
)
OF_RECORDS = {"config.stitch_run": ["results/stitch"]}
WHOLE = {"stitch_rank": None, "pinv_rank": None, "null": None}
PAIR = {"front layer": "front_layer", "end layer": "end_layer"}
CROSS, INTRA = {"same_network": False}, {"same_network": True}
BLOCKS = "layer?.?"
RANKS = [512, 448, 384, 320, 256, 192, 128, 64, 32, 16, 8, 4, 2, 1]


def detectors(kind: str, layers: str) -> tuple[str, dict]:
    """The run that trains a detector for every one of these layers of the end network."""
    return "ood_detector", {
        "config.source_path": "{end.file}",
        "config.layer": [layers],
        "config.model_type": kind,
        "config.dataset": "cifar10",
        "config.batch_size": 512,
        "config.epochs": 100,
        "config.ft_epochs": 10,
        "config.ft_outliers": "300k",
        "config.directory": "{end.folder}/detectors",
    }


def probed(role: str, layers: str, **flags) -> tuple[str, dict]:
    """The run that probes these layers of one of the networks."""
    return "probe", {
        "config.model_path": f"{{{role}.file}}",
        "config.layers": [layers],
        "config.reduce": ["gap"],
        "config.protocol": "id",
        **{f"config.{name}": value for name, value in flags.items()},
    }


# where the first side has more directions than the second, the number of the paper's code depends on its SVD
PWCCA_SETUP = {"pwcca_weighs": "first"}
INDICES = tuple(
    Value(label, {"rank1": None, "rank2": None}, setup, metric=name, experiment="similarity")
    for label, name, setup in (("CKA", "cka", {}), ("PWCCA", "pwcca", PWCCA_SETUP), ("OPD", "procrustes", {}))
)
# the paper's code whitens what rounding leaves of the directions that a rank limit takes away
WHITENED_ROUNDING = {"whitening": "of rounding noise, too"}


def tested(layers: str, similar: dict, stitched: dict, pwcca: dict) -> dict:
    """The axes of a test of indices, each with the runs that measure it on these layers; PWCCA's set-up in the paper."""
    of_similarity = "similarity", {"config.layers1": layers, "config.layers2": layers, **similar}
    of_dm, of_tlm = (
        ("stitch", {"config.front_layer": layers, "config.end_layer": layers, **matching.run, **stitched})
        for matching in (DM, TLM)
    )
    indices = (
        ("CKA", "cka", {}, of_similarity),
        ("PWCCA", "pwcca", pwcca, of_similarity),
        ("OPD", "procrustes", {}, of_similarity),
        ("DM", "dm", {}, of_dm),
        ("DM (struct.)", "dm_struct", {}, of_dm),
        ("TLM", "tlm", {}, of_tlm),
    )
    return {
        "data": "data",
        "index": tuple(Value(label, {"index": name}, setup, before=(run,)) for label, name, setup, run in indices),
        "depends on": "setting",
        "coefficient": (Value("Spearman", metric="spearman"), Value("Kendall", metric="kendall")),
    }


OF_MANY = "From records of exec_similarity.py, exec_stitch.py and exec_probe.py together; the mean over reference layers."

TABLES = {
    "e1": PaperTable(
        "E1: accuracy of stitched networks, two seeds of one architecture",
        {"networks": NETWORKS, "matching": (TLM, DM), **PAIR},
        "stitch",
        {**WHOLE, **CROSS},
        metric="accuracy",
    ),
    "e2": PaperTable(
        "E2: accuracy of a network stitched to itself",
        {"networks": NETWORKS, "matching": (TLM, DM), **PAIR},
        "stitch",
        {**WHOLE, **INTRA},
        metric="accuracy",
    ),
    "e3": PaperTable(
        "E3: are stitched activations in distribution? under each end layer's detector",
        {
            "networks": (
                replace(NETWORKS[0], before=(detectors("repr_cls_resnet18", BLOCKS),)),
                replace(NETWORKS[1], before=(detectors("repr_cls_vit_tiny", "blocks.*"),)),
            ),
            "matching": tuple(Value(one.label, one.where, before=(("stitch", one.run),)) for one in (TLM, DM)),
            **PAIR,
            "measure": (
                Value("AUROC", metric="auroc"),
                Value("AUPR", metric="aupr_in"),
                Value("FPR95", metric="fpr95_nearest_recall"),
            ),
        },
        "stitch_ood",
        {"kind": "stitched", "stitch_rank": None, "pinv_rank": None},
        run={"config.stitch_run": ["results/stitch"]},
        note="Of the grids of e1, under detectors that exec_ood_detector.py has trained before.",
    ),
    "e4": PaperTable(
        "E4: structural indices over the grid of layers",
        {
            "networks": NETWORKS,
            "index": (
                *INDICES,
                Value(
                    "DM (struct.)",
                    {**DM.where, **WHOLE},
                    metric="normalized_difference_batch_mean",
                    run=DM.run,
                    experiment="stitch",
                ),
            ),
            **PAIR,
        },
        where=CROSS,
    ),
    "e5": PaperTable(
        "E5: specificity, rank correlation of dissimilarity with differences in probing accuracy",
        tested(BLOCKS, {}, {}, {}),
        "specificity",
        {"layer": "mean"},
        run=NETWORKS[0].where,
        note=OF_MANY,
        before=(probed("front", BLOCKS), probed("end", BLOCKS)),
    ),
    "e6": PaperTable(
        "E6: sensitivity, the same with sources of limited rank",
        tested("layer4.0", {"config.model1_ranks": RANKS}, {"config.front_stitch_rank": RANKS}, WHITENED_ROUNDING),
        "sensitivity",
        {"layer": "mean"},
        run=NETWORKS[0].where,
        note=OF_MANY,
        before=(probed("front", "layer4.0", ranks=RANKS), probed("end", "layer4.0")),
    ),
    "e7": PaperTable(
        "E7: direct matching against the number of images, and equal widths and sizes",
        {
            "networks": WIDTHS,
            "images": tuple(
                Value(str(count), {"samples": count}, run={"config.pinv_samples": str(count)})
                for count in (10, 100, 1000, 10000)
            ),
            **PAIR,
        },
        "stitch",
        {**WHOLE, **CROSS, **DM.where},
        run=DM.run,
        metric="accuracy",
    ),
    "anchors": PaperTable(
        "accuracy of ResNet-18 from elsewhere, for orientation",
        {
            "trained on": (
                Value("CIFAR-10", {"net.dataset": "cifar10"}),
                Value("CIFAR-5M", {"net.dataset": "cifar5m"}, {"net.max_examples": 50000}),
            ),
            "tested on": (
                Value("CIFAR-10", {"data": "cifar10", "split": "test"}, run={"config.dataset": ["cifar10"]}),
                Value("CIFAR-5M", lacks="the suite's cifar5m is tested on CIFAR-10's test images"),
            ),
        },
        "eval",
        {"net.model_type": "resnet18", "subset": "all", "variant": ""},
        {"net.epochs": 100, "net.augmentation": "auto", "net.loss": "ce"},
        metric="accuracy",
        note="Of the anchors' training only the augmentation is known; epochs are those of the paper's code.",
    ),
}
