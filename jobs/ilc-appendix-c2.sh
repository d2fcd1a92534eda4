#!/usr/bin/env bash
# App. C.2: probes with a hidden layer.
# Fills ilc/appendix-c2
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100 waterbirds celeba multiceleba" digits)}; do
    train_probed "$data"
    searched "$data" zero-shot --baselines mlp
done
