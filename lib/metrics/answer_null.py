"""How often answers are right by chance: the answers of classifiers to the images in another order.

A draw puts the answers of all classifiers to as many images in the same order, beside the labels that they are held against:
it takes away which answer belongs to which image, and nothing else. Classifiers answer alike, labels by several rules have
much in common, and images may be versions of one another; the order that all share keeps that. The idea is that of
`lib.metrics.permutation_null`.
"""

from collections.abc import Sequence

import numpy as np

from lib.core.randomness import numpy_generator
from lib.metrics.permutation_null import Null, calibrate


def answer_null(pairs: Sequence[tuple[np.ndarray, np.ndarray]], draws: int, seed: int) -> Null:
    """The null of the shares (k,) of right answers, of k pairs of answers and labels, integers (n,), each of its own n."""
    narrow = [(answers.astype(np.int32), labels.astype(np.int32)) for answers, labels in pairs]
    drawn = np.empty((draws, len(narrow)))
    for n in {len(answers) for answers, _ in narrow}:
        members = [at for at, (answers, _) in enumerate(narrow) if len(answers) == n]
        draw = numpy_generator(seed, "null", n)
        for row in drawn:
            order = draw.permutation(n)
            row[members] = [_share(narrow[at][0][order], narrow[at][1]) for at in members]
    return calibrate(np.array([_share(*one) for one in narrow]), drawn)


def _share(answers: np.ndarray, labels: np.ndarray) -> float:
    return np.count_nonzero(answers == labels) / len(labels)
