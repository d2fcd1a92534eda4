#!/usr/bin/env bash
# Everything the suite does, on data that comes with it: a tutorial to read and to run.
# Each command ends in a record under results/; run again, it says what is there already.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ -f "$root/pyproject.toml" ]; then cd "$root"; fi  # an installed suite's works where it is called
python() { command python "$root/$1" "${@:2}"; }       # the scripts lie beside jobs/
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"

# What data are there without any download? The last line of a command's output is its record; figures lie beside it.
python exec_data.py show digits
python exec_data.py show patches

# Two networks on the digits, the small one with snapshots on the way. Interrupt one of these and run the script again:
# training continues where it was.
python exec_train.py small_cnn -d digits -dir demo/small_cnn -e 12 -lr 3e-3 -sched onecycle --snapshot-all-until 2 -sf 4
python exec_train.py resnet20 -d digits -dir demo/resnet20 -e 6 -b 32 -o sgd -lr 0.1 -wd 5e-4 -sched onecycle

# How well do they classify, and which classes do they confuse?
python exec_eval.py models/demo/small_cnn/model_12.pt -d digits
python exec_eval.py models/demo/resnet20/model_6.pt -d digits

# Which layers can be cut, and which layer's energy tells digits from patches of photographs? Beside it the usual scores of
# the last layer, scores made from all layers, and a forward pass that stops at the first layer that is sure.
python exec_ood_layers.py models/demo/resnet20/model_6.pt --list-layers
python exec_ood_layers.py models/demo/resnet20/model_6.pt -d digits -ood patches -T 1 10
python exec_ood_layers.py models/demo/small_cnn/model_12.pt -d digits -ood patches --aggregate mean maha oracle \
    --baselines all --early-exit 0.05

# Do probes on earlier layers classify corrupted digits better than probes on the last one?
python exec_probe.py models/demo/small_cnn/model_12.pt -d digits -ood digits-c/impulse_noise-5 digits-c/fog-5 \
    -l cuts --reduce gap -e 20 -lr 1e-2 -s 0 1 2

# Two networks layer by layer: how similar, and does one go on from the other's representation?
python exec_similarity.py models/demo/resnet20/model_6.pt models/demo/small_cnn/model_12.pt auto auto "layer?.?" \
    "pool?,relu4" -n 300
python exec_stitch.py models/demo/resnet20/model_6.pt models/demo/resnet20/model_6.pt auto auto "layer?" "layer?" auto \
    -d digits -i pinv -e 0 -pinv-samples all

# Is what comes through a stitch in distribution where it arrives? A detector of that layer, trained briefly, answers.
python exec_ood_detector.py models/demo/small_cnn/model_12.pt auto pool2 -m repr_cls_resnet20 -d digits -ftoodd patches \
    -e 1 -fe 1 --max-examples 300 -dir demo/detector
python exec_stitch.py models/demo/small_cnn/model_12.pt models/demo/small_cnn/model_12.pt auto auto "pool1,pool2" \
    pool2 -d digits -i pinv -e 0 --name into-pool2
python exec_stitch_ood.py results/stitch/into-pool2.json -scd patches

# In which direction do filters point, and which layers can be given their initial weights back?
python exec_projections.py models/demo/small_cnn --normalize
python exec_reinit.py models/demo/small_cnn/model_12.pt -d digits --inits-from models/demo/small_cnn --rand 2

# A network that has never seen a nine: does it answer with the label of the nearest training image?
python exec_train.py small_cnn -d digits-wo9 -dir demo/wo9 -e 6 -lr 3e-3 -sched onecycle
python exec_ncg.py models/demo/wo9/model_6.pt

# The tables, from the records alone: per experiment, of one network's layers, and everything on one page.
python exec_tables.py
python exec_tables.py --network models/demo/small_cnn/model_12.pt
python exec_tables.py --report results/all.html
echo "figures:"
ls results/*/*.png
