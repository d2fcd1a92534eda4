"""Tables within a terminal's width: nothing is wider, no word is cut, and what is left out is said."""

import itertools
import random

import pytest
import terminal_windows
from conftest import script

from lib.core import terminal, text_table
from lib.core.text import duration
from lib.runs.records import Result
from lib.tables import formats

RUNS = [
    {
        "run": f"resnet20 digits, {epochs} epochs",
        "data": "digits",
        "layer": f"layer{layer}",
        "needs": "labels of the test outliers: an upper bound" if layer == 3 else "nothing",
        "auroc": 0.5 + layer / 10,
        "auroc_two_sided": 0.7,
        "fpr95": 0.1 * epochs / 10,
    }
    for epochs in (4, 12)
    for layer in range(6)
]


def words(table: str) -> set[str]:
    return set(table.split())


@pytest.mark.parametrize("width", (40, 50, 60, 80, 100, 120, 140))
def test_a_table_fits_and_says_every_word_or_that_a_column_is_left_out(width):
    whole, fitted = text_table.text(RUNS), text_table.text(RUNS, width=width)
    assert max(map(len, fitted.splitlines())) <= width
    if width >= max(map(len, whole.splitlines())):
        assert fitted == whole
    left_out = [name for name in ("auroc", "fpr95", "needs", "layer") if name not in fitted.partition("more column")[0]]
    said = fitted.partition("in the record:")[2].replace(",", " ").split()
    assert set(left_out) <= set(said), fitted
    for row, column in itertools.product(RUNS, ("run", "layer", "auroc", "fpr95", "needs")):
        if column not in said:
            assert words(text_table.cell(row[column])) <= words(fitted.replace(";", " ")), (column, fitted)


def test_what_all_rows_share_is_said_once():
    fitted = text_table.text(RUNS, width=100)
    assert "in all rows: data = digits; auroc_two_sided = 0.7000" in fitted and fitted.count("digits;") == 1


def test_a_name_that_many_rows_share_is_a_heading_above_them():
    fitted = text_table.text(RUNS, width=80).splitlines()
    headings = [line for line in fitted if line.startswith("run resnet20 digits, ")]
    assert headings == ["run resnet20 digits, 4 epochs", "run resnet20 digits, 12 epochs"]
    assert fitted.index(headings[1]) - fitted.index(headings[0]) >= 7


def test_the_heading_of_rows_that_are_left_out_stands_above_the_rest_of_them():
    rows = [dict(row, layer=f"{row['layer']}.{number}") for number in range(20) for row in RUNS[6:]]
    fitted = text_table.text(RUNS[:6] * 3 + rows, most=20, width=80, rest="with --all").splitlines()
    cut = fitted.index(next(line for line in fitted if line.startswith("... 1")))
    assert fitted[cut].endswith("more rows with --all ...") and fitted[cut + 1] == "run resnet20 digits, 12 epochs"


def test_long_cells_that_come_again_are_numbered():
    source = "Guglielmo & Masana 2025, figure of AUROC per layer, CIFAR-10 against SVHN"
    rows = [{"layer": f"layer{n}", "published": n / 10, "in": source if n else "elsewhere"} for n in range(8)]
    fitted = text_table.text(rows, width=60)
    assert fitted.count("[1]") == 8 and fitted.count("Guglielmo") == 1 and "elsewhere" in fitted


def test_a_single_row_is_a_line_per_column():
    fitted = text_table.text(RUNS[3:4], width=50).splitlines()
    assert fitted[0].split() == ["run", "resnet20", "digits,", "4", "epochs"] and max(map(len, fitted)) <= 50


def test_a_command_is_continued_as_a_shell_takes_it():
    line = "python exec_stitch.py models/a/model_12.pt models/b/model_12.pt auto auto conv1 conv2 -i pinv -e 0 -d digits"
    parts = terminal.command(line, 60).splitlines()
    assert len(parts) > 1 and max(map(len, parts)) <= 60 and all(part.endswith(" \\") for part in parts[:-1])
    assert "".join(part.removesuffix("\\").lstrip() for part in parts) == line
    assert not any(part.endswith(("-i \\", "-e \\", "-d \\")) for part in parts)
    rows = [{"column": "stitching", "command": f"{line} -s {seed}"} for seed in range(8)]
    fitted = text_table.text([*rows, {"column": "CKA", "command": line}], width=60)
    assert fitted.count(" \\\n") >= 4


