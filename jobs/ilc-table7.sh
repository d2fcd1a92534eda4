#!/usr/bin/env bash
# Table 7: the control with all layers at 512 principal components.
# Fills ilc/table7
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100 waterbirds celeba multiceleba" digits)}; do
    train_probed "$data"
    searched "$data" zero-shot --reduce "pca:$(pick 512 8)"
done
