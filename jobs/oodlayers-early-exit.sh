#!/usr/bin/env bash
# Section 7.6: stop at the first layer that is sure: false alarms, detections and cost.
# Fills oodlayers/early-exit
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100" digits)}; do
    train_ood "oodlayers/$data-s0" resnet18 "$data"
    for rate in $(pick "0.01 0.05 0.1" 0.05); do
        # shellcheck disable=SC2046 # words
        run exec_ood_layers.py "$(last "oodlayers/$data-s0")" -ood $(outside "$data") --early-exit "$rate"
    done
done
