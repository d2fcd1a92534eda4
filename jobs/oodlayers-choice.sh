#!/usr/bin/env bash
# Section 7.2: a layer chosen without labelled outliers, or on another set, and what that costs.
# Fills oodlayers/choice
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100" digits)}; do
    train_ood "oodlayers/$data-s0" resnet18 "$data"
    # shellcheck disable=SC2046 # words
    run exec_ood_layers.py "$(last "oodlayers/$data-s0")" -ood $(outside "$data") --choose mixture jigsaw transfer
done
