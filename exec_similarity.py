# PYTHON_ARGCOMPLETE_OK
"""How similar are the layers of two networks, by CKA, PWCCA, Procrustes and other indices?

    python exec_similarity.py models/digits-a/model_5.pt models/digits-b/model_5.pt auto auto 'layer*.?'        seconds
    python exec_similarity.py models/a/model_30.pt models/b/model_30.pt resnet18 resnet18 layer4.1 layer4.1 -m1r 512 64 8 1

Types may be `auto` for checkpoints with a sidecar. Balogh & Jelasity, AAAI 2025. CKA of a network with itself has ones
on its diagonal; between two seeds the diagonal is expected to stand out.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "similarity", __doc__)

if __name__ == "__main__":
    main()
