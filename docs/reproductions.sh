#!/usr/bin/env bash
# The commands behind docs/reproductions.md, of some lines of the page or of all:
#
#     bash docs/reproductions.sh ncg-natural hyperplanes
#
# They need MNIST and the JPEG tree data/cifar10-jpeg/{train,test}/<class>/, and for imagenet a file of images and the package
# that ships the weights. Trainings are in bfloat16, since the processor of the page has products of that; what is there is
# not run again. WORK_DIR is the folder of data/, models/ and results/.
source "$(dirname "$0")/../jobs/common.sh"

unseen=mnist-wo9
precision=(--precision bf16)

# A CNN002 that has not seen the nines, and an MLP on its features, at the paper's 70 epochs.
ncg-natural() {
    local seed name
    for seed in ${SEEDS:-0 1 2}; do
        name=nat
        if [ "$seed" != 0 ]; then name=nat-s$seed; fi
        train_nearest "$name" "$unseen" ce -s "$seed" "${precision[@]}"
        run exec_ncg.py "$(last "ncg/$unseen/$name")" --radius 300
        run exec_train.py LargeMLP -d "features=$(last "ncg/$unseen/$name"):flatten:$unseen" -dir "ncg/$unseen/head-$name" \
            -o sgd -b 256 -lr 0.01 -wd 0 --augmentation none -e 70 -rlre 40 50 60 -s "$seed" "${precision[@]}"
        run exec_ncg.py "$(last "ncg/$unseen/head-$name")"
    done
}

# AT(2) for eight epochs instead of 70 and TRADES(2) for four, with milestones at about the same shares of them.
ncg-robust() {
    train_nearest at2 "$unseen" advce --eps 2 --attack-steps 10 -e 8 -rlre 5 6 7 "${precision[@]}"
    run exec_ncg.py "$(last "ncg/$unseen/at2")" --against "$(last "ncg/$unseen/nat")" --radius 300
    train_nearest tr2 "$unseen" trades6ce --eps 2 --attack-steps 10 -e 4 -rlre 2 3 "${precision[@]}"
    run exec_ncg.py "$(last "ncg/$unseen/tr2")" --radius 300
}

# LeNet on MNIST at the settings of the hyperplane paper.
hyperplanes() {
    local seed folder
    for seed in ${SEEDS:-0 1 2}; do
        folder=hyperplanes/lenet-s$seed
        train_plain "$folder" lenet:mnist -s "$seed" "${precision[@]}"
        run exec_projections.py "models/$folder" --normalize
        run exec_projections.py "models/$folder/init.pt" "$(last "$folder")" --normalize --with-linear
        run exec_reinit.py "$(last "$folder")" --inits-from "models/$folder" --rand 5 --criticality
    done
    run exec_projections.py lenet -d mnist --random 20 --normalize
}

# A ResNet-20 on the JPEG tree of CIFAR-10, 20 epochs: OOD layers, detectors, probes under 19 corruptions, both ways of stitching,
# and the study of all layers.
cifar10-jpeg() {
    local folder=reproductions/resnet20-s0 one pair kinds
    run exec_train.py resnet20 -d cifar10-jpeg -dir "$folder" -o sgd -lr 0.1 -wd 5e-4 --nesterov -b 128 -e 20 -sched cosine \
        "${precision[@]}"
    one=$(last "$folder")
    run exec_eval.py "$one"
    run exec_ood_layers.py "$one" -ood mnist npy=data/fashion_mnist_900.npy npy=data/imagenet_sample_64.npy \
        cifar10-jpeg-c/gaussian_noise-3 --baselines all --layer-detectors knn mahalanobis --fit-examples 5000 -b 256
    kinds="gaussian_noise shot_noise impulse_noise speckle_noise gaussian_blur defocus_blur glass_blur motion_blur zoom_blur
        snow frost fog brightness contrast elastic_transform pixelate jpeg_compression saturate spatter"
    # shellcheck disable=SC2086,SC2046 # words
    run exec_probe.py "$one" -ood $(printf "cifar10-jpeg-c/%s-5 " $kinds) --protocol zero-shot -l "layer?.?" --reduce gap -e 20 \
        --select id-val oracle --null 199 --max-examples 5000 -b 256
    # shellcheck disable=SC2046 # words
    run exec_probe.py "$one" -ood $(printf "cifar10-jpeg-c/%s-5 " gaussian_noise glass_blur fog contrast) --protocol zero-shot \
        -l "layer?.?" --reduce flatten -e 20 --select id-val oracle --null 199 --max-examples 5000 -b 256
    pair=("$one" "$one" auto auto "layer1.0,layer2.0,layer3.0,layer3.2" "layer1.0,layer2.0,layer3.0,layer3.2" auto
        -d cifar10-jpeg --max-examples 3000)
    run exec_stitch.py "${pair[@]}" -i pinv -e 0 --permutations 99
    run exec_stitch.py "${pair[@]}" -i rand -e 4 --permutations 99
}

