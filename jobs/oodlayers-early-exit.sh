#!/usr/bin/env bash
# Section 7.6: stop at the first layer that is sure: false alarms, detections and cost.
# Fills oodlayers/early-exit
source "$(dirname "$0")/common.sh"

train_ood oodlayers/resnet18-s0
for rate in $(pick "0.01 0.05 0.1" 0.05); do
    # shellcheck disable=SC2046
    run exec_ood_layers.py "$(last oodlayers/resnet18-s0)" -ood $(pick "svhn cifar100" patches) --early-exit "$rate"
done
