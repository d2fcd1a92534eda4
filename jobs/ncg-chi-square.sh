#!/usr/bin/env bash
# Tables 1, 2: hits of natural networks on every unseen class, in feature space, against chance and better null rates.
# Fills ncg/chi-square
source "$(dirname "$0")/common.sh"

for unseen in ${UNSEEN:-$(pick "$(echo mnist-wo{0..9} cifar10-wo{0..9} cifar100coarse-wo{0..9})" digits-wo9)}; do
    case $unseen in cifar*) network=WRN_40_10 layer=avgpool ;; *) network=CNN002 layer=flatten ;; esac
    train_unseen "ncg/$unseen/nat" "$network" "$unseen"
    train_head "ncg/$unseen/head-nat" "features=$(last "ncg/$unseen/nat"):$layer:$(pick "$unseen" digits-wo9)"
    run exec_ncg.py "$(last "ncg/$unseen/head-nat")"
done