# Why probes on earlier layers gain little there: towards what the published notebook does, one factor at a time. Its network is
# resnet18's; data/cifar10-jpeg-q30 is the tree with each image saved once more, at quality 30.
probe-factors() {
    local seen=cifar10-jpeg one other stem="relu,layer?,avgpool" all="relu,maxpool,layer?,avgpool"
    local shifts=(impulse_noise-5 gaussian_noise-5 contrast-5 spatter-5 fog-5 glass_blur-5)
    local notebook=(-lr 1e-3 --l2-norm 1e-3 -e 50 --keep-epochs 1 5 10 20 30 40 50 --warm-start)
    local wrong=(--mean 0.4914 0.4822 0.4465 --std 0.2023 0.1994 0.2010) elsewhere=models/reproductions/rescaled
    one=$(last reproductions/resnet20-s0)
    gains "$one" --reduce gap -l "$stem" -e 20
    gains "$one" -l "$stem" -e 20
    gains "$one" -l "$stem" "${notebook[@]}"
    gains "$one" -l "$stem" "${notebook[@]}" --max-examples 20000
    mkdir -p "$elsewhere"
    cp "$one" "$elsewhere/resnet20.pt"  # without its sidecar, whose normalisation is right
    gains "$elsewhere/resnet20.pt" resnet20 "${wrong[@]}" -l "$stem" "${notebook[@]}"
    run exec_train.py cifar_resnet18_maxpool -d cifar10-jpeg -dir reproductions/resnet18-s0 -o sgd -lr 0.1 -wd 5e-4 --nesterov \
        -b 128 -e 15 -sched cosine --warmup 3 "${precision[@]}"
    other=$(last reproductions/resnet18-s0)
    run exec_eval.py "$other"
    gains "$other" -l "$all" "${notebook[@]}"
    cp "$other" "$elsewhere/resnet18.pt"
    gains "$elsewhere/resnet18.pt" cifar_resnet18_maxpool "${wrong[@]}" -l "$all" "${notebook[@]}"
    shifts=(impulse_noise-1 impulse_noise-3 gaussian_noise-1 gaussian_noise-3 contrast-1 contrast-3)
    gains "$other" -l "$all" "${notebook[@]}"
    seen=cifar10-jpeg-q30 shifts=(impulse_noise-5 gaussian_noise-5 contrast-5 spatter-5 fog-5 glass_blur-5)
    run exec_train.py resnet20 -d "$seen" -dir reproductions/resnet20-q30 -o sgd -lr 0.1 -wd 5e-4 --nesterov -b 128 -e 20 \
        -sched cosine "${precision[@]}"
    one=$(last reproductions/resnet20-q30)
    run exec_eval.py "$one"
    gains "$one" -l "$stem" "${notebook[@]}"
}

# `gains CHECKPOINT [TYPE] [flags]`: what layers gain over the last one under $shifts of $seen.
gains() {
    local named=("$1")
    if [[ $2 != -* ]]; then named+=("$2"); shift; fi
    # shellcheck disable=SC2046 # words
    run exec_probe.py "${named[@]}" -d "$seen" -ood $(printf "$seen-c/%s " "${shifts[@]}") --protocol zero-shot --roles paper \
        --select ood-val oracle --max-examples 5000 -b 256 "${@:2}"
}

# EfficientNet-Lite0 with published weights of ImageNet, on one 64 px crop per class, enlarged.
imagenet() {
    local model=models/imagenet/lite0.pth kind=lite.py:lite0
    local given=(--mean 0.498 0.498 0.498 --std 0.502 0.502 0.502 --image-size 224 -d npy=data/imagenet_sample_64.npy)
    run exec_projections.py "$model" "$kind" --normalize
    run exec_projections.py "$kind" --random 5 --normalize -d imagenet
    run exec_ood_layers.py "$model" "$kind" "${given[@]}" -ood cifar10-jpeg mnist -l "_conv_stem,_blocks.?,_blocks.??,_conv_head,_fc" \
        --max-examples 500
    run exec_reinit.py "$model" "$kind" "${given[@]}" -l "_conv_stem,_blocks.*._depthwise_conv,_conv_head,_fc" --rand 2 \
        --max-examples 300
}

lines=("$@")
if [ $# = 0 ]; then lines=(ncg-natural ncg-robust hyperplanes cifar10-jpeg probe-factors imagenet); fi
for line in "${lines[@]}"; do "$line"; done
