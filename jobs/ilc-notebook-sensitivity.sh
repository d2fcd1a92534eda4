#!/usr/bin/env bash
# The published notebook: total variation distance of every layer and corruption from the clean images.
# Fills ilc/notebook-sensitivity
source "$(dirname "$0")/common.sh"

train_probed ilc/cifar10
run exec_probe.py "$(last ilc/cifar10)" -ood "$(pick cifar10-c digits-c/fog-5)" --sensitivity -b 256 -e 1 \
    -l "$(pick maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)"
