#!/usr/bin/env bash
# Figure 5: the same resets in networks that have learnt wrong labels, or images with their pixels in random orders.
# Fills hyperplanes/f5
source "$(dirname "$0")/common.sh"

for network in $networks; do
    for noise in $(pick "0.2 0.4 0.6 0.8 1.0" 0.5) pixels; do
        folder=hyperplanes/${network%:*}-noise-$noise
        case $noise in pixels) flags=(--pixel-shuffle) ;; *) flags=(--noise "$noise") ;; esac
        train_plain "$folder" "$network" "${flags[@]}"
        run exec_reinit.py "$(last "$folder")" --inits-from "models/$folder" --rand "$(pick 5 2)"
    done
done
