"""The columns of `exec_reinit.py`: a row per source of weights and layer, then the rank correlations over layers."""

from lib.runs.columns import DATA, Column, Columns, count, probability, share

COLUMNS = Columns(
    words={
        **DATA,
        "what": Column("what is replaced: `weights`, or `weights+bn` with the batch normalisation behind the layer"),
        "layer": Column("layer that gets other weights; empty in a row of a correlation"),
        "kind": Column("kind of the layer"),
        "source": Column("epoch whose weights the layer gets, or `rand` for fresh ones"),
        "status": Column(
            "`measured`; `unchanged`: the weights are equal; `missing`: no such file; `analysis`: a correlation"
        ),
        "predictor": Column("column that `relative_drop` is correlated with over layers"),
    },
    numbers={
        "n": count("labelled images"),
        "classes": count("classes of the network", "classes"),
        "index": Column("place of the layer in execution order, from 0", "", 0),
        "mass": share("share of the layer's filters whose projection is 0 or below"),
        "bias": Column("|`mass` − 1/2|", "fraction", 0, 0.5),
        "bias_z": Column("|z| of `mass`: `bias` in standard errors", "", 0),
        "abs_mean": Column("|mean cosine of the filters with the all-ones vector|", "", 0, 1),
        "criticality": Column("module criticality after Chatterji, Neyshabur & Sedghi 2020 (`--criticality`)", "", 0),
        "draws": count("draws of fresh weights that the row averages", "draws"),
        "accuracy": share("share of the images, classified correctly with the other weights in the layer", "higher"),
        "accuracy_sd": Column("standard deviation of the accuracy over draws", "fraction", 0),
        "relative_drop": Column(
            "(`intact_accuracy` − `accuracy`) / `intact_accuracy`: 0 for a layer that is not critical", "", None, 1, "lower"
        ),
        "top5_accuracy": share("as `accuracy`, of the five highest logits; empty for 5 classes or fewer", "higher"),
        "se": Column("binomial standard error of `accuracy`", "fraction", 0, 0.5),
        "intact_accuracy": share("share of the images, classified correctly by the network as it is", "higher"),
        "intact_top5_accuracy": share("as `intact_accuracy`, of the five highest logits", "higher"),
        "l2_distance": Column("‖W − W₀‖₂ / ‖W₀‖₂ from the source's weights W₀", "", 0),
        "layers": count("layers that a correlation is over", "layers"),
        "spearman": Column("Spearman's correlation of `predictor` and `relative_drop`", "", -1, 1),
        "p_value": probability("permutation test of `spearman`"),
        "p_least": probability("smallest p that so many layers can have; above 0.05 there is no `p_value`"),
        "partial": Column("`spearman` given the layer's place", "", -1, 1),
        "partial_p": probability("conditional permutation test of `partial` (Berrett et al. 2020)"),
        "partial_p_least": probability("smallest `partial_p` that so many layers can have"),
    },
    truths={"recalibrated": Column("statistics of batch normalisation were computed again (`--recalibrate-bn`)")},
    images=("data", "split", "origin"),
    sets=("data",),
)
