#!/usr/bin/env bash
# Figure 7: zero-shot on relatives of ImageNet, with torchvision's published ResNet-50: put its file under models/published/.
# Fills ilc/fig7
source "$(dirname "$0")/common.sh"

if [ -n "${SMALL:-}" ]; then
    train_probed ilc/cifar10
    network="$(last ilc/cifar10)"
else
    network="models/published/resnet50-0676ba61.pth tv_resnet50 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"
fi
for shift in $(pick "imagenet-a imagenet-r cue-conflict silhouette" digits-c/fog-5); do
    # shellcheck disable=SC2086 # a path, its type and flags
    run exec_probe.py $network -d "$(pick imagenet digits)" -ood "$shift" -l "$(pick layer1,layer2,layer3,layer4,avgpool \
        features.6,avgpool)" --reduce gap -b 256 -lr 1e-4 1e-3 1e-2 -l1 0 1e-3 1e-2 -e "$(pick 50 1)"
done
