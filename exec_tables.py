"""What came out: the records under results/ as tables, over seeds where there are several.

    python exec_tables.py                        every record, a table per experiment
    python exec_tables.py eval ood_layers
    python exec_tables.py --rerun RECORD         the run that a record describes, again
"""

from lib.cli import main
from lib.experiments.tables import TablesConfig, text

if __name__ == "__main__":
    main(TablesConfig, text)
