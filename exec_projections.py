# PYTHON_ARGCOMPLETE_OK
"""To which side of the all-ones direction do the filters of each layer point, and since when?

    python exec_projections.py models/a --normalize                       every epoch of a run; seconds
    python exec_projections.py models/a/model_5.pt models/b/model_5.pt --with-linear --fold-bn
    python exec_projections.py vgg11 --random 5                           fresh networks: the null hypothesis

Gamba et al. 2023. A layer without orientation has a mass of 0.5; the exact 95 % interval of a layer of 64 filters under
that hypothesis is 0.375 to 0.625.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "projections", __doc__)

if __name__ == "__main__":
    main()
