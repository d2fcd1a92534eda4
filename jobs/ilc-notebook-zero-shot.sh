#!/usr/bin/env bash
# The published notebook: CIFAR-10-C zero-shot, gains per corruption.
# Fills ilc/notebook-zero-shot, ilc/notebook-head
source "$(dirname "$0")/common.sh"

train_probed ilc/cifar10
run exec_probe.py "$(last ilc/cifar10)" -ood "$(pick cifar10-c digits-c/fog-5)" --roles paper -b 256 -lr 1e-3 -e "$(pick 50 1)" \
    -l "$(pick relu,maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)" --warm-start
