#!/usr/bin/env bash
# Figure 2: the share of filters on the negative side, by layer and epoch.
# Fills hyperplanes/f2
source "$(dirname "$0")/common.sh"

for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
    train_vgg "hyperplanes/vgg-s$seed" -s "$seed"
    run exec_projections.py "models/hyperplanes/vgg-s$seed" --normalize
done
