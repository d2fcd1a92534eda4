#!/usr/bin/env bash
# Figure 4: how far each layer moves from its initial weights.
# Fills hyperplanes/f4
source "$(dirname "$0")/common.sh"

for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
    train_vgg "hyperplanes/vgg-s$seed" -s "$seed"
    run exec_projections.py "models/hyperplanes/vgg-s$seed" --with-linear --init-from "models/hyperplanes/vgg-s$seed/init.pt"
done
