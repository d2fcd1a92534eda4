#!/usr/bin/env bash
# Figure 6: zero-shot on CIFAR-10-C and CIFAR-100-C, for several networks; which ones the paper takes is not known.
# Fills ilc/fig6
source "$(dirname "$0")/common.sh"

for data in $(pick "cifar10 cifar100" digits); do
    for kind in $(pick "cifar_resnet18_maxpool vit_small_patch4_32" small_cnn); do
        run exec_train.py "$kind" -d "$data" -dir "ilc/$kind-$data" -o sgd -lr 0.01 --nesterov -b 256 -e "$(pick 100 1)" \
            -sched cosine --warmup "$(pick 30 0)"
        run exec_probe.py "$(last "ilc/$kind-$data")" -ood "$data-c$(pick "" /fog-5)" -l "$(pick cuts features.6,avgpool)" -b 256 \
            -lr 1e-4 1e-3 1e-2 -l1 0 1e-3 1e-2 -e "$(pick 50 1)"
    done
done
