"""The columns of `exec_ood_layers.py`: a row per layer or score, OOD set and temperature, and the exits of an early exit."""

from lib.runs.columns import Column, Columns, count, probability, share

COLUMNS = Columns(
    words={
        "id": Column("in-distribution data set"),
        "id_split": Column("its split"),
        "fit_on": Column("in-distribution images that scales, medians and aggregates are fitted on"),
        "ood": Column("out-of-distribution data set, or a group of them, of which the row is the mean"),
        "ood_split": Column("its split"),
        "variant": Column("corruption and severity of the OOD set"),
        "origin": Column("`official` or `generated`, of a corruption"),
        "group": Column("OpenOOD's group of the OOD set: near or far"),
        "corruption": Column("corruption of the OOD set, without its severity"),
        "members": Column("OOD sets of a group, joined by +"),
        "layer": Column("layer whose energy or pooled output is the score, `all layers`, or the layer that was chosen"),
        "role": Column(
            "role of the layer: convolution, linear, norm, attention, MLP, block, stage, head, activation, pooling"
        ),
        "aliases": Column("layers with the same output, separated by spaces"),
        "kind": Column("class of the layer's module"),
        "score": Column("`energy` of the layer, an aggregate, a baseline of the last layer, a choice, or the early exit"),
        "needs": Column("what data the score needs: nothing, in-distribution images, or outliers"),
        "chosen_layer": Column("layer that the aggregate `oracle` chose, on the test images"),
        "chosen_on": Column("OOD set that layer, and sign, were chosen on"),
        "calibrated_on": Column("images that the threshold of the early exit is calibrated on"),
    },
    numbers={
        "n_id": count("in-distribution test images"),
        "id_accuracy": share("share of the in-distribution test images, classified correctly", "higher"),
        "n_fit": count("images of `fit_on`"),
        "n_ood": count("out-of-distribution images"),
        "severity": Column("severity of the corruption", "", 1, 5),
        "index": Column("place of the layer in the order of registration, from 0", "", 0),
        "execution_index": Column(
            "place in the order of execution, from 0; a layer that runs again (`name@2`) has one for each run", "", 0
        ),
        "dim": count("numbers of the layer's output for an image", "features"),
        "mac_fraction": share("share of the network's multiply-accumulates that are done when the layer has finished"),
        "T": Column("temperature T of the energy −T log Σ exp(output / T)", "", 0),
        "auroc": share(
            "share of pairs in which the outlier has the higher score; 0.5: chance, below: lower for outliers", "higher"
        ),
        "se": Column("standard error of `auroc` (Hanley & McNeil 1982)", "", 0, 0.5),
        "se_delong": Column("standard error of `auroc` (DeLong et al. 1988)", "", 0),
        "ci_low": share("lower end of the 95 % interval of `auroc`"),
        "ci_high": share("upper end of the 95 % interval of `auroc`"),
        "auroc_low": share("lower end of the distribution-free 95 % interval of `auroc` (`--conformal`)"),
        "auroc_high": share("upper end of the distribution-free 95 % interval of `auroc`"),
        "fpr95_low": share("lower end of the distribution-free 95 % interval of `fpr95` (`--conformal`)"),
        "fpr95_high": share("upper end of the distribution-free 95 % interval of `fpr95`; 1 below 86 images of `id`"),
        "sign": Column("1: outliers have the higher score, −1: the lower one", "", -1, 1),
        "auroc_oracle_sign": Column("max(`auroc`, 1 − `auroc`): needs labelled outliers", "fraction", 0.5, 1, "higher"),
        "null_mean": Column("mean of `auroc_oracle_sign` when the images are dealt out anew", "fraction", 0.5, 1),
        "null_q95": Column("95 % quantile of `auroc_oracle_sign` when the images are dealt out anew", "fraction", 0.5, 1),
        "p_null": probability("share of deals with an `auroc_oracle_sign` as high at this layer"),
        "p_best": probability("the same after a look at all layers, signs included: holds for the best of them"),
        "gain_bound": Column(
            "`auroc_oracle_sign` is at least so much above that of the final layer: 95 % for all layers at once",
            "",
            None,
            1,
            "higher",
        ),
        "fpr95": share(
            "share of outliers at or below the threshold that keeps 95 % of the in-distribution images, rounded down",
            "lower",
        ),
        "aupr_in": share("area under the precision-recall curve, in-distribution images as positive", "higher"),
        "aupr_out": share("area under the precision-recall curve, outliers as positive", "higher"),
        "vs_final": Column("`auroc` minus that of the final layer on the same images", "", -1, 1, "higher"),
        "p": probability("paired test of `vs_final` (DeLong et al. 1988)"),
        "p_holm": probability("`p` after Holm's correction over layers, or over scores"),
        "auroc_two_sided": share("AUROC of |energy − median| / MAD, fitted on `fit_on`: needs no sign", "higher"),
        "regret": Column("`auroc` of the best layer minus that of the chosen one", "", None, 1, "lower"),
        "alpha": share("nominal rate of false alarms of the early exit"),
        "n_calibrated": count("images that the early exit is calibrated on"),
        "false_alarms": share("share of in-distribution images flagged up to this exit", "lower"),
        "false_alarms_se": Column("standard error of `false_alarms`", "fraction", 0, 0.5),
        "false_alarms_low": share("lower end of Wilson's 95 % interval of `false_alarms`"),
        "false_alarms_high": share("upper end of Wilson's 95 % interval of `false_alarms`"),
        "detected": share("share of outliers flagged up to this exit", "higher"),
        "exited_id": share("share of in-distribution images that leave at this exit", "lower"),
        "exited_ood": share("share of outliers that leave at this exit", "higher"),
        "mac_id": share(
            "share of the network's multiply-accumulates spent on an in-distribution image, on average", "lower"
        ),
        "mac_ood": share("share of the network's multiply-accumulates spent on an outlier, on average", "lower"),
        "time_id": Column(
            "seconds with early exit over those of the whole network, in-distribution images", "", 0, None, "lower"
        ),
        "time_ood": Column("seconds with early exit over those of the whole network, outliers", "", 0, None, "lower"),
    },
    truths={
        "sign_certain": Column("the 95 % interval of `auroc` leaves out 0.5"),
        "sign_agrees": Column("the certain signs of all OOD sets are the same; empty for fewer than two"),
        "in_best_set": Column("with 95 % one of the layers that have this has the highest `auroc_oracle_sign`"),
        "in_best_set_two_sided": Column("with 95 % one of the layers that have this has the highest `auroc_two_sided`"),
        "seen_in_training": Column("the network was trained on the OOD set, on classes of it, or against these outliers"),
    },
    images=("origin", "id", "id_split", "ood", "ood_split", "members", "fit_on"),
    sets=("id", "ood", "members"),
)
