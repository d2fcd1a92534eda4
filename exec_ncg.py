# PYTHON_ARGCOMPLETE_OK
"""Does a network give images from elsewhere the label of their nearest training example, and more so if it is robust?

    python exec_ncg.py models/wo9/model_5.pt -d digits-wo9                    seconds; the images of the held-out class 9
    python exec_ncg.py models/mnist-at/model_70.pt -d mnist-wo9 --against models/mnist/model_70.pt --radius 300
    python exec_ncg.py models/a/model_5.pt -d cifar10 --corruptions fog contrast --space pixel feature --layer avgpool
    python exec_ncg.py models/head/model_5.pt                 trained on -d features=models/wo9/model_5.pt:flatten:digits-wo9

Yang et al., TMLR 2023. On MNIST without 9 the paper has .578 for a natural network and .714 for an adversarially trained
one; a network that always answers 4 has .526, which is why the null rates stand beside the score.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "ncg", __doc__)

if __name__ == "__main__":
    main()
