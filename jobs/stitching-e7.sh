#!/usr/bin/env bash
# E7, ablations: the number of images that are matched on, and networks of equal width or size throughout.
# Fills stitching/e7
source "$(dirname "$0")/common.sh"

for kind in ${TYPES:-$(pick "resnet18 resnet18_samewidth resnet18_samesize resnet18_samewidth_samesize" lenet)}; do
    for seed in 0 1; do train_stitched "stitching/$kind-s$seed" "$kind" -s "$seed"; done
    for images in $(pick "10 25 50 100 200 400 1000 10000" "10 100"); do
        layers=$(blocks "$kind")
        run exec_stitch.py "$(last "stitching/$kind-s0")" "$(last "stitching/$kind-s1")" auto auto "$layers" "$layers" auto \
            -d "$(pick cifar10 digits)" -i pinv -e 0 -pinv-samples "$images"
    done
done