def test_random_tables_fit_wherever_their_words_do():
    draw = random.Random(0)
    for _ in range(300):
        columns = [f"c{n}" for n in range(draw.randrange(1, 9))]
        make = {
            column: draw.choice(
                (
                    lambda: draw.random() * 10 ** draw.randrange(6),
                    lambda: draw.choice("ab"),
                    lambda: None,
                    lambda: "w " * draw.randrange(30),
                )
            )
            for column in columns
        }
        rows = [{column: make[column]() for column in columns} for _ in range(draw.randrange(1, 12))]
        width = draw.randrange(40, 100)
        fitted = text_table.text(rows, width=width, most=draw.choice((None, 4)))
        assert max(map(len, fitted.splitlines())) <= width, fitted


def test_rows_that_were_messages_are_not_printed_again_where_both_go_to_one_place():
    rows = [{"epoch": number, "loss": 1 / number, "best": number == 3} for number in range(1, 6)]
    result = Result(rows, always=lambda row: row["best"] or row is rows[-1], announced=lambda row: row["epoch"] > 1)
    assert result.text() == text_table.text(rows)
    shown = [line.split()[0] for line in result.text(announced=True).splitlines()[2:]]
    assert shown == ["1", "3", "5"]


def test_a_file_and_a_pipe_get_every_row_and_column(tmp_path):
    table = formats.PrintedTable("ood", "a title", RUNS * 20, RUNS * 20)
    assert len(formats.write("text", table).splitlines()) == 2 + 2 + len(RUNS) * 20
    assert len(formats.fitted(table, 80).splitlines()) < 100 and "more rows with --all" in formats.fitted(table, 80)


@pytest.mark.parametrize(
    "seconds, words",
    (
        (0.04, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (80, "1 min 20 s"),
        (3599.7, "1 h"),
        (3540, "59 min"),
        (7500, "2 h 5 min"),
        (86399, "1 d"),
        (86400 * 3 + 3600 * 4 + 59, "3 d 4 h"),
    ),
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def printed(width: int, *words: str, cwd) -> str:
    """What exec_tables.py leaves on a terminal."""
    return "\n".join(terminal_windows.left(terminal_windows.run("exec_tables.py", *words, cwd=cwd, width=width)))


@pytest.mark.parametrize("width", (80, 120))
def test_tables_fit_a_terminal_and_a_pipe_gets_them_whole(trained, width):
    """Records of two evaluations, whose rows of classes and groups are long."""
    for data in ("digits", "digits-c/fog-3"):
        assert script("exec_eval.py", "models/a/model_2.pt", "-d", data, cwd=trained).returncode == 0
    piped = script("exec_tables.py", "stitching", "eval", cwd=trained).stdout
    shown = printed(width, "stitching", "eval", cwd=trained)
    everything = printed(width, "stitching", "eval", "--all", cwd=trained)
    assert max(map(len, shown.splitlines())) <= width < max(map(len, piped.splitlines()))
    assert everything == piped and len(shown.split("##")) == len(piped.split("##"))
    assert printed(width, "eval", "--format", "csv", cwd=trained).startswith("run,")


def test_epochs_are_printed_once_on_a_terminal(tmp_path):
    words = ("exec_train.py", "lenet", "-d", "digits", "-dir", "a", "-e", "3", "--max-examples", "200", "-gpu", "-1")
    lines = terminal_windows.left(terminal_windows.run(*words, cwd=tmp_path, width=120))
    assert [line.split()[1] for line in lines if line.startswith("epoch ") and "/" in line] == ["1/3", "2/3", "3/3"]
    table = lines[next(number for number, line in enumerate(lines) if "train_loss" in line) + 2 :]
    epochs = list(itertools.takewhile(str.isdigit, (line.split()[0] for line in table if line.strip())))
    assert epochs[-1] == "3" and 1 <= len(epochs) <= 2
    assert any(line.startswith("done in ") for line in table)
    piped = script(*words, "--overwrite", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in piped[2:5]] == ["1", "2", "3"]
