#!/usr/bin/env bash
# Tables 1, 2: hits of natural networks on every unseen class, in feature space, against chance and better null rates.
# Fills ncg/chi-square
source "$(dirname "$0")/common.sh"

sets=$(echo mnist-wo{0..9} cifar10-wo{0..9} cifar100coarse-wo{0..9} imagenet100-wo{0..9})
for unseen in ${UNSEEN:-$(pick "$sets" digits-wo9)}; do
    train_method nat "$unseen"
    train_head head-counted "$unseen" -lr 0.01
    run exec_ncg.py "$(last "ncg/$unseen/head-counted")"
done
