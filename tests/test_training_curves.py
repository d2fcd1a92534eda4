"""Curves of trainings: every line is one training's losses or accuracies."""

import pytest

from lib.plots import training_curves


def epochs(**columns: list) -> list[dict]:
    return [
        {"epoch": number, **{name: values[number - 1] for name, values in columns.items()}}
        for number in range(1, 1 + len(next(iter(columns.values()))))
    ]


def test_lines_are_the_numbers_of_the_epochs_and_what_is_not_there_is_no_line():
    both = epochs(
        train_loss=[2.0, 1.0, 0.5], val_loss=[2.1, None, 0.7], train_accuracy=[0.1, 0.5, 0.9], val_accuracy=[0.1, 0.4, 0.8]
    )
    other = epochs(train_loss=[3.0, 2.0], train_accuracy=[0.2, 0.3])  # no images were held back
    loss, accuracy = training_curves.curves({"a": both, "b": other}, "training on digits").axes
    lines = [(line.get_linestyle(), list(line.get_xdata()), list(line.get_ydata())) for line in loss.get_lines()]
    assert lines == [
        ("--", [1, 2, 3], [2.0, 1.0, 0.5]),
        ("-", [1, 3], [2.1, 0.7]),
        ("--", [1, 2], [3.0, 2.0]),
    ]
    first, second, third = accuracy.get_lines()
    assert first.get_color() == second.get_color() != third.get_color()
    assert loss.get_yscale() == "linear"


def test_every_training_is_named_once_also_without_images_held_back():
    rows = epochs(train_loss=[3.0, 2.0], train_accuracy=[0.2, 0.3])
    figure = training_curves.curves({"a": rows, "b": rows}, "t")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


@pytest.mark.parametrize(("first", "scale"), [(30.0, "log"), (3.0, "linear")])
def test_losses_that_are_far_apart_have_a_logarithmic_axis_without_formulas(first, scale):
    loss, _ = training_curves.curves({"a": epochs(train_loss=[first, 1.0], val_loss=[1.0, 0.5])}, "t").axes
    assert loss.get_yscale() == scale
    assert scale == "linear" or loss.yaxis.get_major_formatter()(0.1, 0) == "0.1"
