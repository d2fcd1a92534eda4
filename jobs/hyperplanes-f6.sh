#!/usr/bin/env bash
# Figure 6: the control without convolutions.
# Fills hyperplanes/f6
source "$(dirname "$0")/common.sh"

run exec_train.py mlp_bn -d "$(pick cifar10 patches)" -dir hyperplanes/mlp -o sgd -lr 0.01 -wd 5e-4 -b 128 -e "$(pick 300 1)" \
    -sched step --lr-step 100 -sf "$(pick 10 1)" --snapshot-all-until "$(pick 10 1)" --train-acc
run exec_projections.py models/hyperplanes/mlp --with-linear --normalize
