#!/usr/bin/env bash
# Figure 7: zero-shot on relatives of ImageNet, with torchvision's published ResNet-50: the init.pt of a training that starts
# from it, and is cut short. Probes learn from ImageNet's images in the classes of the relative, on pooled features.
# Fills ilc/fig7
source "$(dirname "$0")/common.sh"

if [ -n "${SMALL:-}" ]; then
    train_probed digits
    searched digits zero-shot --reduce gap
else
    run exec_train.py tv_resnet50 -d imagenet -dir ilc/imagenet --pretrained -e 1 --max-examples 256
    for pair in imagenet200a:imagenet-a imagenet200:imagenet-r imagenet16:cue-conflict imagenet16:silhouette; do
        run exec_probe.py models/ilc/imagenet/init.pt -d "${pair%:*}" -ood "${pair#*:}" -l "layer?,avgpool" --reduce gap \
            -b 256 -lr 1e-4 1e-3 1e-2 -l1 0 1e-3 1e-2 -e 100 -s 0 1 2 3 4
    done
fi
