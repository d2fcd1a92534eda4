"""The columns of `exec_data.py show`."""

from lib.runs.columns import DATA, Column, Columns, count

COLUMNS = Columns(
    words={
        **DATA,
        "subset": Column("`all` for the whole split, `class:NAME` for a class, `group:NAME` for a group"),
        "shape": Column("channels x height x width of an image"),
        "mean": Column("mean of each channel over all pixels, separated by spaces, in [0, 1]"),
        "std": Column("standard deviation of each channel over all pixels, separated by spaces, in [0, 1]"),
    },
    numbers={
        "n": count("images of the subset"),
        "classes": count("classes of the data set", "classes"),
    },
    images=("data", "split", "origin"),
    sets=("data",),
)
