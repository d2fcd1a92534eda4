#!/usr/bin/env bash
# App. D.4: published robust ResNet-50s for CIFAR-10, as files from elsewhere: put them under models/published/ (l2 0.5 and
# natural), converted once by exec_data.py convert-checkpoint.
# Fills ncg/robust-checkpoints
source "$(dirname "$0")/common.sh"

if [ -n "${SMALL:-}" ]; then
    train_unseen ncg/small/nat CNN002 digits-wo9
    natural="$(last ncg/small/nat)" robust=$natural
else
    natural="models/published/cifar_nat.pt resnet50" robust="models/published/cifar_l2_0_5.pt resnet50"
fi
for network in "$natural" "$robust"; do
    # shellcheck disable=SC2086 # a path and its type
    run exec_ncg.py $network -d "$(pick cifar10 digits-wo9)" -ood "$(pick cifar10-c:test/fog-5 digits-wo9:ood)"
done
