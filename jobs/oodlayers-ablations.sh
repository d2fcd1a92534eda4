#!/usr/bin/env bash
# Section 7.7: temperatures, and a network that was not trained.
# Fills oodlayers/ablations
source "$(dirname "$0")/common.sh"

train_ood oodlayers/resnet18-s0
for network in "$(last oodlayers/resnet18-s0)" models/oodlayers/resnet18-s0/init.pt; do
    run exec_ood_layers.py "$network" -ood "$(pick svhn patches)" -T 0.1 1 10 100 1000
done
