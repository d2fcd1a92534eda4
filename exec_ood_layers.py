# PYTHON_ARGCOMPLETE_OK
"""Which layer of a network tells in-distribution from out-of-distribution images by its energy?

    python exec_ood_layers.py models/digits-a/model_5.pt -d digits -ood patches         seconds
    python exec_ood_layers.py models/a/model_200.pt -d cifar10 -ood near far --aggregate absmean maha --baselines all
    python exec_ood_layers.py models/a/model_200.pt -d cifar10 -ood cifar10-c               every corruption and severity
    python exec_ood_layers.py models/a/model_200.pt -d cifar10 -ood svhn cifar100 --choose transfer --early-exit 0.05

Guglielmo & Masana, CVWW 2025. Scores are never flipped: an AUROC below 0.5 says that the layer's energy is lower for
outliers. Every row says what data its score needs; the aggregate `oracle` is an upper bound.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "ood_layers", __doc__)

if __name__ == "__main__":
    main()
