#!/usr/bin/env bash
# Figure 1: last against best layer, in distribution, zero-shot and few-shot, on four kinds of shift.
# Fills ilc/fig1
source "$(dirname "$0")/common.sh"

# The networks' type and layers as the paper's notebooks have them; a stage per layer.
layers=$(pick maxpool,layer1,layer2,layer3,layer4,avgpool features.6,avgpool)
panel() {  # CHECKPOINT, OOD sets, the few-shot share
    local settings=(-l "$layers" -b 256 -lr 1e-4 1e-3 1e-2)
    run exec_probe.py "$1" --protocol id "${settings[@]}" -l1 0 1e-3 1e-2 -e "$(pick 50 1)"
    # shellcheck disable=SC2086 # words
    run exec_probe.py "$1" -ood $2 --protocol zero-shot "${settings[@]}" -l1 0 1e-3 1e-2 -e "$(pick 50 1)"
    # shellcheck disable=SC2086
    run exec_probe.py "$1" -ood $2 --protocol few-shot --fraction "$3" "${settings[@]}" -l1 0 1e-4 1e-3 1e-2 -e "$(pick 100 1)"
}
train_cmnist ilc/cmnist
train_probed ilc/cifar10
train_waterbirds ilc/waterbirds
train_celeba ilc/celeba
panel "$(last ilc/cmnist)" "$(pick cmnist digits-colour)" "$(pick 0.25 0.2)"
panel "$(last ilc/cifar10)" "$(pick cifar10-c digits-c/fog-5)" "$(pick 0.25 0.2)"
panel "$(last ilc/waterbirds)" "$(pick waterbirds digits-bg)" "$(pick 0.03 0.2)"
panel "$(last ilc/celeba)" "$(pick celeba digits-bg)" "$(pick 0.03 0.2)"
