"""The columns of `exec_projections.py`: a row per checkpoint and layer, and one for all filters of a checkpoint (`net`)."""

from lib.runs.columns import Column, Columns, count, probability, share

COLUMNS = Columns(
    words={
        "checkpoint": Column("checkpoint, or `random` or `pretrained` for a fresh or published network"),
        "layer": Column("layer that holds the filters; `net` for all of them together"),
        "stage": Column("stage of the network as the paper counts; empty for what it leaves out, such as 1x1 convolutions"),
        "block": Column("block of the stage as the paper counts"),
        "kind": Column("kind of the layer; `net` for all of them together"),
        "aliases": Column("layers with the same filters, separated by spaces; `net` and Holm's correction count them once"),
    },
    numbers={
        "draw": Column("number of the fresh network; empty for a checkpoint", "", 0),
        "epoch": Column("finished epochs; −1 for published weights", "epochs", -1),
        "filters": count("filters of the layer", "filters"),
        "dim": count("weights of a filter", "weights"),
        "counted": count("filters that have an orientation", "filters"),
        "mean": Column("mean projection: sum of the weights, or with `--normalize` cosine with the all-ones vector"),
        "mass": share("share of the filters whose projection is 0 or below; 0.5 without bias"),
        "mass_low": share("lower end of the exact 95 % interval of `mass`"),
        "mass_high": share("upper end of the exact 95 % interval of `mass`"),
        "p_value": probability("exact two-sided binomial test of `mass` against 1/2"),
        "z": Column("(`mass` − 1/2) 2 √`counted`: `mass` in standard errors from 1/2"),
        **{f"q{level:02d}": Column(f"{level} % quantile of the projections") for level in (5, 25, 50, 75, 95)},
        "l2_distance": Column("‖W − W₀‖₂ / ‖W₀‖₂ from the initial weights W₀", "", 0),
        "linf_distance": Column("‖W − W₀‖∞ / ‖W₀‖∞ from the initial weights W₀", "", 0),
        "p_holm": probability("`p_value` after Holm's correction over the layers of the checkpoint"),
    },
    truths={"folded": Column("a batch normalisation is multiplied into the filters (`--fold-bn`)")},
    network="checkpoint",
)
