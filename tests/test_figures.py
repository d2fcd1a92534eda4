"""What figures show, read from Matplotlib's objects: bars, lines, keys, colours, titles, sizes; and how they are written."""

import json
import subprocess
import sys
from pathlib import Path

import drawn
import numpy as np
import pytest
from conftest import ROOT, script
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.core import figures
from lib.experiments import EXPERIMENTS
from lib.plots import confusion, filters, grid, images, ncg, network_page, ood_layers, similarity, style
from lib.plots.recorded import Recorded

NETWORKS = {
    "models/a/model_6.pt": {"architecture": "resnet18", "dataset": "cifar10", "epoch": 6, "loss": "ce", "seed": 0},
    "models/b/model_6.pt": {"architecture": "resnet18", "dataset": "cifar10", "epoch": 6, "loss": "ce", "seed": 1},
    "models/c/model_9.pt": {"architecture": "vgg11", "dataset": "mnist", "epoch": 9, "loss": "trades", "seed": 0},
}


def ood_rows(count: int, temperatures=(1.0, 10.0), ood: str = "svhn", **facts) -> list[dict]:
    """Rows of as many layers: the first third above the final one, the second not told from it, the others below."""
    rows = []
    for temperature in temperatures:
        for layer in range(count):
            kind = "final" if layer == count - 1 else ("above", "same", "below")[3 * layer // count]
            auroc = {"above": 0.9, "same": 0.71, "below": 0.1 + 0.3 * layer / count, "final": 0.7}[kind]
            rows.append(
                {
                    **{"id": "cifar10", "id_split": "test", "n_id": 100, "ood": ood, "ood_split": "test", "variant": ""},
                    **{"corruption": None, "severity": None, "n_ood": 50, "score": "energy", "T": temperature},
                    **{"layer": f"layer{layer}.conv", "index": layer, "execution_index": layer, "auroc": auroc},
                    **{"ci_low": auroc - 0.04, "ci_high": auroc + 0.04, "vs_final": auroc - 0.7, "sign_certain": True},
                    "p_holm": {"above": 0.001, "same": 0.4, "below": 0.001, "final": None}[kind],
                    "auroc_two_sided": abs(auroc - 0.5) + 0.5,
                    **facts,
                }
            )
        score = {**rows[0], "T": temperature, "score": "mean", "layer": "all layers", "index": None, "auroc": 0.8}
        oracle = {**score, "score": "oracle", "chosen_layer": "layer0.conv", "ci_low": None, "ci_high": None}
        rows += [score, oracle]
    return rows


def ood_run(rows: list[dict], names: list[str]) -> Recorded:
    arrays = {f"energies_{name}": np.zeros(1) for name in ("fit", "id", *names)}
    return Recorded({"model_path": "models/a/model_6.pt"}, rows, arrays, NETWORKS)


def made(draw, width: str = "screen"):
    with figures.literal(width):
        return draw()


def key(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def heights(figure: Figure, panel: int = 0) -> dict[str, list[float]]:
    """Kind of bar -> heights of those bars."""
    found: dict[str, list[float]] = {}
    for bar in figure.axes[panel].patches:
        found.setdefault(str(bar.get_gid()), []).append(bar.get_height())
    return found


def luminance(colour) -> float:
    return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))


