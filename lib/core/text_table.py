"""Rows as tables of text. Knows rows only."""

import itertools
from collections.abc import Callable, Sequence


def text(
    rows: list[dict],
    columns: tuple[str, ...] = (),
    most: int | None = None,
    always: Callable[[dict], object] = lambda row: False,
) -> str:
    """An aligned table of the rows, numbers to four digits; of more than `most` rows the middle is left out.

    Rows for which `always` holds are all shown, however many they are.
    """
    if not rows:
        return "no rows"
    columns = columns or tuple(dict.fromkeys(key for row in rows for key in row))
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    shown = [True] * len(rows)
    if most is not None and len(rows) > most:
        others = [number for number, row in enumerate(rows) if not always(row)]
        room = max(0, most - (len(rows) - len(others)))
        for number in others[room // 2 : len(others) - (room - room // 2)]:
            shown[number] = False
    kept = [line for line, is_shown in zip(cells, shown, strict=True) if is_shown]
    widths = [max(len(line[i]) for line in [list(columns), *kept]) for i in range(len(columns))]
    numeric = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]

    def line(words: Sequence[str]) -> str:
        return "  ".join(
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(words, widths, numeric, strict=True)
        ).rstrip()

    lines = [line(columns), line(["-" * width for width in widths])]
    for is_shown, several in itertools.groupby(zip(shown, cells, strict=True), key=lambda pair: pair[0]):
        part = [words for _, words in several]
        lines += map(line, part) if is_shown else [f"... {len(part)} more rows in the record ..."]
    return "\n".join(lines)


def cell(value: object) -> str:
    """One value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"
    return str(value)
