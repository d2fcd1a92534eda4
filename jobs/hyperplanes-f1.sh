#!/usr/bin/env bash
# Figure 1: on which side of the all-ones direction the filters of each layer lie, before and after training.
# Fills hyperplanes/f1
source "$(dirname "$0")/common.sh"

for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
    train_vgg "hyperplanes/vgg-s$seed" -s "$seed"
    run exec_projections.py "models/hyperplanes/vgg-s$seed/init.pt" "$(last "hyperplanes/vgg-s$seed")" --normalize --with-linear
done
run exec_projections.py "$(pick vgg19 lenet)" -d "$(pick cifar10 digits)" --random "$(pick 20 2)" --normalize # the null hypothesis
