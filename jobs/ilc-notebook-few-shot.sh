#!/usr/bin/env bash
# The published notebook: CIFAR-10-C few-shot, one probe per layer for all corruptions together.
# Fills ilc/notebook-few-shot
source "$(dirname "$0")/common.sh"

train_probed ilc/cifar10
# shellcheck disable=SC2046 # words
run exec_probe.py "$(last ilc/cifar10)" -ood $(pick cifar10-c "digits-c/fog-5 digits-c/contrast-5") --protocol few-shot --roles paper \
    --tuning shared -l "$(pick relu,maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)" -b 256 -lr 1e-3 -l1 1e-4 \
    -e "$(pick 100 1)"
