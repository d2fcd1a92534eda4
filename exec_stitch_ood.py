# PYTHON_ARGCOMPLETE_OK
"""Are stitched representations in distribution? Each end layer's detector answers, for every stitch of some records.

    python exec_stitch_ood.py results/stitch -scd patches                        all grids of a folder, seconds on the digits
    python exec_stitch_ood.py results/stitch/direct.json results/stitch/task.json -d cifar10 -scd svhn
    python exec_stitch_ood.py results/stitch -idd cifar10 -detectors models/repr_cls_ood_detectors

Balogh & Jelasity, AAAI 2025. Detectors come from exec_ood_detector.py. An AUROC of 0.5 says that stitched representations
look like the layer's own, 1 that they are out of distribution: a network stitched to itself by the identity has 0.5.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "stitch_ood", __doc__)

if __name__ == "__main__":
    main()
