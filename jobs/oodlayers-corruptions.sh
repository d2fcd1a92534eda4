#!/usr/bin/env bash
# Section 7.5: AUROC against the severity of corruptions.
# Fills oodlayers/corruptions
source "$(dirname "$0")/common.sh"

data=$(pick cifar10 digits)
train_ood "oodlayers/$data-s0" resnet18 "$data"
# shellcheck disable=SC2046 # words
run exec_ood_layers.py "$(last "oodlayers/$data-s0")" -ood $(pick cifar10-c "digits-c/fog-1 digits-c/fog-5")
