#!/usr/bin/env bash
# Nearest-category scores in feature space: MLPs, trained naturally and robustly, on features of the natural network: those
# of CNN002's second pool (1024), and pooled ones of WRN_40_10 (640) and ResNet50 (2048).
# Fills ncg/feature, ncg/in-distribution-feature
source "$(dirname "$0")/common.sh"

sets=$(echo mnist-wo{0..9} cifar10-wo{0,4,9} cifar100coarse-wo{0,4,9} imagenet100-wo{0,1,2})
for unseen in ${UNSEEN:-$(pick "$sets" digits-wo9)}; do
    train_method nat "$unseen"
    train_head head-nat "$unseen"
    run exec_ncg.py "$(last "ncg/$unseen/head-nat")"
    train_head head-mixup "$unseen" --loss mixup
    run exec_ncg.py "$(last "ncg/$unseen/head-mixup")" --against "$(last "ncg/$unseen/head-nat")"
    for eps in ${EPS:-$(pick "2 4 8" 2)}; do
        rate=()
        case $unseen-$eps in imagenet100*-2) rate=(-lr 0.01) ;; esac
        train_head "head-tr$eps" "$unseen" --loss trades --eps "$eps" --attack-steps "$(pick 10 2)" "${rate[@]}"
        run exec_ncg.py "$(last "ncg/$unseen/head-tr$eps")" --against "$(last "ncg/$unseen/head-nat")"
    done
done
