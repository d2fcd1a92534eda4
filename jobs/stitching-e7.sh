#!/usr/bin/env bash
# E7, ablations: the number of images that are matched on, and networks of equal width or size throughout.
# Fills stitching/e7
source "$(dirname "$0")/common.sh"

for kind in $(pick "resnet18 resnet18_samewidth resnet18_samesize" lenet); do
    for seed in 0 1; do
        run exec_train.py "$kind" -d "$(pick cifar10 digits)" -dir "stitching/$kind-s$seed" -e "$(pick 100 1)" -s "$seed"
    done
    for images in $(pick "10 25 50 100 200 400 1000" "10 100"); do
        run exec_stitch.py "$(last "stitching/$kind-s0")" "$(last "stitching/$kind-s1")" auto auto \
            "$(pick "layer?.?" features.0)" "$(pick "layer?.?" features.0)" auto -d "$(pick cifar10 digits)" -i pinv -e 0 \
            -pinv-samples "$images"
    done
done
