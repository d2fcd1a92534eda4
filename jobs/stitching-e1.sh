#!/usr/bin/env bash
# E1: the grid of layers of two networks that differ by their seed, by task-loss and by direct matching.
# Fills stitching/e1
source "$(dirname "$0")/common.sh"

for seed in 0 1; do train_stitched "stitching/s$seed" -s "$seed"; done
one=$(last stitching/s0) other=$(last stitching/s1)
layers=$(pick "layer?.?" features.0,features.3)
run exec_stitch.py "$one" "$other" auto auto "$layers" "$layers" auto -d "$(pick cifar10 digits)" -i rand -e "$(pick 30 1)"
run exec_stitch.py "$one" "$other" auto auto "$layers" "$layers" auto -d "$(pick cifar10 digits)" -i pinv -e 0
