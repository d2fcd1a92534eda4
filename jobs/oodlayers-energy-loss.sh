#!/usr/bin/env bash
# Section 7.4: training with the energies of hidden layers, in both forms of the loss.
# Fills oodlayers/energy-loss
source "$(dirname "$0")/common.sh"

outliers=$(pick 300k patches)
for data in ${DATA:-$(pick "cifar10 cifar100" digits)}; do
    train_ood "oodlayers/$data-s0" resnet18 "$data"
    train_ood "oodlayers/$data-hinge" resnet18 "$data" --loss energy_layers --outliers "$outliers"
    train_ood "oodlayers/$data-contrastive" resnet18 "$data" --loss energy_layers --form contrastive --outliers "$outliers"
    for network in s0 hinge contrastive; do
        run exec_ood_layers.py "$(last "oodlayers/$data-$network")" -ood "$(pick svhn patches)" --baselines all
    done
done