def test_bars_are_above_the_final_layer_only_where_the_difference_is_significant():
    figure = made(lambda: ood_layers.figures(ood_run(ood_rows(12), ["svhn"])))[""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["AUROC of the energy\n(T = 1)", "AUROC of the energy\n(T = 10)"]
    for panel in range(2):
        bars = heights(figure, panel)
        assert bars["above"] == [0.9] * 4 and bars["same"] == [0.71] * 4  # higher than 0.7, and not told from it
        assert len(bars["below"]) == 3 and bars["final"] == [0.7] and bars["score"] == bars["bound"] == [0.8]
    told = key(figure)
    assert "final layer, layer11.conv" in told and "not told from the final layer" in told
    assert {"by the test labels: an upper bound", "95 % intervals over images", "AUROC of the final layer"} <= set(told)
    assert "resnet18 (cifar10, 6 epochs): cifar10:test (n = 100) against svhn:test (n = 50)" in drawn.words(figure)
    shades = [luminance(bar.get_facecolor()[:3]) for bar in figure.axes[0].patches]
    apart = sorted({round(shade, 3) for shade in shades})
    assert len(apart) == 5 and np.diff(apart).min() > 0.12  # also in grey


def test_no_line_passes_through_the_numbers_of_bars():
    rows = ood_rows(9)
    rows[3]["auroc"] = rows[3]["ci_low"] = rows[3]["ci_high"] = 0.15
    figure = made(lambda: ood_layers.figures(ood_run(rows, ["svhn"])))[""]
    figure.canvas.draw()
    axes = figure.axes[0]
    lines = [axes.transData.transform((0, line.get_ydata()[0]))[1] for line in axes.lines if line.get_zorder() < 1]
    assert len(lines) == 2  # of the final layer and of chance
    assert len(axes.texts) == 11
    for text in axes.texts:
        box = text.get_window_extent()
        assert text.get_bbox_patch() is not None or not any(box.y0 <= line <= box.y1 for line in lines)
    (low,) = (text for text in axes.texts if text.get_text() == "0.15")
    assert low.get_position()[1] > 0.15  # too low a bar has its number above it


@pytest.mark.parametrize("width", ["screen", "double", "single"])
@pytest.mark.parametrize("layers", [41, 160])
def test_bars_of_many_layers_can_be_read(layers, width):
    figure = made(lambda: ood_layers.figures(ood_run(ood_rows(layers), ["svhn"])), width)[""]
    with figures.literal(width):
        figure.canvas.draw()
    names = [label.get_window_extent() for label in figure.axes[-1].get_xticklabels() if label.get_text()]
    assert len(names) > 10 and all(left.x1 <= right.x0 + 1 for left, right in zip(names, names[1:], strict=False))
    assert figure.get_figwidth() <= 17
    if layers == 160:  # points, whose markers say which way they differ
        kinds = {bars.lines[0].get_gid(): bars.lines[0].get_marker() for bars in figure.axes[0].containers}
        assert len(set(kinds.values())) == len(kinds) == 6 and kinds["above"] == "^" and kinds["below"] == "v"
        assert len(figure.axes[0].containers[0].lines[0].get_xdata()) == 54
    else:
        assert len(heights(figure)["above"]) == 14
    if layers == 41 and width != "single":
        assert sum(len(axes.texts) for axes in figure.axes) == 2 * 43  # every bar has its number


def corrupted(kinds: list[str], missing: tuple[str, int] = ("", 0)) -> list[dict]:
    rows = []
    for number, kind in enumerate(kinds):
        for severity in (1, 2, 3):
            if (kind, severity) != missing:
                facts = {"corruption": kind, "severity": severity, "variant": f"{kind}-{severity}"}
                new = [row for row in ood_rows(5, (1.0,), "cifar10-c", **facts) if row["index"] is not None]
                rows += [row | {"auroc_two_sided": 0.5 + 0.1 * number + 0.05 * severity} for row in new]
    return rows


def test_missing_cells_of_a_corruption_map_are_grey_and_means_are_over_the_same_corruptions():
    rows = corrupted(["fog", "snow", "frost"], ("frost", 3))
    names = list(dict.fromkeys(f"cifar10-c/{row['variant']}" for row in rows))
    figure = made(lambda: ood_layers.figures(ood_run(rows, names)))["cifar10-c"]
    left, right = figure.axes[:2]
    cells = left.images[0].get_array()
    assert cells.shape == (5, 9) and np.argwhere(np.ma.getmaskarray(np.ma.masked_invalid(cells))).tolist() == [
        [layer, 8] for layer in range(5)
    ]
    assert to_hex(left.get_facecolor()) == to_hex(style.MISSING) != "#ffffff" and key(figure) == ["not measured"]
    assert to_rgb(left.get_facecolor()) != left.images[0].cmap(0.5)[:3]  # the colour of AUROC 0.5
    means = {line.get_label(): line.get_xdata() for line in right.lines}
    for severity in (1, 2, 3):  # of fog and snow, which alone have every severity
        assert means[f"severity {severity}"] == pytest.approx([0.55 + 0.05 * severity] * 5)
    assert "mean over 2 corruptions\nthat have every severity" in right.get_xlabel()
    whole = made(lambda: ood_layers.figures(ood_run(corrupted(["fog", "snow"]), names[:6])))["cifar10-c"]
    assert key(whole) == [] and "that have" not in whole.axes[1].get_xlabel()


def ncg_rows(count: int, model: str = "models/a/model_6.pt", shift: float = 0.0) -> list[dict]:
    return [
        {
            **{"model": model, "n_train": 1000, "train": "cifar10", "data": "cifar10-c", "split": "test"},
            **{"variant": f"kind{kind}-{level}", "space": "pixel", "subset": "all", "n": 100, "accuracy": None},
            **{"chance": 0.1, "majority": 0.2, "independence": 0.15},
            "ncg": 0.9 - shift - 0.01 * kind - 0.02 * level,
            "ncg_low": 0.85 - shift - 0.01 * kind - 0.02 * level,
            "ncg_high": 0.93 - shift - 0.01 * kind - 0.02 * level,
        }
        for kind in range(count)
        for level in range(1, 6)
    ]


def test_of_many_corruptions_the_lines_are_grey_the_outermost_named_and_the_mean_has_an_interval():
    figure = made(lambda: ncg.figures(Recorded({}, ncg_rows(19), {}, NETWORKS)))["corruptions"]
    (axes,) = figure.axes
    grey = [line for line in axes.lines if line.get_color() in ("0.35", "0.7")]
    assert len(grey) == 19 and sum(line.get_color() == "0.35" for line in grey) == 4
    assert {text.get_text() for text in axes.texts} == {"kind0", "kind1", "kind17", "kind18"}
    (mean,) = axes.containers
    assert mean.lines[0].get_ydata() == pytest.approx([0.81 - 0.02 * level for level in range(1, 6)])
    (low, high), *_ = ([part[0][1], part[1][1]] for part in mean.lines[2][0].get_segments())
    assert (high - low) / 2 == pytest.approx(2.1009 * np.std(0.01 * np.arange(19), ddof=1) / 19**0.5, rel=1e-4)
    nulls = {tuple(np.round(line.get_ydata(), 9)) for line in axes.lines}
    assert {(0.1,) * 5, (0.2,) * 5, (0.15,) * 5} <= nulls
    told = " ".join(key(figure))
    assert "mean of 19 corruptions, 95 % interval over them (Student's)" in told and "chance" in told and "majority" in told
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in zip(boxes, boxes[1:], strict=False))
    assert all(box.x1 <= axes.get_window_extent().x1 for box in boxes)


