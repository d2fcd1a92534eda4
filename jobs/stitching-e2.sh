#!/usr/bin/env bash
# E2: the same grid within one network, where the diagonal should be the best of its row.
# Fills stitching/e2
source "$(dirname "$0")/common.sh"

for kind in ${TYPES:-$(pick "resnet18 vit_tiny_patch4_32" lenet)}; do
    train_stitched "stitching/$kind-s0" "$kind"
    one=$(last "stitching/$kind-s0")
    pair=("$one" "$one" auto auto "$(blocks "$kind")" "$(blocks "$kind")" auto -d "$(pick cifar10 digits)")
    run exec_stitch.py "${pair[@]}" -i rand -e "$(pick 30 1)"
    run exec_stitch.py "${pair[@]}" -i pinv -e 0
done
