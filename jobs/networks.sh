# The papers' networks, each trained by a word `train_x`; what is there is not trained again. Settings are the papers' where
# they state them.

# The hyperplane paper's networks, as type:data; a job goes over them and over seeds.
networks=${NETWORKS:-$(pick "lenet:mnist vgg11:cifar10 vgg19:cifar10" lenet:digits)}

# `train_plain DIR TYPE:DATA [more flags]`: one of them with snapshots on the way, the first ten epochs and every tenth.
train_plain() {
    run exec_train.py "${2%:*}" -d "${2#*:}" -dir "$1" -o sgd -lr 0.01 -wd 5e-4 -b 128 -e "$(pick 40 2)" --per-image-std \
        -sf "$(pick 10 1)" --snapshot-all-until "$(pick 10 1)" "${@:3}"
}

# `train_stitched DIR TYPE`: a ResNet-18 with the CIFAR stem, or a ViT (stitching): the code's defaults, Adam, 100 epochs.
train_stitched() {
    run exec_train.py "$2" -d "$(pick cifar10 digits)" -dir "$1" -e "$(pick 100 1)" "${@:3}"
}

# The layers at which networks of a type are stitched.
blocks() {
    case $1 in vit*) echo "blocks.*" ;; lenet) echo features.0,features.3 ;; *) echo "layer?.?" ;; esac
}

# `train_probed NAME`: a network of the intermediate-layer paper in models/ilc/NAME/; NAME is its data, or vit- and that.
# Recipes are those of the checkpoints that the paper took; those of MultiCelebA, CMNIST and of the ViTs were not found.
train_probed() {
    local settings=(small_cnn -e 1)
    case $1 in
        cifar10) settings=(cifar_resnet18_maxpool -o sgd --nesterov -lr 0.01 -wd 1e-2 -b 256 -e 100 -sched cosine
            --warmup 30) ;;
        cifar100) settings=(pytorch_cifar_resnet18 -o sgd --nesterov -lr 0.1 -wd 5e-4 -e 200 -sched cosine) ;;
        waterbirds) settings=(tv_resnet50 --pretrained -o sgd -lr 1e-3 -wd 1e-3 -b 32 -e 100) ;;
        celeba) settings=(tv_resnet50 --pretrained -o sgd -lr 1e-3 -wd 1e-4 -b 128 -e 50) ;;
        multiceleba) settings=(tv_resnet18 --pretrained -o sgd -lr 1e-3 -wd 1e-4 -b 128 -e 50) ;;
        cmnist) settings=(resnet20) ;;
        vit-*) settings=(vit_tiny_patch4_32) ;;
    esac
    run exec_train.py "${settings[@]}" -d "${1#vit-}" -dir "ilc/$1" "${@:2}"
}

# `probe NAME PROTOCOL [more flags]`: probes on that network with five seeds, on the layers and shifts of the paper.
probe() {
    local shifts=("${1#vit-}") layers="maxpool,layer?,avgpool" metric=accuracy
    case $1 in
        digits) shifts=(digits-c/fog-5 digits-c/contrast-5) layers=pool2,avgpool ;;
        digits-*) layers=pool2,avgpool ;;
        *cifar*) shifts=("${1#vit-}-c") layers="relu,$layers" ;;
    esac
    case $1 in
        cifar100) layers="layer?" ;;
        cmnist) layers="relu,layer?,avgpool" ;;
        vit-*) layers="blocks.?,blocks.??" ;;
    esac
    case $1-$2 in *-id) ;; waterbirds-* | *celeba-* | digits-bg-*) metric=auto ;; esac  # the worst group
    if [ "$2" = id ]; then shifts=(); else shifts=(-ood "${shifts[@]}"); fi
    # shellcheck disable=SC2046 # words
    run exec_probe.py "$(last "ilc/$1")" --protocol "$2" "${shifts[@]}" -l "$layers" --metric "$metric" -b 256 \
        -s $(pick "0 1 2 3 4" 0) "${@:3}"
}

# The same with the paper's search for learning rate and penalty, 100 epochs.
searched() {
    local l1=(0 1e-3 1e-2)
    case $2 in few-shot | full-ood) l1=(0 1e-4 1e-3 1e-2) ;; esac
    probe "$1" "$2" -lr 1e-4 1e-3 1e-2 -l1 "${l1[@]}" -e "$(pick 100 1)" "${@:3}"
}

# `train_ood DIR TYPE DATA`: a ResNet-18 by OpenOOD's recipe: resnet18 with the CIFAR stem as there, tv_resnet18 with
# ImageNet's (OOD layers).
train_ood() {
    run exec_train.py "$(pick "$2" lenet)" -d "$3" -dir "$1" -o sgd -lr 0.1 -wd 5e-4 -b 128 -e "$(pick 100 1)" -sched cosine \
        "${@:4}"
}

# The outliers of a data set that are small sets themselves (OOD layers).
outside() {
    case $1 in
        cifar100) echo svhn cifar10 mnist fashionmnist ;;
        digits) echo patches digits-c/fog-5 ;;
        *) echo svhn cifar100 mnist fashionmnist ;;
    esac
}

# `train_nearest NAME DATA STRING`: a network of the nearest-category paper in models/ncg/DATA/NAME/, on all classes of DATA
# or on those but one: 70 epochs, a tenth of the rate after 40, 50 and 60. STRING is its loss as the paper's model strings have
# it: ce, advce, trades6ce. Like those, networks get images as they are, those of ImageNet-100 normalised.
train_nearest() {
    local network=CNN002 settings=(-o sgd -b 128)
    case $2 in
        cifar*) network=WRN_40_10 settings=(-o adam -b 64) ;;
        imagenet100*) network=ResNet50Norm01 settings=(-o adam -b 128 --image-size 112) ;;
    esac
    run exec_train.py "$3-vtor2-$network" -d "$2" -dir "ncg/$2/$1" "${settings[@]}" -lr 0.01 -wd 0 -e "$(pick 70 1)" \
        -rlre 40 50 60 "${@:4}"
}

# Its networks by their names: nat, at2, tr2, tr4, tr8. `train_method NAME DATA`
train_method() {
    local steps
    steps=$(pick 10 2)
    case $1 in
        nat) train_nearest nat "$2" ce ;;
        at*) train_nearest "$1" "$2" advce --eps "${1#at}" --attack-steps "$steps" ;;
        tr*) train_nearest "$1" "$2" trades6ce --eps "${1#tr}" --attack-steps "$steps" ;;
    esac
}

# `train_head NAME DATA [more flags]`: an MLP on the natural network's features, in models/ncg/DATA/NAME/.
train_head() {
    local network=LargeMLP layer=flatten settings=(-b 256 -lr 0.01)
    case $2 in
        cifar*) settings=(-b 128 -lr 0.01) ;;
        imagenet100*) network=LargeMLPv4 layer=avgpool settings=(-b 128 -lr 0.1) ;;
    esac
    run exec_train.py "$network" -d "features=$(last "ncg/$2/nat"):$layer:$2" -dir "ncg/$2/$1" -o sgd "${settings[@]}" \
        -wd 0 --augmentation none -e "$(pick 70 1)" -rlre 40 50 60 "${@:3}"
}
