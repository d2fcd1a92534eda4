#!/usr/bin/env bash
# The published notebook: total variation distance of every layer and corruption from the clean images.
# Fills ilc/notebook-sensitivity
source "$(dirname "$0")/common.sh"

data=$(pick cifar10 digits)
train_probed "$data"
probe "$data" zero-shot --sensitivity -e 1
