#!/usr/bin/env bash
# Figure 6: zero-shot on CIFAR-10-C and CIFAR-100-C; which ViTs the paper takes is not known.
# Fills ilc/fig6
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100 vit-cifar10 vit-cifar100" digits)}; do
    train_probed "$data"
    searched "$data" zero-shot
done
