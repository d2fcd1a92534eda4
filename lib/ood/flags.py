"""The names of aggregators of layers, of scores of the last layer, and of ways to choose one layer."""

AGGREGATORS = {
    "mean": "lib.ood.aggregate:mean",
    "absmean": "lib.ood.aggregate:absmean",
    "sq": "lib.ood.aggregate:sq",
    "maha": "lib.ood.aggregate:maha",
    "knn": "lib.ood.aggregate:knn",
    "fisher": "lib.ood.aggregate:fisher",
    "max": "lib.ood.aggregate:largest",
    "logreg": "lib.ood.aggregate:logreg",
    "oracle": "",  # the best single layer of the test pair: a look at the labels, not a function of energies
}

BASELINES = {
    "msp": "lib.ood.last_layer:msp",
    "max_logit": "lib.ood.last_layer:max_logit",
    "energy": "lib.ood.last_layer:energy",
    "knn": "lib.ood.last_layer:knn",
    "mahalanobis": "lib.ood.last_layer:mahalanobis",
    "vim": "lib.ood.last_layer:vim",
    "react": "lib.ood.last_layer:react",
    "ash": "lib.ood.last_layer:ash",
}

# of every layer: name -> what data it needs
DETECTORS = {
    "knn": "ID images",
    "mahalanobis": "labelled ID images",
    "relative_mahalanobis": "labelled ID images",
    "gram": "ID images",
    "prototype": "labelled ID images",
}

# name -> what data it needs
CHOICES = {
    "mixture": "unlabelled test images",
    "jigsaw": "ID images and their shuffled copies",
    "entropy": "ID images",
    "transfer": "labelled outliers of another set; one half of the images chooses, the other tests, both ways",
}
