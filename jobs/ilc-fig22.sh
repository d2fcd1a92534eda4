#!/usr/bin/env bash
# Figures 22, 23: an index of neural collapse by depth, in and out of distribution.
# Fills ilc/fig22
source "$(dirname "$0")/common.sh"

train_probed ilc/cifar10
# shellcheck disable=SC2046 # words
run exec_probe.py "$(last ilc/cifar10)" -ood $(pick cifar10-c "digits-c/fog-5 digits-c/contrast-5") -b 256 \
    -l "$(pick relu,maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)" --baselines collapse -e 1
