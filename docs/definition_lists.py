"""An extension of griffe, which reads docstrings for the site: lines such as `images    (n, c, h, w)` become a list."""

import re

import griffe

TERM = re.compile(r"^(?P<term>[\w*`][\w*`, .()]*?) {2,}(?P<text>\S.*)$")


def as_list(text: str) -> str:
    """The docstring with each block of terms and their meanings, aligned by spaces, as a Markdown list."""
    lines, inside = [], False
    for line in text.splitlines():
        match = TERM.match(line)
        if match:
            lines += [] if inside else [""]
            lines.append(f"- `{match['term'].strip('`')}`: {match['text']}")
        else:
            inside = inside and line.startswith(" ")
            lines.append(line if not inside else "  " + line.strip())
        inside = inside or bool(match)
    return "\n".join(lines)


class DefinitionLists(griffe.Extension):
    """Rewrites the docstring of every object."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            obj.docstring.value = as_list(obj.docstring.value)
