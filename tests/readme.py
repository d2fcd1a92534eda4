"""What the documentation says, and its tables of all flags: `python tests/readme.py` writes it, a test compares it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pages

from lib.experiments import EXPERIMENTS
from lib.runs import cli, help_text

FLAGS = ROOT / "docs" / "flags.md"
BEGIN, END = "<!-- flags: written by tests/readme.py -->", "<!-- end of flags -->"


def documentation() -> str:
    """README and all pages, one after another."""
    return "\n\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))


def configurations() -> dict[str, type]:
    """script -> its configuration."""
    return {f"exec_{name}.py": EXPERIMENTS[name].configuration for name in sorted(EXPERIMENTS)}


def flag_tables() -> str:
    """A Markdown table per group of flags, as --help has them: flag, default, meaning, and the scripts that have it."""
    scripts: dict[tuple[str, str, str, str], list[str]] = {}
    for script, configuration in configurations().items():
        for flag in cli.flags(configuration):
            value = f" {flag.value}" if flag.value else ""
            row = flag.group, " ".join(flag.spellings) + value, flag.default, flag.meaning
            scripts.setdefault(row, []).append(script.removeprefix("exec_").removesuffix(".py"))
    parts = []
    for group, heading in help_text.GROUPS.items():
        parts += [f"## {heading.capitalize()}", "", "| flag | default | meaning | scripts |", "|---|---|---|---|"]
        rows = [(row[1:], names) for row, names in scripts.items() if row[0] == group]
        for (spellings, default, meaning), names in sorted(rows, key=lambda item: (-len(item[1]), item[1])):
            where = "all" if len(names) == len(configurations()) else ", ".join(names)
            default = f"`{default}`" if default not in ("", "None") else ""
            meaning = meaning.replace("|", chr(92) + "|").replace("\n", "<br>")
            parts.append(f"| `{spellings}` | {default} | {meaning} | {where} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def with_table(page: str) -> str:
    """The page with the present tables between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{flag_tables()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    FLAGS.write_text(with_table(FLAGS.read_text()))
    pages.write()
