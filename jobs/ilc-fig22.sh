#!/usr/bin/env bash
# Figures 22, 23: an index of neural collapse by depth, in and out of distribution.
# Fills ilc/fig22
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100" digits)}; do
    train_probed "$data"
    probe "$data" zero-shot --baselines collapse -e 1
done
