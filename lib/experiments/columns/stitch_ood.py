"""The columns of `exec_stitch_ood.py`: a row per stitch, and one per sanity data set and end layer."""

from lib.runs.columns import Column, Columns, count, share

COLUMNS = Columns(
    words={
        "kind": Column("`stitched` for a stitch, `sanity` for the end network's own representations of other data"),
        "method": Column("how the stitches were made, in words"),
        "front": Column("checkpoint of the front network"),
        "end": Column("checkpoint of the end network"),
        "data": Column("data set whose representations are scored"),
        "split": Column("its split"),
        "id_data": Column("in-distribution data set, which they are compared with"),
        "id_split": Column("its split"),
        "front_layer": Column("layer that the stitch comes from"),
        "end_layer": Column("layer that the stitch replaces, which the detector classifies"),
        "record": Column("record of the stitch"),
        "type": Column("form of the stitch"),
        "init": Column("first weights of the stitch"),
        "solver": Column("solver of `-i pinv`"),
        "energies": Column("name of the energies of the scored representations in the record's .npz"),
        "id_energies": Column("name of the energies of the in-distribution representations in the .npz"),
        "missing": Column("`stitch` or `detector`, where the cell has none"),
        "fill": Column("command that makes what is missing"),
        "detector": Column("file of the detector"),
    },
    numbers={
        "n": count("images whose representations are scored"),
        "n_id": count("in-distribution images"),
        "seed": Column("seed of the stitches"),
        "stitch_rank": count("principal directions of the source that the stitch sees; empty for all", "directions"),
        "pinv_rank": count("principal directions that least squares used; empty for all", "directions"),
        "epochs": count("epochs of task-loss matching; 0 for direct matching", "epochs"),
        "samples": count("training images that activations were matched on"),
        "accuracy": share("share of the images, classified correctly by the stitched network", "higher"),
        "auroc": share(
            "share of pairs in which the scored representation has the higher energy; 0.5: like the network's own"
        ),
        "auroc_two_sided": share("AUROC of |energy − median| / MAD, fitted on training images; 0.5: like the network's own"),
        "aupr_in": share("area under the precision-recall curve, in-distribution as positive"),
        "fpr95": share(
            "share of scored representations at or below the threshold that 95 % of the in-distribution ones pass"
        ),
        "fpr95_nearest_recall": share("the same at the threshold whose recall is nearest to 0.95, as published"),
        "energy_id": Column(
            "mean energy of the in-distribution representations, −log Σ exp of the detector's logits", "nats"
        ),
        "energy": Column("mean energy of the scored representations", "nats"),
    },
    truths={"trained": Column("the stitch was trained by task-loss matching")},
    roles=("front", "end"),
    images=("data", "split"),
    sets=("data",),
)
