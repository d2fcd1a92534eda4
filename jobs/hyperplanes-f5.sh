#!/usr/bin/env bash
# Figure 5: the same resets in networks that have learnt wrong labels, or images with their pixels in random orders.
# Fills hyperplanes/f5
source "$(dirname "$0")/common.sh"

for noise in $(pick "0.2 0.4 0.6 0.8 1.0" 0.5); do
    train_vgg "hyperplanes/noise-$noise" --noise "$noise"
    run exec_reinit.py "$(last "hyperplanes/noise-$noise")" --inits-from "models/hyperplanes/noise-$noise" --rand "$(pick 5 2)"
done
train_vgg hyperplanes/pixels --pixel-shuffle
run exec_reinit.py "$(last hyperplanes/pixels)" --inits-from models/hyperplanes/pixels --rand "$(pick 5 2)"
