#!/usr/bin/env bash
# Figure 5, Table 4 and Figure 8: zero-shot worst-group accuracy of the head, the last layer and the best layer.
# Fills ilc/fig5, ilc/table4, ilc/fig8
source "$(dirname "$0")/common.sh"

layers=$(pick maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)
train_waterbirds ilc/waterbirds
train_celeba ilc/celeba
for place in "$(last ilc/waterbirds) $(pick waterbirds digits-bg)" "$(last ilc/celeba) $(pick celeba digits-bg)"; do
    read -r network data <<< "$place"
    run exec_eval.py "$network" -d "$data"
    run exec_probe.py "$network" -ood "$data" -l "$layers" -b 256 -lr 1e-4 1e-3 1e-2 -l1 0 1e-3 1e-2 -e "$(pick 50 1)"
done
