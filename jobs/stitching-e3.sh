#!/usr/bin/env bash
# E3: are stitched activations in distribution? Detectors for every layer, fine-tuned with outliers, answer for both grids.
# Fills stitching/e3
source "$(dirname "$0")/common.sh"

for seed in 0 1; do train_stitched "stitching/s$seed" -s "$seed"; done
one=$(last stitching/s0) other=$(last stitching/s1)
layers=$(pick "layer?.?" features.3)
run exec_ood_detector.py "$other" auto "$layers" -m "$(pick repr_cls_resnet18 repr_cls_resnet20)" -d "$(pick cifar10 digits)" \
    -b "$(pick 512 64)" -e "$(pick 100 1)" -fe "$(pick 10 1)" -ftoodd "$(pick 300k patches)" -dir stitching/detectors
run exec_stitch.py "$one" "$other" auto auto "$layers" "$layers" auto -d "$(pick cifar10 digits)" -i rand -e "$(pick 30 1)" \
    --name e3-task
run exec_stitch.py "$one" "$other" auto auto "$layers" "$layers" auto -d "$(pick cifar10 digits)" -i pinv -e 0 --name e3-direct
run exec_stitch_ood.py results/stitch/e3-task.json results/stitch/e3-direct.json -scd "$(pick svhn patches)"
