#!/usr/bin/env bash
# Section 7.1: do the layers' signs agree between sets of outliers?
# Fills oodlayers/signs
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100" digits)}; do
    for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
        train_ood "oodlayers/$data-s$seed" resnet18 "$data" -s "$seed"
        # shellcheck disable=SC2046 # words
        run exec_ood_layers.py "$(last "oodlayers/$data-s$seed")" -ood $(outside "$data")
    done
done
