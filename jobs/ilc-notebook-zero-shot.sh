#!/usr/bin/env bash
# The published notebook: CIFAR-10-C zero-shot, gains per corruption; the best epoch of every layer.
# Fills ilc/notebook-zero-shot, ilc/notebook-head
source "$(dirname "$0")/common.sh"

data=$(pick cifar10 digits)
train_probed "$data"
# shellcheck disable=SC2046 # words
probe "$data" zero-shot --roles paper -lr 1e-3 --l2-norm 1e-3 -e "$(pick 50 1)" --warm-start \
    --keep-epochs $(pick "1 5 10 15 20 25 30 35 40 45 50" 1)
