#!/usr/bin/env bash
# Tables 1, 2, 17-20: nearest-category scores in pixel space of natural and robust networks on unseen classes, and of test
# images: ten sets of MNIST, three each of CIFAR-10, CIFAR-100 and ImageNet-100.
# Fills ncg/pixel, ncg/in-distribution, ncg/fig5, ncg/distance
source "$(dirname "$0")/common.sh"

sets=$(echo mnist-wo{0..9} cifar10-wo{0,4,9} cifar100coarse-wo{0,4,9} imagenet100-wo{0,1,2})
for unseen in ${UNSEEN:-$(pick "$sets" digits-wo9)}; do
    train_method nat "$unseen"
    run exec_ncg.py "$(last "ncg/$unseen/nat")"
    for method in at2 $(printf 'tr%s ' ${EPS:-$(pick "2 4 8" 2)}); do
        train_method "$method" "$unseen"
        run exec_ncg.py "$(last "ncg/$unseen/$method")" --against "$(last "ncg/$unseen/nat")"
    done
done
