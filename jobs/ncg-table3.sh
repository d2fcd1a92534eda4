#!/usr/bin/env bash
# Table 3 and Figure 3: the distance to the decision boundary at the neighbours of unseen images, beside the images' own distance.
# Fills ncg/table3, ncg/fig3
source "$(dirname "$0")/common.sh"

for unseen in ${UNSEEN:-$(pick "mnist-wo1 mnist-wo4 mnist-wo9" digits-wo9)}; do
    train_unseen "ncg/$unseen/nat" CNN002 "$unseen"
    train_unseen "ncg/$unseen/tr2" trades6ce-vtor2-CNN002 "$unseen" --eps 2 --attack-steps "$(pick 10 2)"
    run exec_ncg.py "$(last "ncg/$unseen/tr2")" --against "$(last "ncg/$unseen/nat")" --radius "$(pick 300 2)"
done
