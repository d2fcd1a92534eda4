#!/usr/bin/env bash
# Figure 1: on which side of the all-ones direction the filters of each layer lie, before and after training; and the null
# hypothesis, networks that were drawn at random.
# Fills hyperplanes/f1
source "$(dirname "$0")/common.sh"

for network in $networks; do
    for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
        folder=hyperplanes/${network%:*}-s$seed
        train_plain "$folder" "$network" -s "$seed"
        run exec_projections.py "models/$folder/init.pt" "$(last "$folder")" --normalize --with-linear
    done
    run exec_projections.py "${network%:*}" -d "${network#*:}" --random "$(pick 20 2)" --normalize
done
