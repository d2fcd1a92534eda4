#!/usr/bin/env bash
# Section 7.4: training with the energies of hidden layers.
# Fills oodlayers/energy-loss
source "$(dirname "$0")/common.sh"

train_ood oodlayers/resnet18-s0
train_ood oodlayers/energy-s0 --loss energy_layers --outliers "$(pick 300k patches)"
for network in resnet18-s0 energy-s0; do
    run exec_ood_layers.py "$(last "oodlayers/$network")" -ood "$(pick svhn patches)" --baselines all
done
