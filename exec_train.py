# PYTHON_ARGCOMPLETE_OK
"""Train an image classifier and keep its checkpoints under models/<dir>/.

    python exec_train.py resnet20 -d digits -dir digits-a -e 5          seconds; validation accuracy about 0.97
    python exec_train.py resnet18 -d cifar10 -dir a -o sgd -lr 0.1 -wd 5e-4 -sched cosine -b 128 -e 200
    python exec_train.py vgg19 -d cifar10 -dir b -o sgd -lr 0.1 -e 40 --noise 0.5 --split 0.1 -sf 5 --snapshot-all-until 3
    python exec_train.py tv_resnet18 -d imagenet -dir in -o sgd -lr 0.1 -wd 1e-4 -b 1024 -e 90 -sched step -sf 1 -workers 16
    torchrun --nproc-per-node 4 exec_train.py tv_resnet18 -d imagenet ...     one command on four GPUs, -b images in all

The same command again continues an interrupted run and recognises a finished one.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "train", __doc__)

if __name__ == "__main__":
    main()
