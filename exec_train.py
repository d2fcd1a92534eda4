"""Train an image classifier and keep its checkpoints under models/<dir>/.

    python exec_train.py resnet20 -d digits -dir digits-a -e 5          seconds; validation accuracy about 0.97
    python exec_train.py resnet18 -d cifar10 -dir a -o sgd -lr 0.1 -wd 5e-4 -sched cosine -b 128 -e 200

The same command again continues an interrupted run and recognises a finished one.
"""

from lib.cli import main
from lib.experiments.train import TrainConfig, train

if __name__ == "__main__":
    main(TrainConfig, train)
