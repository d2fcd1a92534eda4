#!/usr/bin/env bash
# Figure 9: the sensitivity score of every layer and group.
# Fills ilc/fig9
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "waterbirds celeba multiceleba" digits-bg)}; do
    train_probed "$data"
    probe "$data" zero-shot -e "$(pick 50 1)" --sensitivity
done
