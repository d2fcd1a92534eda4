#!/usr/bin/env bash
# Everything the suite does, on data that comes with it: a tutorial to read, and to run from the root of the repository.
# Each command ends in a record under results/; run again, it says what is there already.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"

# What data are there without any download? The last line of a command's output is its record; figures lie beside it.
python exec_data.py show digits
python exec_data.py show patches

# Two networks on the digits. Interrupt one of these and run the script again: training continues where it was.
python exec_train.py small_cnn -d digits -dir demo/small_cnn -e 12 -lr 3e-3 -sched onecycle
python exec_train.py resnet20 -d digits -dir demo/resnet20 -e 4 -b 64 -o sgd -lr 0.1 -wd 5e-4 -sched onecycle

# How well do they classify, and which classes do they confuse?
python exec_eval.py models/demo/small_cnn/model_12.pt -d digits
python exec_eval.py models/demo/resnet20/model_4.pt -d digits

# Which layers can be cut, and which layer's energy tells digits from patches of photographs?
python exec_ood_layers.py models/demo/resnet20/model_4.pt --list-layers
python exec_ood_layers.py models/demo/resnet20/model_4.pt -d digits -ood patches -T 1 10
python exec_ood_layers.py models/demo/small_cnn/model_12.pt -d digits -ood patches

# The tables, from the records alone.
python exec_tables.py
echo "figures:"
ls results/*/*.png
