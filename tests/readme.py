"""What the documentation says, and its table of all flags: `python tests/readme.py` writes it, a test compares it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pages

from lib.experiments import EXPERIMENTS
from lib.runs import cli

FLAGS = ROOT / "docs" / "flags.md"
BEGIN, END = "<!-- flags: written by tests/readme.py -->", "<!-- end of flags -->"


def documentation() -> str:
    """README and all pages, one after another."""
    return "\n\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))


def configurations() -> dict[str, type]:
    """script -> its configuration."""
    return {f"exec_{name}.py": EXPERIMENTS[name].configuration for name in sorted(EXPERIMENTS)}


def flag_table() -> str:
    """A Markdown table: flag, default, meaning, and the scripts that have it."""
    scripts: dict[tuple[str, str, str], list[str]] = {}
    configurations_ = configurations()
    for script, configuration in configurations_.items():
        for row in cli.flags(configuration):
            scripts.setdefault(row, []).append(script.removeprefix("exec_").removesuffix(".py"))
    lines = ["| flag | default | meaning | scripts |", "|---|---|---|---|"]
    for (spellings, default, text), names in sorted(scripts.items(), key=lambda item: (-len(item[1]), item[1])):
        where = "all" if len(names) == len(configurations_) else ", ".join(names)
        default = f"`{default}`" if default not in ("", "None") else ""
        lines.append(f"| `{spellings}` | {default} | {text.replace('|', chr(92) + '|')} | {where} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """The page with the present table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{flag_table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    FLAGS.write_text(with_table(FLAGS.read_text()))
    pages.write()
