#!/usr/bin/env bash
# The published notebook: Waterbirds zero-shot, every layer with one setting, the best epoch of each by worst-group accuracy.
# Fills ilc/notebook-waterbirds
source "$(dirname "$0")/common.sh"

data=$(pick waterbirds digits-bg)
train_probed "$data"
# shellcheck disable=SC2046 # words
probe "$data" zero-shot --roles paper -lr 1e-4 -l1 1e-2 -e "$(pick 50 1)" --warm-start \
    --keep-epochs $(pick "1 5 10 15 20 25 30 35 40 45 50" 1)
