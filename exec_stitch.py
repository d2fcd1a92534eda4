# PYTHON_ARGCOMPLETE_OK
r"""Does one network go on from another's representation, and what does the stitch between them do?

    python exec_stitch.py models/digits-a/model_5.pt models/digits-b/model_5.pt auto auto 'layer?.?' 'layer?.?' -d digits \
        -i pinv -e 0 -pinv-samples all                                                   direct matching, a grid, seconds
    python exec_stitch.py models/a/model_5.pt models/b/model_5.pt resnet18 resnet18 layer4.1 layer1.0 rc2c_pre -d cifar10 \
        -e 0 -b 512 -i pinv --mod-only-stitch                                            one pair, as published
    python exec_stitch.py models/a/model_5.pt models/b/model_5.pt resnet18 resnet18 layer4.1 layer1.0 rc2c_pre -e 30
        task-loss matching

Balogh & Jelasity, AAAI 2025. Stitched to itself at the same layer by direct matching, a network keeps its accuracy.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "stitch", __doc__)

if __name__ == "__main__":
    main()
