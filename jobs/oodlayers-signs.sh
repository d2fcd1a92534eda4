#!/usr/bin/env bash
# Section 7.1: do the layers' signs agree between sets of outliers? Both stems, several sets.
# Fills oodlayers/signs
source "$(dirname "$0")/common.sh"

for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
    train_ood "oodlayers/resnet18-s$seed" -s "$seed"
    # shellcheck disable=SC2046 # words
    run exec_ood_layers.py "$(last "oodlayers/resnet18-s$seed")" -ood \
        $(pick "svhn cifar100 mnist fashionmnist" "patches digits-c/fog-5")
done
