#!/usr/bin/env bash
# Table 2: the data sets by kind of shift: counts per split, class and group.
# Fills ilc/table2
source "$(dirname "$0")/common.sh"

sets="cmnist waterbirds celeba multiceleba cifar10-c/fog-5 cifar100-c/fog-5 imagenet-a imagenet-r cue-conflict silhouette"
for data in ${DATA:-$(pick "$sets" "digits digits-bg digits-c/fog-5")}; do
    run exec_data.py show "$data"
done
