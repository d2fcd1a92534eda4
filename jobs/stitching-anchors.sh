#!/usr/bin/env bash
# External anchors: a ResNet-18 trained on CIFAR-10 or on as many images of CIFAR-5M, tested on both.
# Fills stitching/anchors
source "$(dirname "$0")/common.sh"

for data in ${DATA:-$(pick "cifar10 cifar5m" digits)}; do
    few=()
    if [ "$data" = cifar5m ]; then few=(--max-examples 50000); fi
    run exec_train.py "$(pick resnet18 lenet)" -d "$data" -dir "stitching/anchor-$data" -o sgd -lr 0.1 -wd 5e-4 -b 128 \
        -sched cosine -e "$(pick 100 1)" "${few[@]}"
    # shellcheck disable=SC2046 # words
    run exec_eval.py "$(last "stitching/anchor-$data")" -d $(pick "cifar10 cifar5m" "digits digits:train")
done
