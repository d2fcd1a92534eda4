#!/usr/bin/env bash
# App. C.4: layer and settings chosen on other shifts than the one that is tested on.
# Fills ilc/appendix-c4
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar100" digits)}; do
    train_probed "$data"
    searched "$data" zero-shot --select transfer
done
