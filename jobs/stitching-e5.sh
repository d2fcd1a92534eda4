#!/usr/bin/env bash
# E5, specificity: do the indices go with probing accuracy, over seeds and layers?
# Fills stitching/e5
source "$(dirname "$0")/common.sh"

kind=$(pick resnet18 lenet)
layers=$(blocks "$kind")
seeds=${SEEDS:-$(pick "0 1 2 3 4" "0 1")}
for seed in $seeds; do
    train_stitched "stitching/$kind-s$seed" "$kind" -s "$seed"
    run exec_probe.py "$(last "stitching/$kind-s$seed")" -l "$layers" --reduce gap --protocol id -e "$(pick 10 1)" \
        --augment "$(pick 10 1)" -rlre 5
done
for seed in $seeds; do
    if [ "$seed" = 0 ]; then continue; fi
    pair=("$(last "stitching/$kind-s$seed")" "$(last "stitching/$kind-s0")" auto auto "$layers" "$layers")
    run exec_similarity.py "${pair[@]}" -n "$(pick 1000 100)"
    run exec_stitch.py "${pair[@]}" auto -d "$(pick cifar10 digits)" -i pinv -e 0
    run exec_stitch.py "${pair[@]}" auto -d "$(pick cifar10 digits)" -i rand -e "$(pick 30 1)"
done
run exec_tables.py specificity
