"""The columns of `exec_ncg.py`: a row per network, images and space, by distance quintile, and over corruptions."""

from lib.runs.columns import DATA, Column, Columns, count, probability, share

COLUMNS = Columns(
    words={
        "model": Column("checkpoint of the network"),
        "architecture": Column("type of the network"),
        "loss": Column("loss that it was trained with, by its sidecar"),
        "against": Column("checkpoint that it is compared with image by image (`--against`)"),
        "train": Column("training set in which neighbours are searched"),
        **DATA,
        "space": Column("where distances are taken: pixel or feature"),
        "layer": Column("layer of the feature space"),
        "backbone": Column("checkpoint that makes the features"),
        "subset": Column(
            "`all`; `quintile:1` (nearest) to `quintile:5`; `radius`; `slope` over the levels of a corruption; `cells` over "
            "all corruptions"
        ),
        "at": Column("where the distance to the boundary is measured: `neighbours` or `images`; of `radius` only"),
    },
    numbers={
        "epoch": count("finished epochs of the network", "epochs"),
        "network_seed": Column("seed of its training"),
        "n_train": count("training images among which neighbours are searched"),
        "n": count("images of the row"),
        "hits": count("images that the network answers with the label of the nearest training image"),
        "ncg": share("`hits` / `n`: nearest-category generalisation"),
        "ncg_low": share("lower end of Wilson's 95 % interval of `ncg`"),
        "ncg_high": share("upper end of Wilson's 95 % interval of `ncg`"),
        "sum_squared_distance": Column("sum of squared distances to the nearest images, in the units of the search", "", 0),
        "mean_distance": Column("mean Euclidean distance to the nearest training image; of pixels in [0, 1]", "", 0),
        "near_ties": share("share of the images whose second nearest class is farther by less than 10⁻⁵ of its distance"),
        "chance": share("1 / classes: `ncg` of answers by chance"),
        "majority": share("share of the most frequent nearest label: `ncg` of the best constant answer"),
        "independence": share("`ncg` if answers and nearest labels were independent"),
        "kappa": Column("Cohen's κ of answers and nearest labels: 0 if independent", "", -1, 1),
        "chi2": Column("statistic of the paper's test of `hits` against `chance`", "", 0),
        "p_chi2": probability("p of `chi2`, two-sided"),
        "p_permutation": probability("one-sided permutation test of `hits`, margins kept"),
        "null_mean": share("mean of `ncg` over the permutations of `--null`"),
        "null_q95": share("`ncg` that 95 % of the permutations of `--null` do not exceed"),
        "p_null": probability("share of permutations with as high an `ncg`; of this row alone, one-sided"),
        "p_best": probability("the same after a look at all rows `all`: holds for the best of them"),
        "accuracy": share(
            "share of the images, classified correctly; empty where they have no label of the network's", "higher"
        ),
        "accuracy_1nn": share("share of the images whose nearest training image has their label", "higher"),
        "accuracy_hits": share("accuracy on the images that are hits", "higher"),
        "accuracy_misses": share("accuracy on the other images", "higher"),
        "p_welch": probability("Welch's one-sided test that hits are more accurate than misses"),
        "ncg_against": share("`ncg` of the network of `--against` on the same images"),
        "gained": count("images that only this network hits"),
        "lost": count("images that only the network of `--against` hits"),
        "p_paired": probability("exact binomial test of `gained` against `lost`"),
        "eps": Column("radius of the attack in its training, for images in [0, 1]", "", 0),
        "n_cells": count("corruptions and levels that a row of `cells` is over", "cells"),
        "r_distance_accuracy": Column("Pearson's r of `mean_distance` and `accuracy` over cells", "", -1, 1),
        "welch": count("cells with `p_welch` below 0.05", "cells"),
        **{
            f"welch_quintile_{number}": count(f"cells with `p_welch` below 0.05 in distance quintile {number}", "cells")
            for number in range(1, 6)
        },
        "cells_above": count("cells in which `ncg` is higher than `ncg_against`", "cells"),
        "difference": Column("mean over cells of `ncg` − `ncg_against`", "fraction", -1, 1),
        "difference_se": Column("standard error of `difference` over cells", "fraction", 0),
        "ratio": Column("mean over cells of `ncg` / `ncg_against`", "", 0),
        "ratio_se": Column("standard error of `ratio` over cells", "", 0),
        "slope_ncg": Column("slope of `ncg` over severity / 4, by least squares", "fraction"),
        "slope_ncg_se": Column("standard error of `slope_ncg`", "fraction", 0),
        "slope_accuracy": Column("slope of `accuracy` over severity / 4, by least squares", "fraction"),
        "slope_accuracy_se": Column("standard error of `slope_accuracy`", "fraction", 0),
        **{
            f"p_slope_{side}_{measure}": probability(
                f"t-test of `slope_{measure}` of the network of `--against` {against} that of the network itself"
            )
            for measure in ("ncg", "accuracy")
            for side, against in (("less", "above"), ("two_sided", "against"))
        },
        "attack_success": share("share of the points at which an attack found another answer"),
        "radius_mean": Column("mean L2 distance to the boundary where an attack succeeded", "", 0),
        "radius_median": Column("median L2 distance to the boundary, lower bounds among them", "", 0),
        "radius_km": Column("mean L2 distance by Kaplan-Meier, failures as censored", "", 0),
        "covered": share("share of the points whose neighbour is nearer than the boundary"),
        "segment_unchanged": share("share of the images with one answer on the whole segment to their neighbour"),
        "n_candidates": count("points that could be measured at"),
        "n_attached": count("images that belong to the points measured at"),
        "won_ddn": count("points at which DDN found the smallest change", "points"),
        "won_fab": count("points at which FAB found the smallest change", "points"),
    },
    truths={
        "in_distribution": Column("the images are of the classes that the network was trained on: its test images"),
        "seen_in_training": Column("the network's training had images of these classes, by its sidecar; empty without one"),
    },
    network="model",
    images=("data", "split", "origin", "train"),
    sets=("data", "train"),
)
