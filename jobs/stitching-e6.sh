#!/usr/bin/env bash
# E6, sensitivity: the same with the source limited to its first directions.
# Fills stitching/e6
source "$(dirname "$0")/common.sh"

for seed in 0 1; do train_stitched "stitching/s$seed" -s "$seed"; done
one=$(last stitching/s0) other=$(last stitching/s1)
layers=$(pick "layer?.?" features.0,features.3)
layer=$(pick layer4.0 features.3)
read -ra ranks <<< "$(pick "512 448 384 320 256 192 128 64 32 16 8 4 2 1" "4 2 1")"
run exec_similarity.py "$one" "$other" auto auto "$layer" "$layer" -m1r "${ranks[@]}" -n "$(pick 1000 100)"
run exec_stitch.py "$one" "$other" auto auto "$layer" "$layer" auto -d "$(pick cifar10 digits)" -i pinv -e 0 \
    --front-stitch-rank "${ranks[@]}"
run exec_probe.py "$one" -l "$layer" -ranks "${ranks[@]}" --protocol id -e "$(pick 10 1)"
run exec_probe.py "$other" -l "$layer" --reduce gap --protocol id -e "$(pick 10 1)"
run exec_tables.py sensitivity
