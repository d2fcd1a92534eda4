"""The page with everything: what is in it, and how it is read in a real browser where one is installed."""

import html.parser
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
import records
from conftest import script
from table_records import library, network

from lib.experiments import tables as experiment
from lib.tables import compare, html_report
from lib.tables.formats import PrintedTable
from lib.tables.html_report import Content
from lib.tables.papers import PAPERS
from lib.tables.record_library import Origin

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060"
    "000000050001a5f645400000000049454e44ae426082"
)


def results(folder: Path) -> None:
    """Records of two networks and three data sets, of which one has 250 rows, with figures beside some of them."""
    network(folder)
    for name in ("o", "o-signs"):
        (folder / f"results/ood_layers/{name}.png").write_bytes(PIXEL)
    other = records.training(folder, "small", model_type="small_cnn", dataset="digits", epochs=3)
    epochs = [
        {"epoch": n, "train_loss": 1 / n, "val_loss": 2 / n, "val_accuracy": 0.3 * n, "best": n == 3} for n in (1, 2, 3)
    ]
    records.write(folder, "train", "small", epochs, directory="small", model_type="small_cnn", dataset="digits", epochs=3)
    subsets = ["all", *(f"class:{number}" for number in range(249))]
    rows = [
        {"data": "digits", "split": "test", "subset": subset, "n": 250, "accuracy": 0.5, "loss": 1.0} for subset in subsets
    ]
    records.write(folder, "eval", "e", rows, model_path=other, dataset=["digits"])
    (folder / "results/eval/e.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The file of the report of these records."""
    folder = tmp_path_factory.mktemp("page")
    results(folder)
    done = script("exec_tables.py", "--report", "all.html", cwd=folder)
    assert done.returncode == 0 and done.stdout.strip() == "all.html", done.stderr
    return folder / "all.html"


class Elements(html.parser.HTMLParser):
    """The tags of a page with their attributes, and the JSON in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.data: list = []
        self._reads = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._reads = tag == "script" and dict(attrs).get("type") == "application/json"

    def handle_data(self, data):
        if self._reads:
            self.data.append(json.loads(data))
            self._reads = False

    def of(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


# -------------------------------------------------------------------------------------------------------- what is in it


def test_the_page_holds_everything_and_asks_for_nothing(page):
    text = page.read_text()
    # two figures beside one record, one beside another, one of trainings, two of networks
    assert len(re.findall('src="data:image/png', text)) == 5 and len(re.findall(r'src="data:image/svg\+xml', text)) == 1
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text) and "http://" not in text and "https://" not in text
    assert html_report.POLICY.startswith("default-src 'none'") and f'content="{html_report.POLICY}"' in text
    for name, paper in PAPERS.items():
        for table, spec in paper.tables.items():
            assert html.escape(f"{name}/{table}: {spec.title}") in text
    assert "ood_layers: o" in text and "exec_ood_layers.py" in text
    ids = [attributes["id"] for _, attributes in Elements(text).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_first_screen_says_what_was_run(page):
    overview = page.read_text().partition('id="overview"')[2].partition("</section>")[0]
    assert 'width="1" height="1"' in page.read_text()  # of the pixel: nothing moves when figures are decoded
    for words in ("resnet20 cifar10, 70 epochs", "small_cnn digits, 3 epochs", "svhn", "2026-01-01 00:00 UTC"):
        assert words in overview, words
    thumbs = re.findall(r'<a class="thumb" href="#([^"]*)"><img data-figure="([^"]*)" alt=""><span>([^<]*)', overview)
    assert [name for *_, name in thumbs] == ["train", "eval", "ood_layers"]
    assert all(link == figure and f'<figure id="{figure}"' in page.read_text() for link, figure, _ in thumbs)


def test_every_link_leads_to_a_place_on_the_page(page):
    elements = Elements(page.read_text())
    ids = {attributes.get("id") for _, attributes in elements.tags}
    links = [attributes["href"] for attributes in elements.of("a")]
    assert len(links) > 15 and {link[1:] for link in links} <= ids


def test_tables_and_figures_can_be_read_aloud(page):
    elements = Elements(page.read_text())
    assert len(elements.of("caption")) == len(elements.of("table")) > 20
    assert {attributes.get("scope") for attributes in elements.of("th")} == {"col", "row"}
    drawn = [attributes for attributes in elements.of("img") if "src" in attributes]
    assert len(drawn) == 6 and all("figure" in attributes["alt"] for attributes in drawn)
    assert all(attributes.get("aria-label") for attributes in [*elements.of("select"), *elements.of("nav")])


def test_headings_say_what_their_columns_are(page):
    titles = {attributes["title"] for attributes in Elements(page.read_text()).of("th") if "title" in attributes}
    assert any(title.startswith("mean cross-entropy (nats, at least 0, lower is better)") for title in titles), titles
    assert "how many runs, which differ in their seeds only, the line is the mean of" in titles


def test_numbers_are_set_to_the_right_and_truths_are_not(tmp_path):
    rows = [{"layer": "a", "auroc": 0.5, "n": 3, "ours": "0.5000 ± 0.1000", "sure": True, "p": None}]
    text = html_report.page(Content(library(tmp_path), [PrintedTable("eval", "eval", rows, rows)]))
    head = re.findall(r'<th scope="col"( class="num")?[^>]*>(\w+)', text)
    assert head == [("", "layer"), (' class="num"', "auroc"), (' class="num"', "n"), (' class="num"', "ours"), ("", "sure")]


def test_rows_of_a_record_are_all_there_and_the_note_names_those_that_are_not(page, tmp_path, monkeypatch):
    (rows,) = [data for data in Elements(page.read_text()).data if [row[3] for row in data][-1:] == ["class:248"]]
    assert len(rows) == 250 and rows[0][1:] == ["digits", "test", "all", "250", "0.5000", "1.0000"]
    results(tmp_path)
    monkeypatch.setattr(html_report, "MOST_ROWS", 120)
    text = html_report.page(Content(library(tmp_path)))
    assert "the other 130 rows are in" in text and "class:118" in text and "class:119" not in text


def test_a_name_that_is_no_utf_8_leaves_the_data_readable(tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    rows = [{"data": name, "subset": f'</script>"{number}'} for number in range(3)]
    text = html_report.markup.table("t", rows, [], at_once=1)
    assert Elements(text).data == [[["", "caf\\xe9", '</script>"1'], ["", "caf\\xe9", '</script>"2']]]
    text.encode()


def test_what_records_say_is_text_on_the_page_and_nothing_else(tmp_path):
    row = {"epoch": 1, "best": True, "selected_on": "<script>alert(1)</script>"}
    records.write(tmp_path, "train", "t", [row], model_type="lenet", dataset="<b>x</b>", directory="a")
    text = html_report.page(Content(library(tmp_path), [PrintedTable("t", "<i>", [{"a": "<u>"}], [])]))
    assert "<b>x" not in text and "<i>" not in text and "<u>" not in text and "<script>alert" not in text


def test_every_link_to_a_figure_leads_to_it(tmp_path):
    known, figure = library(tmp_path), tmp_path / "tables/specificity.png"
    figure.parent.mkdir()
    figure.write_bytes(PIXEL)
    known.derive("specificity", [figure.with_suffix(".json")], [{"data": "digits", "index": "cka", "spearman": 0.5}])
    lines = compare.compare(PAPERS["stitching"].tables["e5"], {}, known)
    table = PrintedTable("stitching-e5", "stitching/e5: E5", [], [], lines=lines)
    for own, pictures in ((figure, 1), (None, 0)):
        text = html_report.page(Content(known, [PrintedTable("specificity", "specificity", [], [], figure=own)], [table]))
        links = re.findall('href="#(figure-[^"]*)"', text)
        assert pictures == len(re.findall('src="data:image/png', text)) and all(f'id="{link}"' in text for link in links)


def test_figures_of_a_longer_run_name_are_not_those_of_the_shorter(tmp_path):
    for name in ("a.json", "a.png", "a-b.json", "a-b.png", "a-b-c.png", "a-d.svg", "a-d.png", "other.png"):
        (tmp_path / name).write_bytes(b"")
    found = html_report.figure_files(tmp_path)
    assert {run: [path.name for path in paths] for run, paths in found.items()} == {
        "a": ["a.png", "a-d.png"],
        "a-b": ["a-b.png", "a-b-c.png"],
    }


def test_of_many_networks_some_are_drawn_and_the_others_say_how(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "DRAWN", 0)
    path = network(tmp_path)
    assert script("exec_tables.py", "--report", "all.html", cwd=tmp_path).returncode == 0
    text = (tmp_path / "all.html").read_text()
    assert f"Its figure: python exec_tables.py --network {path}" in text and "data:image" not in text


def test_a_network_of_which_no_layer_was_measured_and_a_training_on_features_are_no_error(tmp_path):
    path = records.training(tmp_path, "a")
    records.write(
        tmp_path, "projections", "p", [{"layer": "net", "checkpoint": path, "folded": False, "mass": 0.5}], model_path=[path]
    )
    epochs = [{"epoch": number, "train_loss": 1.0} for number in (1, 2)]
    of = {"model_type": "mlp", "directory": "b", "init_from": path, "dataset": f"features={path}:fc1:digits"}
    records.write(tmp_path, "train", "b", epochs, **of)
    done = script("exec_tables.py", "--report", "all.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "all.html").read_text()
    assert 'id="networks"' not in text and "training on digits@fc1" in text


def test_a_page_without_records_says_so(tmp_path):
    done = script("exec_tables.py", "--report", "all.html", cwd=tmp_path)
    assert done.returncode == 0 and "There are no records yet." in (tmp_path / "all.html").read_text()


# --------------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def window(tmp_path_factory) -> Iterator[browser.Page]:
    """An empty page in a browser."""
    if browser.BROWSER is None:
        pytest.skip("no Chromium here")
    with browser.page(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


# what a reader sees: parts that are shown, rows of each, and what the page remembers beside
SEEN = """(() => {
  const shown = element => element.checkVisibility({ contentVisibilityAuto: false });
  const open = [...document.querySelectorAll("details")].map(one => one.open);
  const cells = row => [...row.cells].map(cell => cell.textContent);
  const rows = Object.fromEntries([...document.querySelectorAll(".part")].filter(shown).map(part =>
    [part.id, [...part.querySelectorAll("tbody tr")].filter(shown).map(cells)]));
  const figures = [...document.querySelectorAll("figure")].filter(shown).map(figure => figure.id);
  return { open, rows, figures, overview: shown(document.getElementById("overview")), at: scrollY, count: count.textContent,
    spill: document.documentElement.scrollWidth - document.documentElement.clientWidth };
})()"""
FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"


def search(window: browser.Page, words: str) -> dict:
    """What is seen after these words were typed into an empty search box."""
    window.run("search.focus({ preventScroll: true }); search.select()")
    if words:
        window.type(words)
    else:
        window.run("document.execCommand('delete')")
    window.run(FRAMES)
    return window.run(SEEN)


def test_a_search_takes_headings_and_values_together_and_gives_the_page_back(window, page):
    window.open(page)
    window.run(
        "document.querySelector('.record').open = true; document.getElementById('records').open = true; scrollTo(0, 400)"
    )
    window.run(FRAMES)
    before = window.run(SEEN)
    found = search(window, "auroc svhn conv1")  # a heading, and values of two columns
    assert {part.partition("-")[2] for part in found["rows"]} == {"ood_layers", "oodlayers-layers", "5"}
    (row,) = found["rows"]["experiment-ood_layers"]
    assert row[:4] == ["resnet20 cifar10, 70 epochs", "svhn", "1.0000", "conv1"]
    assert len(found["figures"]) == 2 and not found["overview"]  # those of the record that the row is from
    rows = sum(len(found["rows"][part]) for part in found["rows"] if not part.startswith("record"))
    assert found["count"] == f"left: 2 tables with {rows} rows, 2 figures, 1 record with 1 row"
    assert list(search(window, "f3 relative loss")["rows"]) == ["table-hyperplanes-f3"]  # words of a title
    assert search(window, "no such words")["count"] == "nothing is left"
    assert search(window, "") == before


def test_a_search_shows_rows_that_were_not_shown_and_opens_what_holds_them(window, page):
    window.open(page)
    found = search(window, "class:248")
    (record,) = found["rows"]
    assert found["rows"][record] == [] and "1 record with 1 row" in found["count"]  # folded, as records are
    window.run(f"document.getElementById('{record}').open = true")
    window.run(FRAMES)
    assert window.run(SEEN)["rows"][record] == [["digits", "test", "class:248", "250", "0.5000", "1.0000"]]


def test_filters_choose_a_network_a_data_set_and_an_experiment(window, page):
    choose = """(what, name) => { const filter = filters.find(one => one.options[0].textContent === what);
      filter.value = [...filter.options].find(option => option.textContent === name).value;
      filter.dispatchEvent(new Event("change")); }"""

    def chosen(**filters: str) -> dict:
        window.open(page)
        for what, name in filters.items():
            window.run(f"({choose})({json.dumps(what.replace('_', ' '))}, {json.dumps(name)})")
        return window.run(SEEN)

    seen = chosen(network="small_cnn digits, 3 epochs")
    assert {name for name in seen["rows"] if name.startswith("experiment")} == {"experiment-train", "experiment-eval"}
    assert [row[0] for row in seen["rows"]["experiment-train"]] == ["small_cnn digits, 3 epochs"]
    seen = chosen(data_set="svhn")
    assert {row[1] for row in seen["rows"]["experiment-ood_layers"]} == {"svhn"} and "experiment-eval" not in seen["rows"]
    seen = chosen(data_set="svhn", experiment="ood_layers")
    assert {name for name in seen["rows"] if name.startswith("experiment")} == {"experiment-ood_layers"}
    found = search(window, "conv1")
    assert len(found["rows"]["experiment-ood_layers"]) == 1
    window.run("clear.click()")
    assert window.run("filters.map(filter => filter.value).join('')") == "" and window.run(SEEN)["overview"]
    window.run("[...document.querySelectorAll('[data-choose]')].find(one => one.textContent === 'svhn').click()")
    assert "experiment-eval" not in window.run(SEEN)["rows"]


def table_page(folder: Path, rows: list[dict], origins: int = 0) -> Path:
    """A page with one table."""
    sets = [Origin(sets=("digits",))] * origins
    text = html_report.page(Content(library(folder), [PrintedTable("eval", "eval", rows, rows, origins=sets)]))
    (folder / "table.html").write_text(text)
    return folder / "table.html"


def test_columns_sort_by_number_and_by_name_and_back(window, tmp_path):
    values = [("layer10", 0.9, "1e-05"), ("layer2", None, "0.5 ± 0.1"), ("Layer1", 12.0, "-3"), ("", -1.0, "")]
    window.open(table_page(tmp_path, [dict(zip(("layer", "n", "p"), row, strict=True)) for row in values]))

    def column(number: int) -> list[str]:
        return [row[number] for row in window.run(SEEN)["rows"]["experiment-eval"]]

    def press(number: int) -> str:
        window.run(f"document.querySelectorAll('thead button')[{number}].click()")
        return window.run(f"document.querySelectorAll('thead th')[{number}].ariaSort")

    as_given = column(0)
    assert press(1) == "ascending" and column(1) == ["-1.0000", "0.9000", "12.0000", ""]
    assert press(1) == "descending" and column(1) == ["12.0000", "0.9000", "-1.0000", ""]
    assert press(1) is None and column(0) == as_given
    assert press(0) == "ascending" and column(0) == ["Layer1", "layer2", "layer10", ""]
    assert press(2) == "ascending" and column(2) == ["-3", "1e-05", "0.5 ± 0.1", ""]
    assert window.run("document.querySelectorAll('[aria-sort]').length") == 1


def test_rows_come_a_hundred_at_a_time_or_all(window, page):
    window.open(page, place="#records")
    window.run("[...document.querySelectorAll('.record')].find(one => one.textContent.includes('eval: e')).open = true")
    window.run(FRAMES)
    ask = "[...document.querySelectorAll('.record[open] .more button')]"
    counts = [window.run("document.querySelectorAll('.record[open] tbody tr').length")]
    for number in (0, -1):
        window.run(f"{ask}.at({number}).click()")
        counts.append(window.run("document.querySelectorAll('.record[open] tbody tr').length"))
    assert counts == [100, 200, 250]
    assert window.run("document.querySelector('.record[open] .more').hidden")
    search(window, "accuracy")
    search(window, "")
    assert window.run("document.querySelectorAll('.record[open] tbody tr').length") == 250  # as before the search


@pytest.mark.parametrize("width", [390, 1024, 1600])
def test_links_end_below_the_header_and_nothing_spills(window, page, width):
    window.open(page, width=width)
    found = window.run("""(async () => {
      const frame = () => new Promise(done => requestAnimationFrame(done)), wrong = [];
      const links = [...document.querySelectorAll('a[href^="#"]')];
      for (const link of links) {
        link.click();
        for (let n = 0; n < 12; n++) await frame();
        const { top } = document.getElementById(link.hash.slice(1)).getBoundingClientRect();
        const below = top - bar.getBoundingClientRect().bottom;
        const end = scrollY + innerHeight > document.documentElement.scrollHeight - 2;
        if (below < 0 || below > (end ? innerHeight : 20)) wrong.push([link.hash, below]);
      }
      return { wrong, links: links.length };
    })()""")
    assert found["wrong"] == [] and found["links"] > 15
    window.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    window.run(FRAMES)
    assert window.run(SEEN)["spill"] <= 0
    assert window.run(
        "[...document.images].filter(image => image.src && image.decode).every(image => image.getAttribute('src'))"
    )


def test_a_link_to_what_a_search_has_hidden_gives_the_page_back(window, page):
    window.open(page)
    assert "experiment-eval" not in search(window, "svhn")["rows"]
    window.run("location.hash = 'experiment-eval'")
    window.run(FRAMES)
    seen = window.run(SEEN)
    assert "experiment-eval" in seen["rows"] and seen["count"] == "" and window.run("search.value") == ""


def test_a_figure_is_enlarged_and_every_thumbnail_shows_one(window, page):
    window.open(page)
    window.run("Promise.all([...document.querySelectorAll('.thumb img')].map(image => image.decode()))")
    window.run("document.querySelector('#experiment-train .zoom').click()")
    assert window.run("zoom.open && zoom.querySelector('img').src.startsWith('data:image/png')")
    window.run("zoom.querySelector('button').click()")
    assert not window.run("zoom.open")


def test_the_page_is_dark_where_the_reader_wants_it_dark(window, page):
    def brightness(dark: bool, part: str) -> int:
        window.open(page, dark=dark)
        return sum(map(int, re.findall(r"\d+", window.run(f"getComputedStyle(bar).{part}"))[:3]))

    assert brightness(True, "backgroundColor") < 150 < 600 < brightness(True, "color")
    assert brightness(False, "color") < 150 < 600 < brightness(False, "backgroundColor")


def test_four_thousand_rows_are_searched_while_one_types(window, tmp_path):
    rows = [
        {"run": f"resnet{n % 9} digits, 6 epochs", "layer": f"layer{n % 4}.{n}", "auroc": n / 4000, "fpr95": 1 - n / 4000}
        | {f"column {number}": f"value {n * number}" for number in range(8)}
        for n in range(4000)
    ]
    window.open(table_page(tmp_path, rows, len(rows)))
    window.ask("Performance.enable", timeDomain="threadTicks")

    def worked() -> float:
        """Milliseconds that the page's thread has worked: what else the machine does is not in them."""
        return 1000 * {one["name"]: one["value"] for one in window.ask("Performance.getMetrics")["metrics"]}["ThreadTime"]

    took: dict[str, float] = {}
    counts = {}
    for words in ("layer3 auroc", "value", "3999", "resnet4 0.5", "") * 3:
        begin = worked()
        counts[words] = window.run(f"""(() => {{
          search.value = {json.dumps(words)};
          search.dispatchEvent(new Event("input"));
          document.body.getBoundingClientRect();  // what is shown is laid out, too
          return count.textContent;
        }})()""")
        took[words] = min(worked() - begin, took.get(words, math.inf))
    assert counts["layer3 auroc"].startswith("left: 1 table with 1000 rows")
    assert counts["3999"].startswith("left: 1 table with 2 rows")  # layer3.3999 and value 3999
    assert 0 < max(took.values()) < 50, took
