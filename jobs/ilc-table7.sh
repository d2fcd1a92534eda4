#!/usr/bin/env bash
# Table 7: the control with all layers at 512 principal components.
# Fills ilc/table7
source "$(dirname "$0")/common.sh"

train_probed ilc/cifar10
run exec_probe.py "$(last ilc/cifar10)" -ood "$(pick cifar10-c digits-c/fog-5)" --reduce "pca:$(pick 512 8)" \
    -l "$(pick maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)" -b 256 -e "$(pick 50 1)"
