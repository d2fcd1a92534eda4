"""Uselis & Oh, "Intermediate Layer Classifiers for OOD Generalization", ICLR 2025.

The last layer is the penultimate one of the network, where last-layer retraining has its probe; the best layer is chosen on
OOD validation images. On data with groups the measure is the accuracy of the worst one.
"""

from dataclasses import replace

from lib.datasets.corruptions import CORRUPTIONS
from lib.tables.papers.spec import PaperTable, Value

NESTEROV = {"net.optimizer": "sgd", "net.nesterov": True, "net.momentum": 0.9}
RESNET_LAYERS = {"config.layers": ["relu", "maxpool", "layer?", "avgpool"]}
POOLS_WITHOUT_LAYERS = {"config.layers": ["bn1", "layer?"]}  # pytorch-cifar's: its last place is layer4, unpooled
VIT_LAYERS = {"config.layers": ["blocks.?", "blocks.??", "norm"]}
# trainings of the checkpoints that the paper took, section 4 of the page
CIFAR10 = {
    "net.model_type": "cifar_resnet18_maxpool",
    **NESTEROV,
    "net.learning_rate": 0.01,
    "net.weight_decay": 0.01,
    "net.batch_size": 256,
    "net.epochs": 100,
    "net.schedule": "cosine",
    "net.warmup": 30,
}
CIFAR100 = {
    "net.model_type": "pytorch_cifar_resnet18",
    **NESTEROV,
    "net.learning_rate": 0.1,
    "net.weight_decay": 5e-4,
    "net.epochs": 200,
    "net.schedule": "cosine",
}
WATERBIRDS = {
    "net.model_type": "tv_resnet50",
    "net.pretrained": True,
    "net.optimizer": "sgd",
    "net.learning_rate": 1e-3,
    "net.weight_decay": 1e-3,
    "net.batch_size": 32,
    "net.epochs": 100,
}
CELEBA = {**WATERBIRDS, "net.weight_decay": 1e-4, "net.batch_size": 128, "net.epochs": 50}
VIT = dict.fromkeys((*CIFAR10, *CIFAR100))  # which ViTs the paper took, and how they were trained, was not found
# the probes' search, section 2.2
ZERO_SHOT = {"config.epochs": 100, "config.learning_rate": [1e-4, 1e-3, 1e-2], "config.l1": [0.0, 1e-3, 1e-2]}
FEW_SHOT = {**ZERO_SHOT, "config.l1": [0.0, 1e-4, 1e-3, 1e-2]}


def shift(
    label: str,
    name: str,
    setup: dict,
    *,
    corrupted: bool = False,
    model: str = "*",
    group=("all",),
    layers: dict = RESNET_LAYERS,
) -> Value:
    """A heading for a data set with its shift: its test images corrupted in all ways, or as they are."""
    data = f"{name}-c" if corrupted else name
    where = {"net.dataset": name, "data": (data, name), "variant": ("mean", "", None), "net.model_type": model}
    measure = {"config.metric": "accuracy"} if group == ("all",) else {}
    return Value(label, {**where, "group": group}, setup, {"config.ood": [data], **layers, **measure})


def each(*values: Value) -> tuple[Value, ...]:
    """The same headings where rows are of a corruption each: what a choice gained alone has a row for their mean."""
    return tuple(replace(value, where=value.where | {"variant": ("*-5", "", None)}) for value in values)


