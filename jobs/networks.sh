# The papers' networks. `train_x DIR [more flags]` leaves models/DIR/; what is there is not trained again. Settings are the
# papers' where they state them (the README says where they do not).

# A VGG19 with snapshots on the way (hyperplanes): 40 epochs, the first ten saved.
train_vgg() {
    run exec_train.py "$(pick vgg19 lenet)" -d "$(pick cifar10 digits)" -dir "$1" -o sgd -lr 0.01 -wd 5e-4 -b 128 \
        -e "$(pick 40 2)" --per-image-std -sf "$(pick 5 1)" --snapshot-all-until "$(pick 10 1)" "${@:2}"
}

# A ResNet-18 with the CIFAR stem (stitching): the code's defaults, Adam 1e-3, 100 epochs.
train_stitched() {
    run exec_train.py "$(pick resnet18 lenet)" -d "$(pick cifar10 digits)" -dir "$1" -e "$(pick 100 1)" "${@:2}"
}

# The ResNet-18 of the probing notebooks on CIFAR-10 (intermediate layers).
train_probed() {
    run exec_train.py "$(pick cifar_resnet18_maxpool small_cnn)" -d "$(pick cifar10 digits)" -dir "$1" -o sgd -lr 0.01 \
        --nesterov -wd 1e-2 -b 256 -e "$(pick 100 1)" -sched cosine --warmup "$(pick 30 0)" "${@:2}"
}

# A network with a shortcut that goes with the label: ResNet-50 from published weights on Waterbirds (intermediate layers).
train_waterbirds() {
    # shellcheck disable=SC2046 # a flag or none
    run exec_train.py "$(pick tv_resnet50 small_cnn)" -d "$(pick waterbirds digits-bg)" -dir "$1" -o sgd -lr 1e-3 -wd 1e-3 \
        -b 32 -e "$(pick 100 1)" $(pick --pretrained "") "${@:2}"
}

# The same for CelebA.
train_celeba() {
    # shellcheck disable=SC2046
    run exec_train.py "$(pick tv_resnet50 small_cnn)" -d "$(pick celeba digits-bg)" -dir "$1" -o sgd -lr 1e-3 -wd 1e-4 -b 128 \
        -e "$(pick 50 1)" $(pick --pretrained "") "${@:2}"
}

# Two labels of every digit's colour (intermediate layers; the paper's own generator is not published).
train_cmnist() {
    run exec_train.py "$(pick resnet20 small_cnn)" -d "$(pick cmnist digits-colour)" -dir "$1" -e "$(pick 20 1)" "${@:2}"
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

# Networks that have not seen a class (nearest categories): 70 epochs, a tenth of the rate after 40, 50 and 60.
train_unseen() {
    run exec_train.py "$2" -d "$(pick "$3" digits-wo9)" -dir "$1" -o sgd -lr 0.01 -wd 0 -b 128 --augmentation none \
        -e "$(pick 70 1)" -rlre 40 50 60 "${@:4}"
}

# A head on stored features of such a network (nearest categories, feature space).
train_head() {
    run exec_train.py LargeMLP -d "$2" -dir "$1" -o sgd -lr 0.01 -wd 0 -b 256 -e "$(pick 70 1)" -rlre 40 50 60 "${@:3}"
}
