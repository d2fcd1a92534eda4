"""The columns of `exec_similarity.py`: a row per pair of layers and of ranks."""

from lib.runs.columns import Column, Columns, count, probability, share

INDICES = {
    "cka": Column("linear centred kernel alignment (Kornblith et al. 2019), the biased form", "", 0, 1, "higher"),
    "cka_debiased": Column(
        "CKA with unbiased estimates (Nguyen et al. 2021); 0 on average if independent", "", None, 1, "higher"
    ),
    "pwcca": Column("1 − projection-weighted canonical correlation (Morcos et al. 2018), a distance", "", 0, 1, "lower"),
    "procrustes": Column("orthogonal Procrustes distance after centring and scaling to norm 1, squared", "", 0, 2, "lower"),
    "svcca": Column("mean canonical correlation of the directions with 99 % of the variance", "", 0, 1, "higher"),
    "mean_cca": Column("mean of all canonical correlations", "", 0, 1, "higher"),
    "rsa": Column("correlation of the distances between images on either side (RSA)", "", -1, 1, "higher"),
    "knn_jaccard": Column("mean Jaccard overlap of the nearest neighbours of an image on either side", "", 0, 1, "higher"),
}


def _null(index: str) -> dict[str, Column]:
    """What `--null` says of an index."""
    of = INDICES[index]
    return {
        f"{index}_null_mean": Column(f"mean of `{index}` over the permutations of `--null`", "", of.least, of.most),
        f"{index}_null_q95": Column(
            f"`{index}` that 95 % of the permutations are not more alike than", "", of.least, of.most
        ),
        f"{index}_p_null": probability(
            f"share of permutations that are as alike by `{index}`; of this row alone, one-sided"
        ),
        f"{index}_p_best": probability(f"the same of `{index}` after a look at all rows: holds for the best of them"),
    }


COLUMNS = Columns(
    words={
        "layer1": Column("layer of the first network"),
        "layer2": Column("layer of the second network"),
        "aliases1": Column("layers of the first network with the same output, separated by spaces"),
        "aliases2": Column("layers of the second network with the same output, separated by spaces"),
        "rows": Column("what PWCCA, Procrustes, SVCCA and mean CCA count as a sample: `positions` or `images`"),
        "data": Column("name of the data set"),
        "split": Column("split of the data set"),
        "pwcca_weighs": Column("side whose directions weigh in PWCCA, and whether it has more of them than the other"),
    },
    numbers={
        "rank1": count("principal components that the first side is limited to; empty for all", "directions"),
        "rank2": count("principal components that the second side is limited to; empty for all", "directions"),
        "n": count("images that are compared on"),
        **INDICES,
        "disagreement": share("share of the images that the two whole networks put into different classes", "lower"),
        **{
            f"{name}_se": Column(f"bootstrap standard error of `{name}` over images (`--bootstrap`)", "", 0)
            for name in INDICES
        },
        **{name: column for index in INDICES for name, column in _null(index).items()},
    },
    images=("data", "split"),
    sets=("data",),
    shared={"front_layer": "layer1", "end_layer": "layer2", "front_rank": "rank1", "end_rank": "rank2"},
)
