#!/usr/bin/env bash
# Section 7.5: AUROC against the severity of corruptions.
# Fills oodlayers/corruptions
source "$(dirname "$0")/common.sh"

train_ood oodlayers/resnet18-s0
# shellcheck disable=SC2046
run exec_ood_layers.py "$(last oodlayers/resnet18-s0)" -ood $(pick cifar10-c "digits-c/fog-1 digits-c/fog-5")
