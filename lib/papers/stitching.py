"""Balogh & Jelasity, "How not to Stitch Representations to Measure Similarity", AAAI 2025.

The paper's tables, figures and numbers were not found; E1 to E7 are the experiments that its code supports. DM is
direct matching (least squares), TLM task-loss matching. Grids are over all cuts, which hold the paper's blocks.
"""

from lib.papers.spec import Table, Value


def both(model_type: str, dataset: str) -> dict:
    """The condition that both networks are of this type and data."""
    return {f"{role}.{name}": value for role in ("front", "end")
            for name, value in (("model_type", model_type), ("dataset", dataset))}


NETWORKS = (Value("ResNet-18, CIFAR-10", both("resnet18", "cifar10")),
            Value("ViT-Ti/4, CIFAR-10", both("vit_tiny_patch4_32", "cifar10")))
WIDTHS = tuple(Value(label, both(name, "cifar10")) for label, name in (
    ("ResNet-18", "resnet18"), ("equal width", "resnet18_samewidth"), ("equal size", "resnet18_samesize"),
    ("both", "resnet18_samewidth_samesize")))
TLM = Value("TLM", {"init": "rand", "trained": True}, {"config.epochs": 30, "config.batch_size": 256},
            {"config.init": "rand", "config.mod_only_stitch": True})
DM = Value("DM", {"init": "pinv", "trained": False}, {"config.pinv_samples": "100"},
           {"config.init": "pinv", "config.epochs": 0, "config.mod_only_stitch": True})
OF_RECORDS = {"config.stitch_run": ["results/stitch"]}
WHOLE = {"stitch_rank": None, "pinv_rank": None, "null": None}
PAIR = {"front layer": "front_layer", "end layer": "end_layer"}
CROSS, INTRA = {"same_network": False}, {"same_network": True}
INDICES = tuple(Value(label, {"rank1": None, "rank2": None}, metric=name, experiment="similarity") for label, name in (
    ("CKA", "cka"), ("PWCCA", "pwcca"), ("OPD", "procrustes")))
TESTED = {"data": "data", "index": tuple(Value(label, {"index": name}) for label, name in (
              ("CKA", "cka"), ("PWCCA", "pwcca"), ("OPD", "procrustes"), ("DM", "dm"), ("DM (struct.)", "dm_struct"),
              ("TLM", "tlm"))),
          "depends on": "setting",
          "coefficient": (Value("Spearman", metric="spearman"), Value("Kendall", metric="kendall"))}
OF_MANY = "From records of exec_similarity.py, exec_stitch.py and exec_probe.py together; the mean over reference layers."

TABLES = {
    "e1": Table("E1: accuracy of stitched networks, two seeds of one architecture",
                {"networks": NETWORKS, "matching": (TLM, DM), **PAIR}, "stitch", {**WHOLE, **CROSS}, metric="accuracy"),
    "e2": Table("E2: accuracy of a network stitched to itself",
                {"networks": NETWORKS, "matching": (TLM, DM), **PAIR}, "stitch", {**WHOLE, **INTRA}, metric="accuracy"),
    "e3": Table("E3: are stitched activations in distribution? under each end layer's detector",
                {"networks": NETWORKS, "matching": (Value("TLM", TLM.where), Value("DM", DM.where)), **PAIR,
                 "measure": (Value("AUROC", metric="auroc"), Value("AUPR", metric="aupr_in"),
                             Value("FPR95", metric="fpr95_nearest_recall"))},
                "stitch_ood", {"kind": "stitched", "stitch_rank": None, "pinv_rank": None},
                run={"config.stitch_run": ["results/stitch"]},
                note="Of the grids of e1, under detectors that exec_ood_detector.py has trained before."),
    "e4": Table("E4: structural indices over the grid of layers",
                {"networks": NETWORKS,
                 "index": (*INDICES, Value("DM (struct.)", {**DM.where, **WHOLE}, metric="normalized_difference_batch_mean",
                                           run=DM.run, experiment="stitch")), **PAIR},
                where=CROSS),
    "e5": Table("E5: specificity, rank correlation of dissimilarity with differences in probing accuracy", TESTED,
                "specificity", {"layer": "mean"}, note=OF_MANY),
    "e6": Table("E6: sensitivity, the same with sources of limited rank", TESTED, "sensitivity", {"layer": "mean"},
                note=OF_MANY),
    "e7": Table("E7: direct matching against the number of images, and equal widths and sizes",
                {"networks": WIDTHS,
                 "images": tuple(Value(str(count), {"samples": count}, run={"config.pinv_samples": str(count)})
                                 for count in (10, 100, 1000, 10000)), **PAIR},
                "stitch", {**WHOLE, **CROSS, **DM.where}, run=DM.run, metric="accuracy"),
    "anchors": Table("accuracy of ResNet-18 from elsewhere, for orientation",
                     {"trained on": (Value("CIFAR-10", {"net.dataset": "cifar10"}),
                                     Value("CIFAR-5M", {"net.dataset": "cifar5m"})),
                      "tested on": (Value("CIFAR-10", {"data": "cifar10", "split": "test"},
                                          run={"config.dataset": ["cifar10"]}),
                                    Value("CIFAR-5M", lacks="the suite's cifar5m is tested on CIFAR-10's test images"))},
                     "eval", {"net.model_type": "resnet18", "subset": "all", "variant": ""}, metric="accuracy"),
}
