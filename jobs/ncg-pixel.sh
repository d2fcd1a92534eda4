#!/usr/bin/env bash
# Tables 1, 2, 17-20: nearest-category scores in pixel space of natural and robust networks on unseen classes, and of test
# images. MNIST here; CIFAR-10 and ImageNet-100 are other lists of sets with WRN_40_10 and ResNet50 (-o adam, -b 64 and 128).
# Fills ncg/pixel, ncg/in-distribution, ncg/fig5, ncg/distance
source "$(dirname "$0")/common.sh"

sets=${UNSEEN:-$(pick "$(echo mnist-wo{0..9})" digits-wo9)}
for unseen in $sets; do
    train_unseen "ncg/$unseen/nat" CNN002 "$unseen"
    run exec_ncg.py "$(last "ncg/$unseen/nat")"
    train_unseen "ncg/$unseen/at2" advce-vtor2-CNN002 "$unseen" --eps 2 --attack-steps "$(pick 10 2)"
    run exec_ncg.py "$(last "ncg/$unseen/at2")" --against "$(last "ncg/$unseen/nat")"
    for eps in ${EPS:-$(pick "2 4 8" 2)}; do
        train_unseen "ncg/$unseen/tr$eps" trades6ce-vtor2-CNN002 "$unseen" --eps "$eps" --attack-steps "$(pick 10 2)"
        run exec_ncg.py "$(last "ncg/$unseen/tr$eps")" --against "$(last "ncg/$unseen/nat")"
    done
done