def test_few_corruptions_have_a_colour_and_wilsons_interval_each_and_a_second_network_its_own_panels():
    rows = ncg_rows(3) + ncg_rows(3, "models/c/model_9.pt", 0.2)
    figure = made(lambda: ncg.figures(Recorded({}, rows, {}, NETWORKS)))["corruptions"]
    assert [axes.get_title() for axes in figure.axes] == ["resnet18 (cifar10, 6 epochs)", "vgg11 (mnist, trades, 9 epochs)"]
    first = figure.axes[0]
    assert len({bars.lines[0].get_color() for bars in first.containers}) == len(first.containers) == 3
    segment = first.containers[0].lines[2][0].get_segments()[0]
    assert (segment[0][1], segment[1][1]) == pytest.approx((0.83, 0.91))
    assert {"kind0", "kind1", "kind2", ncg.WILSON} <= set(key(figure))


def snapshots(epochs: list[int], layers: int = 6) -> Recorded:
    rows, arrays = [], {}
    for epoch in epochs:
        for layer in range(layers):
            name, path = f"layer{layer}.conv", f"models/a/model_{epoch}.pt"
            rows.append(
                {
                    **{"checkpoint": path, "draw": None, "epoch": epoch, "layer": name, "stage": None, "block": None},
                    **{"filters": 64, "counted": 64, "dim": 9, "mass": 0.5, "mass_low": 0.4, "mass_high": 0.6},
                    **{"l2_distance": 0.1 * epoch, "linf_distance": 0.2 * epoch},
                }
            )
            arrays[f"{path}/{name}"] = np.linspace(-1, 1, 64)
    networks = {f"models/a/model_{epoch}.pt": NETWORKS["models/a/model_6.pt"] for epoch in epochs}
    return Recorded({"normalize": True, "model_path": ["models/a"]}, rows, arrays, networks)


@pytest.mark.parametrize("count", [5, 30])
def test_distances_of_any_number_of_snapshots_have_a_key(count):
    figure = made(lambda: filters.figures(snapshots([*range(count + 1)])))["distance"]
    assert len(figure.axes[0].lines) == count
    if count == 5:
        assert key(figure) == [f"epoch {epoch}" for epoch in range(1, 6)] and len(figure.axes) == 2
    else:
        bar = figure.axes[-1]
        assert key(figure) == [] and bar.get_ylabel() == "epoch" and bar.get_ylim() == (0, 30)
    assert figure.get_suptitle().startswith("resnet18 (cifar10): distance from the initial weights")


