#!/usr/bin/env bash
# Nearest-category scores in feature space: heads trained, naturally and robustly, on the second pool's 1024 features of the
# natural CNN002. For CIFAR-10 and ImageNet-100: WRN_40_10's and ResNet50's pooled features, AT with --eps 1 and 0.5.
# Fills ncg/feature, ncg/in-distribution-feature
source "$(dirname "$0")/common.sh"

for unseen in ${UNSEEN:-$(pick "$(echo mnist-wo{0..9})" digits-wo9)}; do
    train_unseen "ncg/$unseen/nat" CNN002 "$unseen"
    features="features=$(last "ncg/$unseen/nat"):flatten:$(pick "$unseen" digits-wo9)"
    train_head "ncg/$unseen/head-nat" "$features"
    run exec_ncg.py "$(last "ncg/$unseen/head-nat")"
    train_head "ncg/$unseen/head-at2" "$features" --loss at --eps 2 --attack-steps "$(pick 10 2)"
    run exec_ncg.py "$(last "ncg/$unseen/head-at2")" --against "$(last "ncg/$unseen/head-nat")"
    for eps in ${EPS:-$(pick "2 4 8" 2)}; do
        train_head "ncg/$unseen/head-tr$eps" "$features" --loss trades --eps "$eps" --attack-steps "$(pick 10 2)"
        run exec_ncg.py "$(last "ncg/$unseen/head-tr$eps")" --against "$(last "ncg/$unseen/head-nat")"
    done
done
