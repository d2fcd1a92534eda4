#!/usr/bin/env bash
# Figure 2: the share of filters on the negative side, by layer and epoch.
# Fills hyperplanes/f2
source "$(dirname "$0")/common.sh"

for network in $networks; do
    for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
        folder=hyperplanes/${network%:*}-s$seed
        train_plain "$folder" "$network" -s "$seed"
        run exec_projections.py "models/$folder" --normalize
    done
done
