#!/usr/bin/env bash
# Section 7.7: temperatures, and a network that was not trained.
# Fills oodlayers/ablations
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100" digits)}; do
    train_ood "oodlayers/$data-s0" resnet18 "$data"
    for network in "$(last "oodlayers/$data-s0")" "models/oodlayers/$data-s0/init.pt"; do
        run exec_ood_layers.py "$network" -ood "$(pick svhn patches)" -T 0.1 1 10 100 1000
    done
done
