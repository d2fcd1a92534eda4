#!/usr/bin/env bash
# Figure 3: accuracy lost when one layer is given the weights of an earlier epoch, or fresh ones; and, for the correlation of
# section 7.3, module criticality.
# Fills hyperplanes/f3, hyperplanes/correlation
source "$(dirname "$0")/common.sh"

for network in $networks; do
    for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
        folder=hyperplanes/${network%:*}-s$seed
        train_plain "$folder" "$network" -s "$seed"
        run exec_reinit.py "$(last "$folder")" --inits-from "models/$folder" --rand "$(pick 5 2)" --criticality
    done
done
