#!/usr/bin/env bash
# App. C.2: probes with a hidden layer.
# Fills ilc/appendix-c2
source "$(dirname "$0")/common.sh"

train_probed ilc/cifar10
# shellcheck disable=SC2046 # words
run exec_probe.py "$(last ilc/cifar10)" -ood $(pick cifar10-c "digits-c/fog-5 digits-c/contrast-5") -b 256 \
    -l "$(pick relu,maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)" --baselines mlp -lr 1e-4 1e-3 1e-2 -e "$(pick 100 1)"
