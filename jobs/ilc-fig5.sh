#!/usr/bin/env bash
# Figure 5, Table 4 and Figure 8: zero-shot worst-group accuracy of the head, the last layer and the best layer; and the
# accuracy of every layer, few-shot and zero-shot.
# Fills ilc/fig5, ilc/table4, ilc/fig8
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "waterbirds celeba multiceleba cmnist cifar10" "digits-bg digits")}; do
    train_probed "$data"
    run exec_eval.py "$(last "ilc/$data")" -d "$data"
    searched "$data" zero-shot
    searched "$data" full-ood
done
