#!/usr/bin/env bash
# E1: the grid of layers of two networks that differ by their seed, by task-loss and by direct matching.
# Fills stitching/e1
source "$(dirname "$0")/common.sh"

for kind in ${TYPES:-$(pick "resnet18 vit_tiny_patch4_32" lenet)}; do
    for seed in 0 1; do train_stitched "stitching/$kind-s$seed" "$kind" -s "$seed"; done
    one=$(last "stitching/$kind-s0") other=$(last "stitching/$kind-s1")
    pair=("$one" "$other" auto auto "$(blocks "$kind")" "$(blocks "$kind")" auto -d "$(pick cifar10 digits)")
    run exec_stitch.py "${pair[@]}" -i rand -e "$(pick 30 1)"
    run exec_stitch.py "${pair[@]}" -i pinv -e 0
done
