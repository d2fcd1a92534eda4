#!/usr/bin/env bash
# Table 3 and Figure 3: the distance to the decision boundary at the neighbours of unseen images, and the images' own.
# Fills ncg/table3, ncg/fig3
source "$(dirname "$0")/common.sh"

sets=$(echo mnist-wo{0,1,4,9} cifar10-wo{0,4,9} imagenet100-wo{0,1,2})
for unseen in ${UNSEEN:-$(pick "$sets" digits-wo9)}; do
    for method in nat $(pick "at2 tr2 tr4 tr8" tr2); do
        train_method "$method" "$unseen"
        run exec_ncg.py "$(last "ncg/$unseen/$method")" --radius "$(pick 300 2)"
    done
done
