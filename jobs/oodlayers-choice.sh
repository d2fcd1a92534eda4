#!/usr/bin/env bash
# Section 7.2: a layer chosen without labelled outliers, or on another set, and what that costs.
# Fills oodlayers/choice
source "$(dirname "$0")/common.sh"

train_ood oodlayers/resnet18-s0
# shellcheck disable=SC2046
run exec_ood_layers.py "$(last oodlayers/resnet18-s0)" -ood $(pick "svhn cifar100 mnist" "patches digits-c/fog-5") \
    --choose mixture jigsaw transfer
