# PYTHON_ARGCOMPLETE_OK
"""Which data sets are there, what is in them, and what puts the others in place?

    python exec_data.py list                                every known data set and whether it is there
    python exec_data.py show cifar10                        counts and statistics per split, a contact sheet
    python exec_data.py prepare cifar10                     download it, check it, unpack it under data/
    python exec_data.py verify cifar10                      files against known checksums, every image decoded
    python exec_data.py check                               what earlier versions of a method have left
    python exec_data.py cache 10                            keep no more than 10 GiB of probes' features; 0: none
    python exec_data.py convert-checkpoint OLD.pth NEW.pt   unpickle a file you trust, once, into a plain state dict
    python exec_data.py add-head OLD.pth NEW.pt resnet18 10 give a backbone's weights a fresh head of ten classes

digits, its variants and patches are built in; docs/data.md says how data sets are named.
"""

from lib.experiments import EXPERIMENTS
from lib.runs.script import command

main = command(EXPERIMENTS, "data", __doc__)

if __name__ == "__main__":
    main()
