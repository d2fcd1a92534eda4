#!/usr/bin/env bash
# Figure 3 and Table 3: information content: probes that learn from the whole OOD validation set.
# Fills ilc/fig3, ilc/table3
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cmnist cifar10 cifar100 waterbirds celeba multiceleba vit-cmnist vit-cifar10 vit-cifar100" \
    "digits-colour digits-bg")}; do
    train_probed "$data"
    searched "$data" full-ood
done
for data in ${DATA:-$(pick "cifar10 waterbirds celeba multiceleba" digits-bg)}; do  # against DFR, for which features have to be small
    searched "$data" full-ood --reduce gap --baselines dfr
done
