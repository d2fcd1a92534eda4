#!/usr/bin/env bash
# App. D.4: published robust ResNet-50s for CIFAR-10, as files from elsewhere: put them under models/published/, converted
# once by exec_data.py convert-checkpoint. Their table stays empty: records cannot tell which file is which.
source "$(dirname "$0")/common.sh"

if [ -n "${SMALL:-}" ]; then
    train_method nat digits-wo9
    files=("$(last ncg/digits-wo9/nat)")
else
    files=(models/published/cifar_{nat,l2_0_25,l2_0_5,l2_1_0}.pt" pytorch_cifar_resnet50")
fi
for network in "${files[@]}"; do
    # shellcheck disable=SC2086 # a path and its type
    run exec_eval.py $network -d $(pick "cifar10:train cifar10:test" digits-wo9)
    # shellcheck disable=SC2086
    run exec_ncg.py $network -d "$(pick cifar10 digits-wo9)" -ood "$(pick cifar10-c:test/fog-5 digits-wo9:ood)"
done
