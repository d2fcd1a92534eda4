#!/usr/bin/env bash
# Figure 4: data efficiency: accuracy against the share of OOD images that probes learn from.
# Fills ilc/fig4
source "$(dirname "$0")/common.sh"

layers=$(pick maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)
read -ra shares <<< "$(pick "0.01 0.03 0.05 0.1 0.15 0.2 0.25" "0.1 0.2")"
train_probed ilc/cifar10
train_waterbirds ilc/waterbirds
for place in "$(last ilc/cifar10) $(pick cifar10-c digits-c/fog-5)" "$(last ilc/waterbirds) $(pick waterbirds digits-bg)"; do
    read -r network shifts <<< "$place"
    run exec_probe.py "$network" -ood "$shifts" --protocol few-shot --fraction "${shares[@]}" -l "$layers" -b 256 \
        -lr 1e-4 1e-3 1e-2 -l1 0 1e-4 1e-3 1e-2 -e "$(pick 100 1)"
done
