#!/usr/bin/env bash
# E4: structural indices over the grid: CKA, PWCCA, orthogonal Procrustes, and direct matching's difference.
# Fills stitching/e4
source "$(dirname "$0")/common.sh"

for kind in ${TYPES:-$(pick "resnet18 vit_tiny_patch4_32" lenet)}; do
    for seed in 0 1; do train_stitched "stitching/$kind-s$seed" "$kind" -s "$seed"; done
    one=$(last "stitching/$kind-s0") other=$(last "stitching/$kind-s1")
    pair=("$one" "$other" auto auto "$(blocks "$kind")" "$(blocks "$kind")")
    run exec_similarity.py "${pair[@]}" -n "$(pick 1000 100)" --measures cka pwcca procrustes
    run exec_stitch.py "${pair[@]}" auto -d "$(pick cifar10 digits)" -i pinv -e 0
done
