#!/usr/bin/env bash
# Figure 9: the sensitivity score of every layer and group.
# Fills ilc/fig9
source "$(dirname "$0")/common.sh"

train_waterbirds ilc/waterbirds
train_celeba ilc/celeba
for place in "$(last ilc/waterbirds) $(pick waterbirds digits-bg)" "$(last ilc/celeba) $(pick celeba digits-bg)"; do
    read -r network data <<< "$place"
    run exec_probe.py "$network" -ood "$data" -l "$(pick maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)" -b 256 \
        -e "$(pick 50 1)" --sensitivity
done
