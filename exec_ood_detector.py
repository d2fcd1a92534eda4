# PYTHON_ARGCOMPLETE_OK
r"""Train detectors that tell a layer's own representations from others, for exec_stitch_ood.py.

    python exec_ood_detector.py models/digits-a/model_5.pt auto layer2 -m repr_cls_resnet20 -d digits -ftoodd patches \
        -e 2 -fe 1 -dir digits-detector                        a minute; the classifier's validation accuracy about 0.97
    python exec_ood_detector.py models/a/model_100.pt resnet18 'layer?.?' -m repr_cls_resnet18 -d cifar10 -b 512 -e 100 \
        -fe 10 -ftidd cifar5m -ftoodd outlier_exposure -dir a-detectors                all layers from one pass, as published

Balogh & Jelasity, AAAI 2025; energy fine-tuning is that of Liu et al., NeurIPS 2020. The same command again continues an
interrupted run and recognises a finished one.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "ood_detector", __doc__)

if __name__ == "__main__":
    main()