CMNIST = shift("CMNIST", "cmnist", {}, layers={"net.model_type": "resnet20"})  # which network the paper took was not found
WORST = "worst", "worst: *"  # in rows on what a choice gained, and in those of a layer
BIRDS = shift("Waterbirds", "waterbirds", WATERBIRDS, group=WORST)
FACES = shift("CelebA", "celeba", CELEBA, group=WORST)
MULTI = shift("MultiCelebA", "multiceleba", {"net.model_type": "tv_resnet18"}, group=WORST)
C10 = shift("CIFAR-10-C", "cifar10", CIFAR10, corrupted=True)
C100 = shift("CIFAR-100-C", "cifar100", CIFAR100, corrupted=True, layers=POOLS_WITHOUT_LAYERS)
GROUPED = (BIRDS, FACES, MULTI)
ARCHITECTURES = (
    Value("ResNet", {"net.model_type": "*resnet*"}),
    Value("ViT", {"net.model_type": "vit*"}, VIT, {"net.model_type": "vit_tiny_patch4_32", **VIT_LAYERS}),
)

UNPOOLED = "The last layer of CIFAR-100's ResNet-18 is layer4, unpooled: its pool is no module."
GAIN = {"probe": "gain", "network": "trained", "selected_by": "ood-val"}
BOTH = (
    Value("last layer", metric="baseline"),
    Value("best layer", metric="accuracy"),
    Value("gain", metric="gain", interval=("gain_low", "gain_high")),
)
HEAD = Value("base head", {"probe": "head", "selected_by": None}, metric="accuracy")


def protocol(name: str, fraction: float | None = None) -> dict:
    """The flags of a protocol; batches are the notebooks', the paper's were not found."""
    return {"config.protocol": name, "config.batch_size": 256} | (
        {} if fraction is None else {"config.fraction": [fraction]}
    )


def panels() -> tuple[Value, ...]:
    """The bars of Figure 1; its few-shot ones are at different shares of the OOD data."""
    few = {"protocol": ("few-shot", "full-ood"), "fraction": (0.25, None)}
    inside = {"probe": "probe", "protocol": "id", "selected_by": "id-val", "group": ("all", "adjusted")}
    return (
        Value(
            "ID last layer",
            inside,
            run={**protocol("id"), "config.select": ["id-val"], "config.ood": []},
            metric=last_accuracy,
        ),
        *(
            Value(f"{word} {layer}", where, setup, run, metric=metric)
            for word, where, setup, run in (
                ("zero-shot", {"protocol": "zero-shot"}, ZERO_SHOT, protocol("zero-shot")),
                ("few-shot", few, FEW_SHOT, protocol("few-shot", 0.25)),
            )
            for layer, metric in (("last layer", "baseline"), ("best layer", "accuracy"))
        ),
    )


def mean_accuracy(rows: list[dict]) -> float:
    """The mean over the corruptions of one run."""
    return sum(row["accuracy"] for row in rows) / len(rows)


def last_accuracy(rows: list[dict]) -> float:
    """That of the last row: of the last layer, of what a rule chose, of groups weighted as in training if there are any."""
    return rows[-1]["accuracy"]


def kinds() -> tuple[Value, ...]:
    """A heading per corruption at severity 5."""
    return tuple(Value(kind, {"variant": f"{kind}-5"}) for kind in sorted(CORRUPTIONS))


NOTEBOOK = {"net.dataset": "cifar10", "data": "cifar10-c", "group": "all"}
NOTEBOOK_RUN = {"config.ood": ["cifar10-c"], **RESNET_LAYERS}
NOTEBOOK_SETUP = {
    **CIFAR10,
    "config.epochs": 50,
    "config.learning_rate": [1e-3],
    "config.l2_norm": [1e-3],
    "config.batch_size": 256,
}
PER_LAYER = {"probe": "probe", "network": "trained", "selected_by": "ood-val"}
TVD = {"probe": "sensitivity", "network": "trained"}

