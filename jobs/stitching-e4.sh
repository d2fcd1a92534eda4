#!/usr/bin/env bash
# E4: structural indices over the grid: CKA, PWCCA, orthogonal Procrustes, and direct matching's difference.
# Fills stitching/e4
source "$(dirname "$0")/common.sh"

for seed in 0 1; do train_stitched "stitching/s$seed" -s "$seed"; done
one=$(last stitching/s0) other=$(last stitching/s1)
layers=$(pick "layer?.?" features.0,features.3)
run exec_similarity.py "$one" "$other" auto auto "$layers" "$layers" -n "$(pick 1000 100)" --measures cka pwcca procrustes
run exec_stitch.py "$one" "$other" auto auto "$layers" "$layers" auto -d "$(pick cifar10 digits)" -i pinv -e 0
