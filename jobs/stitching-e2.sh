#!/usr/bin/env bash
# E2: the same grid within one network, where the diagonal should be the best of its row.
# Fills stitching/e2
source "$(dirname "$0")/common.sh"

train_stitched stitching/s0
one=$(last stitching/s0)
layers=$(pick "layer?.?" features.0,features.3)
run exec_stitch.py "$one" "$one" auto auto "$layers" "$layers" auto -d "$(pick cifar10 digits)" -i rand -e "$(pick 30 1)"
run exec_stitch.py "$one" "$one" auto auto "$layers" "$layers" auto -d "$(pick cifar10 digits)" -i pinv -e 0
