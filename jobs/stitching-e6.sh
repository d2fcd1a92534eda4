#!/usr/bin/env bash
# E6, sensitivity: the same with the source limited to its first directions.
# Fills stitching/e6
source "$(dirname "$0")/common.sh"

kind=$(pick resnet18 lenet)
for seed in 0 1; do train_stitched "stitching/$kind-s$seed" "$kind" -s "$seed"; done
one=$(last "stitching/$kind-s0") other=$(last "stitching/$kind-s1")
layer=$(pick layer4.0 features.3)
pair=("$one" "$other" auto auto "$layer" "$layer")
read -ra ranks <<< "$(pick "512 448 384 320 256 192 128 64 32 16 8 4 2 1" "4 2 1")"
run exec_similarity.py "${pair[@]}" -m1r "${ranks[@]}" -n "$(pick 1000 100)"
for matching in "pinv -e 0" "rand -e $(pick 30 1)"; do
    # shellcheck disable=SC2086 # words
    run exec_stitch.py "${pair[@]}" auto -d "$(pick cifar10 digits)" -i $matching --front-stitch-rank "${ranks[@]}"
done
# the code's probes learn from augmented images, with a tenth of the rate after five of ten epochs
published=(-e "$(pick 10 1)" --augment "$(pick 10 1)" -rlre 5)
run exec_probe.py "$one" -l "$layer" --reduce gap -ranks "${ranks[@]}" --protocol id "${published[@]}"
run exec_probe.py "$other" -l "$layer" --reduce gap --protocol id "${published[@]}"
run exec_tables.py sensitivity