@pytest.mark.parametrize("width", ["screen", "single", "double"])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 11])
def test_grids_have_no_empty_panel(count, width):
    figure, panels = made(lambda: style.panels(count, (3.0, 2.0), most=4), width)
    figure.canvas.draw()
    assert len(figure.axes) == len(panels) == count
    lines: dict[float, list] = {}
    for axes in panels:
        lines.setdefault(round(axes.get_position().y0, 2), []).append(axes.get_position())
    middles = [(min(box.x0 for box in line) + max(box.x1 for box in line)) / 2 for line in lines.values()]
    assert np.ptp(middles) < 0.03  # a line that is not full stands in the middle
    most = max(map(len, lines.values()))
    assert all(len(line) == most for line in list(lines.values())[:-1])


def test_heat_maps_name_networks_and_say_which_cells_were_not_measured():
    values = np.array([[0.2, np.nan], [0.7, 1.0]])
    run = Recorded({}, [], {}, NETWORKS)
    title = run.pair("models/a/model_6.pt", "models/c/model_9.pt", "into")
    panels = {"accuracy": values, "distance": values}
    figure = made(lambda: grid.heat_maps(panels, ["a", "b"], ["c", "d"], "front", "end", title, {}, ("distance",)))
    assert figure.get_suptitle() == "resnet18 (cifar10, 6 epochs) into vgg11 (mnist, trades, 9 epochs)"
    assert key(figure) == ["not measured"] and "models/" not in drawn.words(figure)
    panels = [axes for axes in figure.axes if axes.images]
    assert [[text.get_text() for text in axes.texts] for axes in panels] == [["0.20", "0.70", "1.00"]] * 2
    assert [text.get_color() for text in panels[0].texts] == ["white", "black", "black"]  # on dark and on bright


def test_similarities_that_chance_may_explain_are_hatched_and_the_key_says_so():
    p_best = {("x", "u"): 0.005, ("x", "v"): 0.3, ("y", "u"): 1.0, ("y", "v"): None}
    common = {"rank1": None, "rank2": None, "n": 100, "data": "digits", "split": "test", "cka": 0.5, "procrustes": 0.5}
    rows = [
        {"layer1": one, "layer2": two, **common, "cka_p_best": p, "procrustes_p_best": 0.05}
        for (one, two), p in p_best.items()
    ]
    config = {"measures": ["cka", "procrustes"], "model1_path": "models/a/model_6.pt", "model2_path": "models/b/model_6.pt"}
    figure = made(lambda: similarity.figures(Recorded(config, rows, {}, NETWORKS))[""])
    hatched = [
        [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
        for axes in figure.axes
        if axes.images and axes.get_title()
    ]
    assert hatched == [[(0.5, -0.5), (-0.5, 0.5)], []]
    assert key(figure) == ["no more alike than by chance (p_best above 0.05)"]
    for row in rows:
        del row["cka_p_best"], row["procrustes_p_best"]
    assert not made(lambda: similarity.figures(Recorded(config, rows, {}, NETWORKS))[""]).legends


def test_names_of_networks_are_told_apart_by_what_differs():
    run = Recorded({}, [], {}, NETWORKS)
    names = run.names(["models/a/model_6.pt", "models/b/model_6.pt", "models/c/model_9.pt", "elsewhere/x.pt"])
    assert list(names.values()) == [
        "resnet18 (cifar10, 6 epochs), seed 0",
        "resnet18 (cifar10, 6 epochs), seed 1",
        "vgg11 (mnist, trades, 9 epochs)",
        "elsewhere/x",
    ]
    assert run.pair("models/a/model_6.pt", "models/a/model_6.pt", "into") == "resnet18 (cifar10, 6 epochs) into itself"


def test_a_confusion_matrix_has_one_unit():
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 2]])
    figure = made(lambda: confusion.confusion(counts, ("cat", "dog", "owl"), "t"))
    axes, bar = figure.axes
    assert axes.images[0].get_clim() == (0, 100) and bar.get_ylabel().endswith("in %")
    assert [text.get_text() for text in axes.texts] == ["75", "25", "50", "50"]  # as the colours' scale has them
    assert key(figure) == ["not measured"]  # the class without images
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]


