#!/usr/bin/env bash
# Figure 18: accuracy in and out of distribution, by depth.
# Fills ilc/fig18
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100" digits)}; do
    train_probed "$data"
    searched "$data" id
    searched "$data" zero-shot
done
