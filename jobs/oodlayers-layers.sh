#!/usr/bin/env bash
# The bar figure: which layer's energy tells SVHN from CIFAR-10? A ResNet-18 with ImageNet's stem.
# Fills oodlayers/layers
source "$(dirname "$0")/common.sh"

for seed in ${SEEDS:-$(pick "0 1 2" 0)}; do
    train_ood "oodlayers/imagenet-stem-s$seed" tv_resnet18 "$(pick cifar10 digits)" -s "$seed"
    run exec_ood_layers.py "$(last "oodlayers/imagenet-stem-s$seed")" -ood "$(pick svhn patches)"
done
