"""How far classes have collapsed onto their means: the variability within classes over that between them."""

import torch
from torch import Tensor

BLOCK = 4096  # features that are in float64 at a time


def within_over_between(features: Tensor, labels: Tensor) -> float:
    """NC1 of Papyan, Han & Donoho 2020: tr(S_W S_B^+) / k, 0 or more; 0 where every image lies at its class mean.

    features (n, d), labels (n,) of k >= 2 classes that have images. S_W and S_B are the covariances (d, d) within classes
    and of the class means, whose few directions alone are ever formed: O(n d k). Unchanged by rotations and scalings. NaN
    where the class means coincide.
    """
    kinds, class_of = labels.unique(return_inverse=True)
    k = len(kinds)
    sizes = torch.bincount(class_of, minlength=k).double()[:, None]
    blocks = features.split(BLOCK, 1)
    means = (
        torch.cat(
            [
                torch.zeros(k, block.shape[1], dtype=torch.float64).index_add_(0, class_of, block.double())
                for block in blocks
            ],
            1,
        )
        / sizes
    )
    _, lengths, directions = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    kept = lengths > 1e-9 * lengths[0]
    if k < 2 or not kept.any() or lengths[0] == 0:
        return float("nan")
    inside = sum(
        (block.double() - mean[class_of]) @ axes.T
        for block, mean, axes in zip(blocks, means.split(BLOCK, 1), directions[kept].split(BLOCK, 1), strict=True)
    )  # (n, k - 1)
    within = inside.square().sum(0) / len(features)
    return (within * k / lengths[kept].square()).sum().item() / k
