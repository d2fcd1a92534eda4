#!/usr/bin/env bash
# The bar figure: which layer's energy tells SVHN from CIFAR-10?
# Fills oodlayers/layers
source "$(dirname "$0")/common.sh"

for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
    train_ood "oodlayers/resnet18-s$seed" -s "$seed"
    run exec_ood_layers.py "$(last "oodlayers/resnet18-s$seed")" -ood "$(pick svhn patches)"
done