def test_the_network_page_lists_commands_for_what_was_not_measured_and_shows_nothing_of_it():
    layers, columns = list("abcdef"), {"energy": {name: float(number) for number, name in enumerate("abcdef")}}
    columns |= {"probes": {name: -float(number) for number, name in enumerate("abcdef")}, "stitching": {}, "ncg": {}}
    correlations = np.full((4, 4), np.nan)
    correlations[:2, :2] = [[1, -1], [-1, 1]]
    commands = [("stitching", "python exec_train.py x"), ("stitching", "python exec_stitch.py x")]
    commands += [("ncg", f"python exec_ncg.py x --layer {name}") for name in layers]
    figure = made(lambda: network_page.network_page(layers, columns, correlations, "t", commands))
    over, below, words = figure.axes[:3]
    assert [line.get_label() for line in over.lines] == ["energy: 0 to 5", "probes: -5 to 0"]
    assert below.images[0].get_cmap().name == "RdBu_r" and below.images[0].get_clim() == (-1, 1)
    assert below.images[0].get_array().shape == (2, 2) and not np.ma.getmaskarray(below.images[0].get_array()).any()
    (told,) = (text.get_text() for axes in figure.axes for text in axes.texts if "not measured" in text.get_text())
    assert "not measured: stitching\n  python exec_train.py x\n  python exec_stitch.py x" in told
    assert "--layer b" in told and "--layer c" not in told and "and 4 more" in told
    assert words is not None and "stitching" not in [label.get_text() for label in below.get_xticklabels()]


