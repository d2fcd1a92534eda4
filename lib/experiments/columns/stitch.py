"""The columns of `exec_stitch.py`: a row per pair of layers and of ranks."""

from lib.runs.columns import Column, Columns, count, probability, share

THRESHOLDS = ("0", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1")

COLUMNS = Columns(
    words={
        "null": Column(
            "empty for a stitch; `untrained`, `shuffled`, `clustered noise` or `sender PATH` for a baseline of `--null`"
        ),
        "front_layer": Column("layer of the front network whose output goes into the stitch"),
        "end_layer": Column("layer of the end network whose output the stitch replaces"),
        "front_aliases": Column("layers of the front network with the same output, separated by spaces"),
        "end_aliases": Column("layers of the end network with the same output, separated by spaces"),
        "type": Column("form of the stitch, such as c2c, a 1x1 convolution between maps"),
        "init": Column("first weights: rand, pinv (least squares), perm (a permutation), eye (identity), ones, zeros"),
        "solver": Column("solver of `-i pinv`: exact or reference"),
        "pinv_basis": Column("what the directions that `--front-pinv-rank` keeps are of"),
        "data": Column("name of the data set that is tested on"),
        "split": Column("split that is tested on"),
        "taken_from": Column("record whose stitch, trained alike, was used instead of training again"),
        "match_at": Column("layer of the end network that the stitch is trained to match at, with `--match-at`"),
        "missing": Column("reason why no stitch joins the two layers"),
    },
    numbers={
        "samples": count("training images that `-i pinv` and `perm` match activations on"),
        "stitch_rank": count("principal directions of the source that the stitch sees; empty for all", "directions"),
        "pinv_rank": count("principal directions that least squares uses; empty for all", "directions"),
        "matching_residual": Column("‖ZV − Y‖² / ‖Y‖² over the images matched on", "", 0, None, "lower"),
        "effective_rank": count("directions that least squares used", "directions"),
        "condition": Column(
            "largest over smallest eigenvalue of the source's covariance that least squares used", "", 0, None, "lower"
        ),
        "accuracy": share("share of the test images, classified correctly by the stitched network", "higher"),
        "relative_accuracy": Column("`accuracy` / `end_accuracy`", "", 0, None, "higher"),
        "penalty": Column("`end_accuracy` − `accuracy`", "fraction", -1, 1, "lower"),
        "agreement": share("share of the test images that stitched and end network put into the same class", "higher"),
        "normalized_difference": Column(
            "‖S − E‖² / ‖E‖² over the test images, S stitched, E the end layer's own", "", 0, None, "lower"
        ),
        "normalized_difference_batch_mean": Column(
            "the same by batch, averaged, as in the published code", "", 0, None, "lower"
        ),
        "r2": Column("share of the variance of the end layer's output that the stitch explains", "", None, 1, "higher"),
        **{
            f"sparsity_{name}": share(f"share of the stitch's weights and biases whose magnitude is at most {name}")
            for name in THRESHOLDS
        },
        "accuracy_null_mean": share("mean of `accuracy` over the permutations of the labels (`--permutations`)"),
        "accuracy_null_q95": share("`accuracy` that 95 % of the permutations do not exceed"),
        "accuracy_p_null": probability("share of permutations with as high an `accuracy`; of this row alone, one-sided"),
        "accuracy_p_best": probability("the same after a look at all stitches: holds for the best of them"),
        "matching_residual_null_mean": Column(
            "mean of `matching_residual` over permutations of the end network's images (`--permutations`)", "", 0
        ),
        "matching_residual_null_q95": Column("`matching_residual` that 95 % of the permutations are not below", "", 0),
        "matching_residual_p_null": probability(
            "share of permutations with as low a `matching_residual`; of this row alone, one-sided"
        ),
        "matching_residual_p_best": probability("the same after a look at all stitches: holds for the best of them"),
        "end_accuracy": share("share of the test images, classified correctly by the end network itself", "higher"),
        "n": count("test images"),
        "epochs": count("epochs of task-loss matching; 0 for direct matching", "epochs"),
        "seed": Column("seed of the run"),
        "stitch": Column("number of the stitch's weights in the record's .npz", "", 0),
    },
    truths={"trained": Column("the stitch was trained by task-loss matching")},
    images=("data", "split"),
    sets=("data",),
)
