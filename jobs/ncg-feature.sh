#!/usr/bin/env bash
# Nearest-category scores in the feature space of the natural network: the flattened second pool of CNN002. The paper trains
# MLPs on these features; here the networks of pixel space are asked.
source "$(dirname "$0")/common.sh"

sets=$(pick "$(echo mnist-wo{0..9})" digits-wo9)
for unseen in $sets; do
    train_unseen "ncg/$unseen/nat" CNN002 "$unseen"
    train_unseen "ncg/$unseen/at2" advce-vtor2-CNN002 "$unseen" --eps 2 --attack-steps "$(pick 10 2)"
    for network in nat at2; do
        run exec_ncg.py "$(last "ncg/$unseen/$network")" --space feature --backbone "$(last "ncg/$unseen/nat")"
    done
done
