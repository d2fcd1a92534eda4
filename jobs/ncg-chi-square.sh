#!/usr/bin/env bash
# Tables 1, 2: hits of natural networks on every unseen class against chance, and against better null rates.
source "$(dirname "$0")/common.sh"

sets=$(pick "$(echo mnist-wo{0..9} cifar10-wo{0..9} cifar100coarse-wo{0..9})" digits-wo9)
for unseen in $sets; do
    case $unseen in cifar*) network=WRN_40_10 ;; *) network=CNN002 ;; esac
    train_unseen "ncg/$unseen/nat" "$network" "$unseen"
    run exec_ncg.py "$(last "ncg/$unseen/nat")" --space feature
done
