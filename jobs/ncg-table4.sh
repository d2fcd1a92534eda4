#!/usr/bin/env bash
# Table 4, Figure 6, App. D.3 and D.7: corrupted test images at five levels, a robust network against a natural one.
# Fills ncg/table4, ncg/fig6, ncg/corruptions, ncg/conditional, ncg/distance-accuracy
source "$(dirname "$0")/common.sh"

kinds=$(pick all "fog contrast")
network=$(pick WRN_40_10 CNN002)
data=$(pick cifar10 digits)
run exec_train.py "$network" -d "$data" -dir ncg/whole/nat -lr 0.01 -wd 0 -b 64 --augmentation none -e "$(pick 70 1)" \
    -rlre 40 50 60
run exec_train.py "$network" -d "$data" -dir ncg/whole/tr2 -lr 0.01 -wd 0 -b 64 --augmentation none -e "$(pick 70 1)" \
    -rlre 40 50 60 --loss trades --eps 2 --attack-steps "$(pick 10 2)"
# shellcheck disable=SC2086 # words
run exec_ncg.py "$(last ncg/whole/tr2)" --against "$(last ncg/whole/nat)" --space pixel feature --corruptions $kinds