TABLES = {
    "fig1": PaperTable(
        "last layer and best layer, in distribution, zero-shot and few-shot (Figure 1)",
        {"data": (CMNIST, shift("CIFAR-10", "cifar10", CIFAR10, corrupted=True), BIRDS, FACES), "bar": panels()},
        "probe",
        GAIN,
        note="In distribution, groups of the test images are weighted as in training.",
    ),
    "table2": PaperTable(
        "the data sets (Table 2): test images",
        {
            "data": tuple(
                Value(
                    label,
                    {"data": name.partition("/")[0], "variant": name.partition("/")[2]},
                    run={"config.arguments": [name]},
                )
                for label, name in (
                    ("CMNIST", "cmnist"),
                    ("Waterbirds", "waterbirds"),
                    ("CelebA", "celeba"),
                    ("MultiCelebA", "multiceleba"),
                    ("CIFAR-10-C", "cifar10-c/fog-5"),
                    ("CIFAR-100-C", "cifar100-c/fog-5"),
                    ("ImageNet-A", "imagenet-a"),
                    ("ImageNet-R", "imagenet-r"),
                    ("cue-conflict", "cue-conflict"),
                    ("silhouette", "silhouette"),
                )
            )
        },
        "data",
        {"subset": "all", "split": "test"},
        run={"config.action": "show"},
        metric="n",
    ),
    "fig3": PaperTable(
        "information content: probes given the whole OOD validation set (Figure 3)",
        {"data": (CMNIST, C10, C100, MULTI), "network": ARCHITECTURES, "layer": BOTH},
        "probe",
        {**GAIN, "protocol": "full-ood"},
        FEW_SHOT,
        protocol("full-ood"),
        note=UNPOOLED,
    ),
    "fig4": PaperTable(
        "data efficiency: against the share of OOD images (Figure 4)",
        {
            "data": (CMNIST, C10, C100, *GROUPED),
            "share": tuple(
                Value(f"{share:g}", {"fraction": share}, run={"config.fraction": [share]})
                for share in (0.01, 0.03, 0.05, 0.1, 0.25)
            ),
            "layer": BOTH,
        },
        "probe",
        {**GAIN, "protocol": "few-shot"},
        FEW_SHOT,
        protocol("few-shot"),
        note=UNPOOLED,
    ),
    "fig5": PaperTable(
        "zero-shot accuracy of the worst group (Figure 5)",
        {"data": GROUPED, "layer": (HEAD, *BOTH)},
        "probe",
        {**GAIN, "protocol": "zero-shot"},
        ZERO_SHOT,
        protocol("zero-shot"),
    ),
    "fig6": PaperTable(
        "zero-shot accuracy, mean of 19 corruptions (Figure 6)",
        {
            "data": (C10, C100),
            "network": (Value("ResNet-18", {"net.model_type": "*resnet18*"}), ARCHITECTURES[1]),
            "layer": BOTH,
        },
        "probe",
        {**GAIN, "protocol": "zero-shot"},
        ZERO_SHOT,
        protocol("zero-shot"),
        note=UNPOOLED,
    ),
    "fig7": PaperTable(
        "zero-shot accuracy on variants of ImageNet (Figure 7)",
        {
            "data": tuple(
                Value(label, {"data": name}, run={"config.dataset": inside, "config.ood": [name]})
                for label, name, inside in (
                    ("ImageNet-A", "imagenet-a", "imagenet200a"),
                    ("ImageNet-R", "imagenet-r", "imagenet200"),
                    ("cue-conflict", "cue-conflict", "imagenet16"),
                    ("silhouette", "silhouette", "imagenet16"),
                )
            ),
            "layer": BOTH,
        },
        "probe",
        {**GAIN, "protocol": "zero-shot", "net.dataset": "imagenet", "net.model_type": "tv_resnet50"},
        {**ZERO_SHOT, "net.pretrained": True, "net.max_examples": None, "net.file": None},  # a training's init.pt
        protocol("zero-shot"),
    ),
    "fig8": PaperTable(
        "accuracy per layer (Figure 8)",
        {
            "data": each(CMNIST, C10, *GROUPED),
            "protocol": (
                Value("few-shot", {"protocol": ("few-shot", "full-ood")}, FEW_SHOT, protocol("full-ood")),
                Value("zero-shot", {"protocol": "zero-shot"}, ZERO_SHOT, protocol("zero-shot")),
            ),
            "layer": "layer",
        },
        "probe",
        PER_LAYER,
        metric=mean_accuracy,
    ),
    "fig9": PaperTable(
        "sensitivity score S per layer and group (Figure 9)",
        {
            "data": tuple(replace(value, where=value.where | {"group": "*"}) for value in (FACES, MULTI, BIRDS)),
            "layer": "layer",
            "group": "group",
        },
        "probe",
        TVD,
        run={"config.sensitivity": True, **protocol("zero-shot")},
        metric="s",
        interval=("s_null_low", "s_null_high"),
        note="The interval of a single run is that of no displacement.",
    ),
    "fig10": PaperTable("principal components of features (Figure 10)", lacks="no experiment draws it"),
    "table3": PaperTable(
        "few-shot against other methods (Table 3)",
        {
            "data": (C10, C100, *GROUPED),
            "method": (
                Value("last-layer retraining", metric="baseline"),
                Value("ILC", metric="accuracy"),
                Value(
                    "DFR",
                    {"probe": "dfr-gain"},
                    run={"config.baselines": ["dfr"], "config.reduce": ["gap"]},
                    metric="baseline",
                ),
                Value("multi-objective", lacks="no experiment of the suite trains it"),
            ),
        },
        "probe",
        {**GAIN, "protocol": "full-ood"},
        FEW_SHOT,
        protocol("full-ood"),
        note=UNPOOLED,
    ),
    "table4": PaperTable(
        "zero-shot against other methods (Table 4)",
        {
            "data": GROUPED,
            "method": (
                Value("ILC", metric="accuracy"),
                Value("last layer", metric="baseline"),
                *(
                    Value(name, lacks="no experiment of the suite trains it")
                    for name in ("JTT", "DFR", "Correct-n-Contrast")
                ),
            ),
        },
        "probe",
        {**GAIN, "protocol": "zero-shot"},
        ZERO_SHOT,
        protocol("zero-shot"),
    ),
    "fig18": PaperTable(
        "in- and out-of-distribution accuracy by depth (Figure 18, App. B.1.1)",
        {
            "data": each(C10, C100),
            "images": (
                Value(
                    "ID",
                    {"protocol": "id", "selected_by": ("none", "id-val")},
                    run={**protocol("id"), "config.ood": []},
                    metric=last_accuracy,
                ),
                Value("OOD", {"protocol": "zero-shot"}, run=protocol("zero-shot")),
            ),
            "layer": "layer",
        },
        "probe",
        PER_LAYER,
        metric=mean_accuracy,
    ),
    "fig22": PaperTable(
        "neural collapse by depth: Papyan's within over between (Figures 22, 23, App. C.1)",
        {
            "data": each(C10, C100),
            "images": (Value("ID", {"split": "train"}), Value("OOD", {"split": "test"})),
            "layer": "layer",
        },
        "probe",
        {"probe": "collapse", "network": "trained", "group": "all"},
        run={**protocol("zero-shot"), "config.baselines": ["collapse"]},
        metric=lambda rows: (
            sum(row["nc1"] for row in rows) / len(rows) if None not in (row["nc1"] for row in rows) else None
        ),
        note="Which index the paper takes was not found.",
    ),
    "table7": PaperTable(
        "control: features reduced to 512 principal components (Table 7, App. C.3)",
        {"data": (C10, C100, *GROUPED), "layer": BOTH},
        "probe",
        {**GAIN, "protocol": "zero-shot", "reduce": "pca:512"},
        ZERO_SHOT,
        {**protocol("zero-shot"), "config.reduce": ["pca:512"]},
    ),
    "appendix-c2": PaperTable(
        "MLP probes (App. C.2)",
        {"data": (C10, C100, *GROUPED), "layer": BOTH},
        "probe",
        {**GAIN, "probe": "mlp-gain", "protocol": "zero-shot"},
        ZERO_SHOT,
        {**protocol("zero-shot"), "config.baselines": ["mlp"]},
    ),
    "appendix-c4": PaperTable(
        "layer and settings chosen on other shifts (App. C.4)",
        {"data": (C10, C100), "layer": BOTH},
        "probe",
        {**GAIN, "protocol": "zero-shot", "selected_by": "transfer"},
        ZERO_SHOT,
        {**protocol("zero-shot"), "config.select": ["transfer"]},
        note="The paper transfers between data sets, here between the corruptions of one.",
    ),
    "notebook-waterbirds": PaperTable(
        "Waterbirds, zero-shot, test images (saved notebook)",
        {
            "layer": tuple(
                Value(layer, {"probe": "probe", "selected_by": "ood-val", "layer": layer})
                for layer in ("maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
            )
            + (HEAD,),
            "group": (
                Value("accuracy", {"group": "all"}),
                *(
                    Value(name, {"group": pattern})
                    for name, pattern in (
                        ("land/land", "landbird*land"),
                        ("land/water", "landbird*water"),
                        ("water/land", "waterbird*land"),
                        ("water/water", "waterbird*water"),
                    )
                ),
                Value("worst group", {"group": "worst: *"}),
            ),
        },
        "probe",
        {"net.dataset": "waterbirds", "data": "waterbirds", "protocol": "zero-shot", "network": "trained"},
        {**WATERBIRDS, "config.epochs": 50, "config.learning_rate": [1e-4], "config.l1": [1e-2], "config.batch_size": 256},
        {"config.ood": ["waterbirds"], "config.layers": ["maxpool", "layer?", "avgpool"]},
        metric="accuracy",
    ),
    "notebook-zero-shot": PaperTable(
        "CIFAR-10-C at severity 5, zero-shot: gain of the best layer (saved notebook)",
        {"corruption": (*kinds(), Value("mean", {"variant": "mean"})), "measure": (BOTH[2],)},
        "probe",
        {**NOTEBOOK, **GAIN, "protocol": "zero-shot"},
        NOTEBOOK_SETUP,
        {**NOTEBOOK_RUN, **protocol("zero-shot"), "config.roles": "paper", "config.warm_start": True},
        note="The notebook's gain is over the better of head and last probe, ours over the last probe; its images were "
        "normalised wrongly.",
    ),
    "notebook-head": PaperTable(
        "CIFAR-10-C at severity 5: the network as it is (saved notebook)",
        {"corruption": kinds(), "measure": (HEAD,)},
        "probe",
        {**NOTEBOOK, "network": "trained", "protocol": "zero-shot"},
        CIFAR10,
        {**NOTEBOOK_SETUP, **NOTEBOOK_RUN, **protocol("zero-shot")},
    ),
    "notebook-few-shot": PaperTable(
        "CIFAR-10-C at severity 5, few-shot, one probe for all corruptions (saved notebook)",
        {"corruption": (*kinds(), Value("mean", {"variant": "mean"})), "measure": (BOTH[2],)},
        "probe",
        {**NOTEBOOK, **GAIN, "protocol": "few-shot", "selected_by": "oracle", "config.tuning": "shared"},
        {**CIFAR10, "config.epochs": 100, "config.learning_rate": [1e-3], "config.l1": [1e-4], "config.batch_size": 256},
        {**NOTEBOOK_RUN, **protocol("few-shot"), "config.roles": "paper", "config.select": ["oracle"]},
    ),
    "notebook-sensitivity": PaperTable(
        "TVD of unpooled units, clean against corrupted test images (saved notebook)",
        {"corruption": kinds(), "layer": "layer"},
        "probe",
        {**NOTEBOOK, **TVD},
        CIFAR10,
        {**NOTEBOOK_RUN, **protocol("zero-shot"), "config.sensitivity": True},
        metric="tvd",
        note="Here against training images; the notebook takes clean test images.",
    ),
}
