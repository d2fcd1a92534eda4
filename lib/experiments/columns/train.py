"""The columns of `exec_train.py`: a row per epoch."""

from lib.runs.columns import Column, Columns, count, share

COLUMNS = Columns(
    words={
        "selected_on": Column("data set, split and measure by which `best.pt` is chosen"),
        "precision": Column("arithmetic of the forward and backward passes: fp32, bf16 or fp16"),
        "batchnorm": Column(
            "what batch statistics are of: `one process`, `per process` or `synchronised`; empty without any"
        ),
    },
    numbers={
        "epoch": count("finished epochs", "epochs"),
        "train_loss": Column("mean loss over the training images of the epoch, as they were seen", "nats", better="lower"),
        "train_accuracy": share("share of the training images, classified correctly when they were seen", "higher"),
        "val_loss": Column("mean cross-entropy on the validation images after the epoch", "nats", 0, better="lower"),
        "val_accuracy": share("share of the validation images, classified correctly after the epoch", "higher"),
        "n_val": count("validation images"),
        "learning_rate": Column("learning rate of the last step", "", 0),
        "processes": count("processes that trained together", "processes"),
        "images_per_second": Column("speed of training, without validation", "images per second", 0, better="higher"),
        "seconds": Column("time of training, without validation", "seconds", 0, better="lower"),
        "penalty": Column("half the weight decay times the sum of all squared weights", "", 0),
        "train_eval_loss": Column("mean cross-entropy on the training images after the epoch", "nats", 0, better="lower"),
        "train_eval_accuracy": share("share of the training images, classified correctly after the epoch", "higher"),
    },
    truths={"best": Column("this epoch has the highest validation accuracy, the earliest of several: `best.pt`")},
)
