#!/usr/bin/env bash
# Figure 18: accuracy in and out of distribution, by depth.
# Fills ilc/fig18
source "$(dirname "$0")/common.sh"

train_probed ilc/cifar10
layers=$(pick cuts features.6,avgpool)
run exec_probe.py "$(last ilc/cifar10)" --protocol id -l "$layers" -b 256 -e "$(pick 50 1)"
run exec_probe.py "$(last ilc/cifar10)" --protocol zero-shot -ood "$(pick cifar10-c digits-c/fog-5)" -l "$layers" -b 256 \
    -e "$(pick 50 1)"
