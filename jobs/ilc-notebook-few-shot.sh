#!/usr/bin/env bash
# The published notebook: CIFAR-10-C few-shot, one probe per layer for all corruptions together, its best epoch.
# Fills ilc/notebook-few-shot
source "$(dirname "$0")/common.sh"

data=$(pick cifar10 digits)
train_probed "$data"
# shellcheck disable=SC2046 # words
probe "$data" few-shot --roles paper --tuning shared -lr 1e-3 -l1 1e-4 -e "$(pick 100 1)" \
    --keep-epochs $(pick "1 10 20 30 40 50 60 70 80 90 100" 1)
