#!/usr/bin/env bash
# Figure 3: accuracy lost when one layer is given the weights of an earlier epoch, or fresh ones; and, for the correlation of
# section 7.3, module criticality.
# Fills hyperplanes/f3, hyperplanes/correlation
source "$(dirname "$0")/common.sh"

for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
    train_vgg "hyperplanes/vgg-s$seed" -s "$seed"
    run exec_reinit.py "$(last "hyperplanes/vgg-s$seed")" --inits-from "models/hyperplanes/vgg-s$seed" --rand "$(pick 5 2)" \
        --criticality
done
