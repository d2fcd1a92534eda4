#!/usr/bin/env bash
# E3: are stitched activations in distribution? Detectors for every layer, fine-tuned with outliers, answer for both grids.
# Fills stitching/e3
source "$(dirname "$0")/common.sh"

for kind in ${TYPES:-$(pick "resnet18 vit_tiny_patch4_32" lenet)}; do
    for seed in 0 1; do train_stitched "stitching/$kind-s$seed" "$kind" -s "$seed"; done
    one=$(last "stitching/$kind-s0") other=$(last "stitching/$kind-s1")
    layers=$(pick "$(blocks "$kind")" features.3)
    case $kind in vit*) detector=repr_cls_vit_tiny ;; *) detector=$(pick repr_cls_resnet18 repr_cls_resnet20) ;; esac
    run exec_ood_detector.py "$other" auto "$layers" -m "$detector" -d "$(pick cifar10 digits)" -b "$(pick 512 64)" \
        -e "$(pick 100 1)" -fe "$(pick 10 1)" -ftoodd "$(pick 300k patches)" -dir "stitching/$kind-detectors"
    pair=("$one" "$other" auto auto "$layers" "$layers" auto -d "$(pick cifar10 digits)")
    run exec_stitch.py "${pair[@]}" -i rand -e "$(pick 30 1)" --name "e3-$kind-task"
    run exec_stitch.py "${pair[@]}" -i pinv -e 0 --name "e3-$kind-direct"
    run exec_stitch_ood.py results/stitch/e3-"$kind"-{task,direct}.json -scd "$(pick svhn patches)"
done
