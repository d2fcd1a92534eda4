#!/usr/bin/env bash
# Figure 4: how far each layer moves from its initial weights.
# Fills hyperplanes/f4
source "$(dirname "$0")/common.sh"

for network in $networks; do
    for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
        folder=hyperplanes/${network%:*}-s$seed
        train_plain "$folder" "$network" -s "$seed"
        run exec_projections.py "models/$folder" --with-linear
    done
done
