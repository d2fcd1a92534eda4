#!/usr/bin/env bash
# Figure 3 and Table 3: information content: probes that learn from the whole OOD validation set.
# Fills ilc/fig3, ilc/table3
source "$(dirname "$0")/common.sh"

layers=$(pick maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)
train_probed ilc/cifar10
train_waterbirds ilc/waterbirds
run exec_probe.py "$(last ilc/cifar10)" -ood "$(pick cifar10-c digits-c/fog-5)" --protocol full-ood -l "$layers" \
    -b 256 -lr 1e-4 1e-3 1e-2 -l1 0 1e-4 1e-3 1e-2 -e "$(pick 100 1)"
run exec_probe.py "$(last ilc/waterbirds)" -ood "$(pick waterbirds digits-bg)" --protocol full-ood -l "$layers" \
    -b 256 -lr 1e-4 1e-3 1e-2 -l1 0 1e-4 1e-3 1e-2 -e "$(pick 100 1)"
