"""The columns of `exec_ood_detector.py`: a row per layer and epoch."""

from lib.runs.columns import Column, Columns, count, share

COLUMNS = Columns(
    words={
        "layer": Column("layer of the network whose output the detector classifies"),
        "model_type": Column("type of the detector"),
        "phase": Column("`classify`, the training of the classifier, or `fine-tune`, that with outliers"),
        "data": Column("data set that the detector learns from"),
        "outliers": Column("data set of the outliers; of `fine-tune` only"),
        "detector": Column("file of the finished detector, in the row of the last epoch"),
    },
    numbers={
        "epoch": count("finished epochs of the phase", "epochs"),
        "train_loss": Column("mean loss over the training images, with the energy terms", "nats", better="lower"),
        "ce_loss": Column("mean cross-entropy over the training images", "nats", 0, better="lower"),
        "train_accuracy": share("share of the training images, classified correctly by the detector", "higher"),
        "energy_in": Column(
            "mean energy of the training images in the epoch, −log Σ exp of the logits", "nats", better="lower"
        ),
        "energy_out": Column("mean energy of the outliers in the epoch; of `fine-tune` only", "nats", better="higher"),
        "val_loss": Column("mean cross-entropy on the test images", "nats", 0, better="lower"),
        "val_accuracy": share("share of the test images, classified correctly by the detector", "higher"),
        "val_energy": Column("mean energy of the test images", "nats", better="lower"),
        "n_val": count("test images"),
        "learning_rate": Column("learning rate of the last step", "", 0),
        "seed": Column("seed of the run"),
        "images_per_second": Column("speed of training, all layers together", "images per second", 0, better="higher"),
        "seconds": Column("time of training in the epoch, all layers together", "seconds", 0, better="lower"),
    },
    images=("data", "model_type"),
    sets=("data",),
)
