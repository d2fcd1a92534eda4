"""Every experiment on the layers of one network, from one pass over each data set.

    python exec_study.py models/a/model_4.pt -ood digits-c/fog-3 patches                     what its network page shows
    python exec_study.py models/a/model_4.pt -ood digits-c/fog-3 patches --plan              commands, memory, seconds
    python exec_study.py models/a/model_4.pt -ood patches --against models/b/model_4.pt --only ood_layers similarity stitch

Runs exec_eval.py, exec_ood_layers.py, exec_probe.py, exec_ncg.py, exec_similarity.py and exec_stitch.py together: an image
is decoded once and goes through the network once for all of them; then exec_projections.py and exec_reinit.py. The records
are those of the single scripts: what is there already is passed over, and a study that was stopped goes on where it was.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "study", __doc__)

if __name__ == "__main__":
    main()
