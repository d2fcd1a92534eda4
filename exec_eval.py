# PYTHON_ARGCOMPLETE_OK
"""How well does a checkpoint classify, and on which classes and groups does it fail?

    python exec_eval.py models/digits-a/model_5.pt -d digits            a second; accuracy about 0.97
    python exec_eval.py models/a/model_200.pt -d cifar10 cifar10-c/fog-3 --attack pgd --norm inf --eps 0.03
    python exec_eval.py --list                                          the runs and checkpoints there are

Rows are of all images, of every class and of every group; a confusion matrix lies beside the record.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "eval", __doc__)

if __name__ == "__main__":
    main()
