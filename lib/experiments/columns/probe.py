"""The columns of `exec_probe.py`: a row per probe, rule, OOD set and group, and one per gain of choosing a layer."""

from lib.runs.columns import DATA, Column, Columns, count, probability, share

_NULLS = {
    "s": "the paper's S: mean distance from training to OOD images over that within the training images, less 1",
    "s_moments": "S with squared distances",
    "energy_distance": "energy distance of training and OOD images, relative to the distance between them",
}

COLUMNS = Columns(
    words={
        "probe": Column("`probe`; a baseline such as head, class-means, mlp or dfr; `gain`; `sensitivity`; `collapse`"),
        "network": Column("`trained`, or `untrained` for the fresh network of `--untrained`"),
        "layer": Column("layer whose output the probe reads; the chosen ones, in a row `gain`"),
        "role": Column(
            "role of the layer: convolution, linear, norm, attention, MLP, block, stage, head, activation, pooling"
        ),
        "aliases": Column("layers with the same output, separated by spaces"),
        "reduce": Column("how the output becomes a vector: flatten, gap, gmp, grid:K, cls, mean-token, random:K or pca:K"),
        **DATA,
        "group": Column(
            "`all`, a group, `worst: NAME` or `adjusted` (groups weigh as in training); `worst` in a row `gain`"
        ),
        "protocol": Column("id, zero-shot, few-shot or full-ood"),
        "solver": Column("solver of the probe: adam, sgd, lbfgs, ridge or prox"),
        "selected_by": Column("rule that chose settings and layer; `none` where nothing was chosen"),
        "choice": Column("how, and on which images, was chosen"),
        "best_set": Column("layers of which one has the best probe with 95 %, separated by spaces; of rows `gain`"),
        "over": Column("what the interval of `gain` is over: images, or seeds and images"),
    },
    numbers={
        "dim": count("features that the probe reads", "features"),
        "rank": count("principal directions that the features are limited to (`-ranks`)", "directions"),
        "lr": Column("learning rate of the probe", "", 0),
        "l1": Column("weight of the penalty ‖W‖₁", "", 0),
        "l2": Column("weight of the penalty ‖W‖² / 2", "", 0),
        "l2_norm": Column("weight of the penalty ‖W‖", "", 0),
        "seed": Column("seed of the probe"),
        "epoch": count("epochs that the probe was trained for", "epochs"),
        "fraction": share("share of the OOD images that is learnt from (`--fraction`)"),
        "n": count("images that the row tests on, per seed"),
        "n_learnt": count("images that the probe learns from, per seed"),
        "n_validated": count("images that settings and layer are chosen on, per seed"),
        "n_seeds": count("seeds that the row joins", "seeds"),
        "correct": count("test images classified correctly"),
        "accuracy": share("`correct` / `n`; of a row `gain` the metric of the chosen layer, the mean over seeds", "higher"),
        "se": Column("standard error of `accuracy`: binomial, or between seeds where the row joins several", "fraction", 0),
        "baseline": share("the metric of the last layer's probe, which searched through the same settings", "higher"),
        "gain": Column("`accuracy` − `baseline`", "fraction", -1, 1, "higher"),
        "gain_low": Column("lower end of the 95 % interval of `gain`", "fraction", -1, 1),
        "gain_high": Column("upper end of the 95 % interval of `gain`", "fraction", -1, 1),
        "gain_bound": Column(
            "the chosen layer is at least so much above the last one: 95 % for all layers at once",
            "fraction",
            None,
            1,
            "higher",
        ),
        "null_mean": Column(
            "mean over the exchanges of `--null` of what the layer's metric is above the last one's", "fraction", -1, 1
        ),
        "null_q95": Column(
            "gain over the last layer that 95 % of the exchanges of `--null` do not exceed", "fraction", -1, 1
        ),
        "p_null": probability("share of exchanges with as high a gain over the last layer; of this layer alone, one-sided"),
        "p_best": probability("the same after a look at all layers: holds for the best of them"),
        "gain_median": Column("median of the gains of the OOD sets; in the row of their mean", "fraction", -1, 1, "higher"),
        "candidates": count("settings and layers that were searched through", "candidates"),
        "strength": Column("C of deep feature reweighting: the inverse of its penalty", "", 0),
        "nc1": Column("within-class over between-class variance (Papyan et al. 2020): 0 when collapsed", "", 0),
        **{
            name: column
            for score, meaning in _NULLS.items()
            for name, column in {
                score: Column(f"{meaning} (`--sensitivity`)"),
                f"{score}_null_low": Column(f"2.5 % quantile of `{score}` when the images are divided at random"),
                f"{score}_null_high": Column(f"97.5 % quantile of `{score}` when the images are divided at random"),
            }.items()
        },
        "tvd": share("total variation of training and OOD images: histograms, mean over units"),
        "tvd_null": share("mean of `tvd` when the images are divided at random"),
        "tvd_debiased": Column(
            "total variation without the floor of sampling: about 0 for equal distributions", "", None, 1
        ),
        "row_space": share("share of the squared mean displacement that lies in the row space of the probe's weights"),
    },
    truths={
        "chosen": Column("the rule chose this layer"),
        "in_best_set": Column("with 95 % one of the layers that have this has the best probe, by the metric of the row"),
    },
    images=("data", "split", "origin"),
    sets=("data",),
)
