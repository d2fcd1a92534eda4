#!/usr/bin/env bash
# Figure 1: last against best layer, in distribution, zero-shot and few-shot, on four kinds of shift.
# Fills ilc/fig1
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cmnist cifar10 waterbirds celeba" "digits-colour digits digits-bg")}; do
    train_probed "$data"
    searched "$data" id
    searched "$data" zero-shot
    case $data in  # few-shot is a quarter of the OOD images for CMNIST, all that do not test for the others
        cmnist | digits-colour) searched "$data" few-shot --fraction 0.25 ;;
        *) searched "$data" full-ood ;;
    esac
done
