# PYTHON_ARGCOMPLETE_OK
"""Do probes on earlier layers of a frozen network generalise better than its last layer, and of what rank?

    python exec_probe.py models/digits-a/model_5.pt -d digits -ood digits-c -l "cuts" --reduce gap       a minute
    python exec_probe.py models/a/model_200.pt -l layer3 layer4 -d cifar10 -ranks 1 2 4 8 16 32 64
    python exec_probe.py models/a/model_200.pt -l "layer*" -d cifar10 -ood cifar10-c -s 0 1 2 3 4 -lr 1e-4 1e-3 1e-2

Uselis & Oh, ICLR 2025; Balogh & Jelasity, AAAI 2025. Rows "gain" say what the layer chosen by a rule has over the last
one, with the 95% interval of a paired bootstrap; nothing is chosen on test images but by the rule "oracle".
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "probe", __doc__)

if __name__ == "__main__":
    main()
