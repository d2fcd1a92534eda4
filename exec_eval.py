"""How well does a checkpoint classify, and on which classes and groups does it fail?

python exec_eval.py models/digits-a/model_5.pt -d digits            a second; accuracy about 0.97
python exec_eval.py --list                                          the runs and checkpoints there are
"""

from lib.experiments.eval import EvalConfig, eval
from lib.runs.cli import main

if __name__ == "__main__":
    main(EvalConfig, eval)
