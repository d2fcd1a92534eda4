#!/usr/bin/env bash
# E5, specificity: do the indices go with probing accuracy, over seeds and layers?
# Fills stitching/e5
source "$(dirname "$0")/common.sh"

layers=$(pick "layer?.?" features.0,features.3)
seeds=${SEEDS:-$(pick "0 1 2 3 4" "0 1")}
for seed in $seeds; do
    train_stitched "stitching/s$seed" -s "$seed"
    run exec_probe.py "$(last "stitching/s$seed")" -l "$layers" --reduce gap --protocol id -e "$(pick 10 1)"
done
for seed in $seeds; do
    if [ "$seed" = 0 ]; then continue; fi
    pair=("$(last "stitching/s$seed")" "$(last stitching/s0)" auto auto "$layers" "$layers")
    run exec_similarity.py "${pair[@]}" -n "$(pick 1000 100)"
    run exec_stitch.py "${pair[@]}" auto -d "$(pick cifar10 digits)" -i pinv -e 0
done
run exec_tables.py specificity
