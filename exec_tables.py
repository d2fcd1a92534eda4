# PYTHON_ARGCOMPLETE_OK
"""What came out: the records under results/ as tables, over seeds, beside the papers' published numbers.

    python exec_tables.py                                    every record, a table per experiment
    python exec_tables.py eval ilc/fig5 ncg                  an experiment, a paper's table, all of a paper
    python exec_tables.py ncg/pixel --missing                the commands that fill its empty cells
    python exec_tables.py --network models/a/model_4.pt      all measures of one network's layers
    python exec_tables.py --report results.html              everything on one page
    python exec_tables.py --rerun RECORD --check             the run that a record describes, again, and compared
    python exec_tables.py ls probe network=models/a seed=0   the records that fit
    python exec_tables.py best accuracy layer=layer3*        the best row, with settings and command
    python exec_tables.py export all.csv                     every row with its settings, as CSV or Parquet
    python exec_tables.py merge host1/results host2/results  the records of other machines into results/

Reads records only; answers in seconds, and without torch.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "tables", __doc__)

if __name__ == "__main__":
    main()
