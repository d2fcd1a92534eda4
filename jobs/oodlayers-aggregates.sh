#!/usr/bin/env bash
# Section 7.3: scores made from all layers against the usual scores of the last, near and far.
# Fills oodlayers/aggregates, oodlayers/openood
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100" digits)}; do
    for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
        train_ood "oodlayers/$data-s$seed" resnet18 "$data" -s "$seed"
        # shellcheck disable=SC2046 # words
        run exec_ood_layers.py "$(last "oodlayers/$data-s$seed")" -ood $(pick "near far" patches) \
            --aggregate mean absmean sq maha knn fisher max oracle --baselines all
    done
done