def test_contact_sheets_are_spread_over_the_set_and_over_many_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.repeat(np.arange(240, dtype=np.uint8), 64).reshape(240, 8, 8)  # every image has its place for a brightness
    np.save("many.npy", values)
    np.save("many_labels.npy", np.arange(240) // 12)
    done = script("exec_data.py", "show", "npy=many.npy", "--name", "m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load("results/data/m.npz") as arrays:
        (part,) = {name.removeprefix("sheet_names_") for name in arrays if name.startswith("sheet_names_")}
        shown, rows = arrays[f"sheet_{part}"][:, 0, 0, 0].astype(int), arrays[f"sheet_rows_{part}"]
    classes = [set(shown[rows == row] // 12) for row in range(10)]
    assert all(len(one) == 1 for one in classes) and {0} in classes and {19} in classes  # ten of the twenty classes
    for row in range(10):
        own = shown[rows == row] % 12
        assert len(own) == 10 and own[0] == 0 and own[-1] == 11  # ten of twelve images, from the first to the last
    sheet = drawn.of_record(Path("results/data/m.json"))[part]
    assert f"npy=many:{part}" in drawn.words(sheet) or "many" in drawn.words(sheet)
    assert "100 of 240 images, spread over the set" in drawn.words(sheet).replace("\n", " ")


def test_two_channels_of_an_image_are_shown_as_red_and_green():
    sheet = images._as_rgb(np.full((2, 3, 3), 200, np.uint8))
    assert sheet.shape == (3, 3, 3) and sheet[0, 0].tolist() == [200, 200, 0]


@pytest.fixture(scope="module")
def measured(trained):
    """Records of four experiments with figures."""
    for words in (
        ("exec_ood_layers.py", "models/a/model_2.pt", "-d", "digits", "-ood", "patches", "-T", 1, 10, "--name", "o"),
        ("exec_eval.py", "models/a/model_2.pt", "-d", "digits", "--name", "e"),
        ("exec_similarity.py", "models/a/model_2.pt", "models/a/model_1.pt", "auto", "auto", "features.?", "--name", "s"),
        ("exec_projections.py", "models/a", "--name", "p"),
    ):
        done = script(*words, *("--max-examples", 60) * (words[0] != "exec_projections.py"), "--quiet", cwd=trained)
        assert done.returncode == 0, done.stderr
    return trained


RECORDS = ["ood_layers/o", "eval/e", "similarity/s", "projections/p"]
BEGINNINGS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def test_records_are_drawn_again_in_every_format_without_torch(measured):
    paths = [f"results/{name}.json" for name in RECORDS]
    program = (
        "import json, sys; sys.path[:0] = ['tests', '.']; import inprocess\n"
        "with inprocess.without_torch():\n"
        "    ends = [inprocess.run(words, sys.argv[1]) for words in json.loads(sys.argv[2])]\n"
        "print(json.dumps([[end.returncode, end.stdout, end.stderr, end.torch] for end in ends]))"
    )
    asked = [["exec_tables.py", "--figures", *paths, "--figure-format", "svg"]]
    asked += [["exec_tables.py", "--figures", *paths[:2], "--figure-format", kind] for kind in ("png", "pdf")]
    words = ["exec_eval.py", "models/a/model_2.pt", "-d", "digits", "--max-examples", "60", "--name", "e"]
    asked.append([*words, "--figure-format", "pdf"])
    done = subprocess.run(
        [sys.executable, "-c", program, str(measured), json.dumps(asked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for status, said, errors, torch in json.loads(done.stdout.splitlines()[-1]):
        assert status == 0 and not torch and "warning" not in errors, errors
        assert said
    for name in RECORDS + ["projections/p-mass", "projections/p-distance"]:
        for kind in BEGINNINGS if name in RECORDS[:2] else ("svg",):
            assert (measured / f"results/{name}.{kind}").read_bytes().startswith(BEGINNINGS[kind])
    assert "lenet (digits, 2 epochs)" in (measured / "results/eval/e.svg").read_text()  # text that can be searched
    assert b"lenet (digits" not in (measured / "results/eval/e.png").read_bytes()


def test_no_figures_function_needs_torch():
    program = (
        "import sys; from lib.experiments import EXPERIMENTS\n"
        "made = [experiment.figures.__name__ for experiment in EXPERIMENTS.values() if experiment.figures_]\n"
        "print(len(made), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10", "False"]


def test_a_figure_drawn_twice_is_the_same_file(measured):
    words = ("exec_tables.py", "--figures", "results/ood_layers/o.json")
    for kind in figures.FORMATS:
        contents = []
        for _ in range(2):
            done = script(*words, "--figure-format", kind, cwd=measured)
            assert done.returncode == 0, done.stderr
            contents.append((measured / f"results/ood_layers/o.{kind}").read_bytes())
        assert contents[0] == contents[1]


def test_another_format_or_width_draws_and_does_not_run_again(measured):
    record = measured / "results/eval/e.json"
    words = ("exec_eval.py", "models/a/model_2.pt", "-d", "digits", "--max-examples", 60, "--name", "e")
    picture, before = measured / "results/eval/e.png", record.stat()
    script("exec_tables.py", "--figures", "results/eval/e.json", cwd=measured)
    usual = picture.read_bytes()
    for more, file in (
        (("--figure-format", "svg"), "e.svg"),
        (("--figure-format", "pdf", "--figure-width", "single"), "e.pdf"),
        (("--figure-width", "double"), "e.png"),
    ):
        (measured / "results/eval" / file).unlink(missing_ok=True)
        done = script(*words, *more, cwd=measured)
        assert done.returncode == 0 and "already there" in done.stderr and f"figure: results/eval/{file}" in done.stderr
    assert record.stat() == before and picture.read_bytes() != usual
    kept = picture.stat().st_mtime_ns
    assert "already there" in script(*words, cwd=measured).stderr and picture.stat().st_mtime_ns == kept
    picture.unlink()  # in the usual format there is none now, and others are
    assert "figure: results/eval/e.png" in script(*words, cwd=measured).stderr and picture.read_bytes() == usual


def test_a_runs_name_does_not_depend_on_how_figures_are_drawn(tmp_path):
    from lib.runs import cli, records

    configuration = EXPERIMENTS["eval"].configuration
    runs = {
        records.run_name(cli.parse(configuration, ["m.pt", "-d", "digits", *more]))
        for more in ([], ["--figure-format", "pdf"], ["--figure-format", "svg", "--figure-width", "single"])
    }
    assert len(runs) == 1


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("width", ["single", "double"])
def test_figures_for_a_column_have_its_width_and_letters_that_can_be_read(measured, name, width):
    for figure in drawn.of_record(measured / f"results/{name}.json", width).values():
        assert figure.get_figwidth() == figures.WIDTHS[width] and figure.get_figheight() <= style.TALLEST
        with figures.literal(width):
            figure.canvas.draw()
        letters = [text for text in figure.findobj(lambda one: hasattr(one, "get_fontsize")) if text.get_text()]
        assert letters and all(5 <= text.get_fontsize() <= 8 for text in letters)
        for text in (axes.xaxis.label for axes in figure.axes):
            box = text.get_window_extent()
            assert not text.get_text() or (box.x0 >= -2 and box.x1 <= figure.bbox.x1 + 2)


def test_records_of_earlier_versions_are_drawn_as_far_as_they_tell(measured, tmp_path):
    for name in ("ood_layers/o", "eval/e"):
        record = json.loads((measured / f"results/{name}.json").read_text())
        del record["networks"], record["facts"]
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".npz", ".png"):
            (tmp_path / f"results/{name}{suffix}").write_bytes((measured / f"results/{name}{suffix}").read_bytes())
        if name == "eval/e":
            del record["arrays"]
        (tmp_path / f"results/{name}.json").write_text(json.dumps(record))
    (tmp_path / "results/ood_layers/o.png").unlink()
    done = script("exec_tables.py", "--figures", "results/ood_layers/o.json", "results/eval/e.json", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.split() == ["results/ood_layers/o.png"]
    assert "no figure was drawn" in done.stderr and "--overwrite measures again" in done.stderr
    assert (tmp_path / "results/eval/e.png").exists()  # what was drawn then stays
    old = json.loads((tmp_path / "results/ood_layers/o.json").read_text())
    run = Recorded(old["config"], old["rows"])
    assert run.name(old["config"]["model_path"]) == "a/model_2"  # of a network that nothing is known of, the file


def test_a_record_that_is_made_again_leaves_no_figure_of_the_one_before_and_none_of_others(measured):
    words = ("exec_eval.py", "models/a/model_2.pt", "-d", "digits", "--quiet", "--max-examples", 50)
    for name in ("x", "x-y"):
        assert script(*words, "--name", name, "--figure-format", "pdf", cwd=measured).returncode == 0
    folder = measured / "results/eval"
    assert script(*words, "--name", "x", "--overwrite", cwd=measured).returncode == 0
    assert {path.name for path in folder.glob("x*.p[dn][fg]")} == {"x.png", "x-y.pdf"}
    done = script(*words[:-3], "--max-examples", 50, "--name", "x", cwd=measured)
    assert "figure: results/eval/x.png" in done.stderr and "x-y" not in done.stderr


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("--figures", "nope.json"), "nope.json: No such file"),
        (("--figures", "nope.json", "--rerun", "x"), "one of them at a time"),
        (("--figure-format", "gif"), "gif: no such choice"),
        (("--figure-width", "7"), "7: no such choice"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(tmp_path, words, sentence):
    done = script("exec_tables.py", *words, cwd=tmp_path)
    assert done.returncode in (1, 2) and sentence in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_the_figures_of_folders_are_drawn_and_what_is_no_record_in_them_is_left_out(measured, tmp_path):
    for name in ("results/eval", "results/data"):
        (tmp_path / name).mkdir(parents=True)
    for suffix in (".json", ".npz"):
        (tmp_path / f"results/eval/e{suffix}").write_bytes((measured / f"results/eval/e{suffix}").read_bytes())
    (tmp_path / "results/data/broken.json").write_text("{}")
    for folder in ("results", "results/eval"):
        done = script("exec_tables.py", "--figures", folder, "--figure-format", "svg", cwd=tmp_path)
        assert done.returncode == 0 and done.stdout.split() == ["results/eval/e.svg"]
        assert ("broken.json: not a valid record: it has no schema; left out" in done.stderr) == (folder == "results")


def test_arrays_that_are_gone_are_one_sentence(measured, tmp_path):
    (tmp_path / "o.json").write_bytes((measured / "results/ood_layers/o.json").read_bytes())
    done = script("exec_tables.py", "--figures", "o.json", cwd=tmp_path)
    assert done.returncode == 1 and "o.npz: the arrays of o.json cannot be read" in done.stderr


def test_colours_of_lines_are_those_that_colour_blind_readers_tell_apart():
    okabe_ito = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#f0e442"}
    drawn_as = [style.line(number) for number in range(7)]
    assert {to_hex(line["color"]) for line in drawn_as} <= okabe_ito
    assert len({line["color"] for line in drawn_as}) == len({line["marker"] for line in drawn_as}) == 7
    neighbours = zip(drawn_as, drawn_as[1:], strict=False)
    assert all(one["linestyle"] != other["linestyle"] for one, other in neighbours)
