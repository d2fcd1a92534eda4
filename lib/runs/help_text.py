"""What `--help` prints: a line of usage, the flags in groups, examples; the most used flags only, or all of them.

Knows no configuration: the command line (`cli`) says which flags there are.
"""

import itertools
import re
import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from lib.core import terminal

# group -> its heading, in the order of the help: first what a run is of and where its results go, then how it is done
GROUPS = {
    "network": "network and layers",
    "data": "data",
    "output": "output",
    "method": "method",
    "training": "training",
    "machine": "machine",
}
MARGIN = 26  # columns of the flags; what is longer has its meaning on the next line
WIDEST = 120  # longer lines are hard to read
NARROWEST = 50


@dataclass(frozen=True)
class Flag:
    """A flag as help and documentation show it.

    spellings  its spellings, the shortest first; of a positional argument its name
    value      what stands for its value; empty where it takes none
    default    its default as words; "required" where it has none
    meaning    what it does, and its choices; a line for each where they are explained
    group      a key of `GROUPS`
    common     whether the short help shows it
    needed     whether no run does without it
    """

    spellings: tuple[str, ...]
    value: str
    default: str
    meaning: str
    group: str
    common: bool
    needed: bool

    @property
    def positional(self) -> bool:
        """Whether its place on the command line is its name."""
        return not self.spellings[0].startswith("-")


def usage(prog: str, flags: Iterable[Flag]) -> str:
    """The line of usage: positional arguments, flags that no run does without, and that there are others."""
    words = []
    for flag in flags:
        word = " ".join([*flag.spellings[:1], *filter(None, [flag.value])])
        if flag.positional or flag.needed:
            words.append(word if flag.needed else f"[{word}]")
    words.sort(key=lambda word: word.lstrip("[").startswith("-"))
    return " ".join(["usage:", prog, *words, "[flags]"])


def text(prog: str, description: str, flags: list[Flag], everything: bool, width: int | None = None) -> str:
    """The help of a script.

    description  its question in the first paragraph, then examples and remarks
    everything   all flags, instead of the common ones
    width        of the lines; default: that of the terminal, 80 in a pipe
    """
    width = _fitting(width)
    question, *paragraphs = _paragraphs(description)
    shown = [flag for flag in flags if everything or flag.common]
    groups = []
    for group, heading in GROUPS.items():
        members = [flag for flag in shown if flag.group == group]
        if members:
            groups.append("\n".join([f"{heading}:", *(_lines(flag, width) for flag in members)]))
    groups = ("\n\n" if everything else "\n").join(groups)
    hidden = len(flags) - len(shown)
    more = f"--help-all shows {hidden} more flags." if hidden else "--no-FLAG turns off a flag that is on by default."
    about = [_shown(paragraph, width) for paragraph in paragraphs]
    return "\n\n".join([_usage(prog, flags, width), _wrapped(question, width), groups, more, *about])


def brief(prog: str, description: str, flags: list[Flag], values: list[str], width: int | None = None) -> str:
    """What a script says that was started without a word: usage, its question, an example, `values`, where more is said."""
    width = _fitting(width)
    question, *paragraphs = _paragraphs(description)
    example = ["for example:\n" + "\n".join(_commands(paragraphs[0], width)[0])] if paragraphs else []
    more = "--help shows the most used flags, --help-all all of them."
    values = [_wrapped(clause, width, "    ") for clause in values]
    return "\n\n".join([_usage(prog, flags, width), _wrapped(question, width), *example, *values, more])


def _fitting(width: int | None) -> int:
    return max(NARROWEST, min(WIDEST, width or shutil.get_terminal_size().columns))


def _usage(prog: str, flags: list[Flag], width: int) -> str:
    return _wrapped(usage(prog, flags), width, "    ")


def _paragraphs(description: str) -> list[str]:
    return re.sub(r"\s*\\\n\s*", " ", description.rstrip()).split("\n\n")


def _commands(paragraph: str, width: int) -> list[list[str]]:
    """The lines of each example of a paragraph: a command, and behind three spaces or more a remark on it."""
    examples: list[list[str]] = []
    for line in paragraph.splitlines():
        if len(line) <= width:
            lines = [line]
        else:
            command, *remarks = re.split(r"\s{3,}", line.strip(), maxsplit=1)
            command = terminal.command("    " + command, width, " " * 8)
            lines = [command, *(" " * 8 + "# " + remark for remark in remarks)]
        if examples and line.startswith(" " * 8):
            examples[-1] += lines
        else:
            examples.append(lines)
    return examples


def _shown(paragraph: str, width: int) -> str:
    """A paragraph of examples, or of prose."""
    if paragraph.startswith(" "):
        return "\n".join(itertools.chain.from_iterable(_commands(paragraph, width)))
    return _wrapped(paragraph, width)


def _wrapped(paragraph: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(paragraph.split()), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _lines(flag: Flag, width: int) -> str:
    """The flag and its value, and from the margin on what it means."""
    head = "  " + " ".join([", ".join(flag.spellings), *filter(None, [flag.value])])
    default = f" (default: {flag.default})" if flag.default not in ("", "None", "False", "required") else ""
    body = [
        line
        for part in (flag.meaning + default).splitlines()
        for line in _wrapped(part, width - MARGIN, "  " * ("\n" in flag.meaning)).splitlines()
    ]
    if len(head) > MARGIN - 2:
        return "\n".join([head, *(" " * MARGIN + line for line in body)])
    return "\n".join([head.ljust(MARGIN) + body[0], *(" " * MARGIN + line for line in body[1:])])
