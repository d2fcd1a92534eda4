#!/usr/bin/env bash
# Figure 4: data efficiency: accuracy against the share of OOD images that probes learn from.
# Fills ilc/fig4
source "$(dirname "$0")/common.sh"

read -ra shares <<< "$(pick "0.01 0.03 0.05 0.1 0.25" "0.1 0.2")"
for data in ${DATA:-$(pick "cmnist cifar10 cifar100 waterbirds celeba multiceleba" "digits-colour digits-bg")}; do
    train_probed "$data"
    searched "$data" few-shot --fraction "${shares[@]}"
done
