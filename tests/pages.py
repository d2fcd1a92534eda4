"""The parts of the documentation that are written from the code: `python tests/readme.py` writes them."""

import re
import shlex
from pathlib import Path

import inprocess

from lib.experiments import EXPERIMENTS

DOCS = Path(__file__).resolve().parent.parent / "docs"

# experiment -> the page of its script
PAGES = {
    "train": "training.md",
    "eval": "eval.md",
    "data": "exec_data.md",
    "ood_layers": "ood_layers.md",
    "probe": "probes.md",
    "stitch": "stitching.md",
    "similarity": "similarity.md",
    "ood_detector": "ood_detector.md",
    "stitch_ood": "stitch_ood.md",
    "ncg": "nearest_categories.md",
    "projections": "projections.md",
    "reinit": "reinit.md",
}
OTHERS = ("tables.md", "study.md", "reproductions.md")  # of scripts that write no rows of their own, or of all
GLOSSARY = DOCS / "columns.md"
FLAGS = DOCS / "flags.md"


def column_table(experiment: str) -> str:
    """A Markdown table of the columns of an experiment's rows: name, meaning, unit, range, which direction is better."""
    columns = EXPERIMENTS[experiment].columns
    lines = ["| column | meaning | unit | range | better |", "|---|---|---|---|---|"]
    for name, column in columns.defined.items():
        unit = "word" if name in columns.words else "true or false" if name in columns.truths else column.unit
        lines.append(f"| `{name}` | {_escaped(column.meaning)} | {unit} | {column.range()} | {column.better} |")
    return "\n".join(lines)


def flag_table(experiment: str) -> str:
    """A Markdown table of an experiment's flags by the groups of docs/flags.md, which has their meanings."""
    groups: dict[str, list[str]] = {}
    group = "all"
    for line in FLAGS.read_text().splitlines():
        if line.startswith("## "):
            group = line.removeprefix("## ")
        row = re.match(r"\| `([^`]+)` \| .* \| ([\w, ]+) \|$", line)
        if row and {experiment, "all"} & set(row[2].split(", ")):
            words = row[1].split()
            spellings = [word for word in words if word.startswith("-")] or words[:1]
            groups.setdefault(group, []).append(f"`{' '.join(spellings)}`")
    lines = ["| group | flags |", "|---|---|"]
    for group, flags in groups.items():
        anchor = "" if group == "all" else f"#{group.lower().replace(' ', '-')}"
        lines.append(f"| [{group.lower()}](flags.md{anchor}) | {', '.join(dict.fromkeys(flags))} |")
    return "\n".join(lines)


def glossary_table() -> str:
    """A Markdown table of all columns in the order of the alphabet: name, and what it means in the rows of which scripts."""
    meanings: dict[str, dict[str, list[str]]] = {}
    for experiment in PAGES:
        for name, column in EXPERIMENTS[experiment].columns.defined.items():
            meanings.setdefault(name, {}).setdefault(_escaped(column.described()), []).append(experiment)
    lines = ["| column | meaning | scripts |", "|---|---|---|"]
    for name in sorted(meanings, key=str.lower):
        for number, (meaning, experiments) in enumerate(meanings[name].items()):
            links = ", ".join(f"[{experiment}]({PAGES[experiment]}#columns)" for experiment in experiments)
            lines.append(f"| {f'`{name}`' if number == 0 else ''} | {meaning} | {links} |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def output(words: str) -> str:
    """A command of the suite as a block, and below it the Markdown that it prints with `--format md`."""
    done = inprocess.run([*shlex.split(words), "--format", "md", "--quiet"], DOCS.parent)
    assert done.returncode == 0, done.stderr
    below = re.sub("^## ", "### ", done.stdout.strip(), flags=re.MULTILINE)  # the page's headings
    return f"```bash\npython {words}\n```\n\n{below}"


def present(page: str) -> str:
    """The page with what is present between its marks, `<!-- columns of NAME -->`, flags or output, and `<!-- end -->`."""

    def text(mark: re.Match) -> str:
        table = glossary_table() if mark[3] == "all scripts" else TABLES[mark[2]](mark[3])
        return f"{mark[1]}\n\n{table}\n\n<!-- end -->"

    return re.sub(r"(<!-- (columns|flags|output) of (.+?) -->)\n.*?<!-- end -->", text, page, flags=re.DOTALL)


TABLES = {"columns": column_table, "flags": flag_table, "output": output}


def write() -> None:
    """Brings all pages up to date."""
    for path in (GLOSSARY, *(DOCS / page for page in (*PAGES.values(), *OTHERS))):
        path.write_text(present(path.read_text()))
