#!/usr/bin/env bash
# The published notebook: Waterbirds zero-shot, every layer with one setting, the best epoch of each by worst-group accuracy.
# Fills ilc/notebook-waterbirds
source "$(dirname "$0")/common.sh"

train_waterbirds ilc/waterbirds
run exec_probe.py "$(last ilc/waterbirds)" -ood "$(pick waterbirds digits-bg)" --roles paper -b 256 -lr 1e-4 -l1 1e-2 \
    -l "$(pick maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)" -e "$(pick 50 1)" --warm-start
