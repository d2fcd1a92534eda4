# PYTHON_ARGCOMPLETE_OK
"""Which layers of a trained network can be given their initial weights back, and which are critical?

    python exec_reinit.py models/a/model_6.pt -d mnist --inits-from models/a --rand 3
    python exec_reinit.py net.pt vgg19 -d cifar10 --inits-from list.txt --layers 'features.*'

Gamba et al. 2023, after Zhang, Bengio & Singer 2022. A relative drop of 0 is harmless, 1 - chance / accuracy destroys.
Costs about one pass over the data, with everything behind each layer run once per source.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "reinit", __doc__)

if __name__ == "__main__":
    main()
