#!/usr/bin/env bash
# Table 4, Figure 6, App. D.3 and D.7: corrupted test images at five levels, robust networks against a natural one.
# Fills ncg/table4, ncg/fig6, ncg/corruptions, ncg/conditional, ncg/distance-accuracy
source "$(dirname "$0")/common.sh"

standard="gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog brightness
    contrast elastic_transform pixelate jpeg_compression"
for data in ${DATA:-$(pick "imagenet100 cifar10 cifar100coarse" digits)}; do
    train_method nat "$data"
    kinds=$(pick all "fog contrast")
    if [ "$data" = imagenet100 ]; then kinds=$standard; fi # the paper has 15 of ImageNet-C
    for method in $(pick "tr2 at2 tr4" tr2); do
        train_method "$method" "$data"
        # shellcheck disable=SC2086 # words
        run exec_ncg.py "$(last "ncg/$data/$method")" --against "$(last "ncg/$data/nat")" --corruptions $kinds
    done
done
