"""Rows as tables of text. Knows rows only: where they come from is not its business."""

from collections.abc import Sequence


def text(rows: list[dict], columns: tuple[str, ...] = (), most: int | None = None) -> str:
    """An aligned table of the rows, numbers to four digits; of more than `most` rows the middle is left out."""
    if not rows:
        return "no rows"
    columns = columns or tuple(dict.fromkeys(key for row in rows for key in row))
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    first = left_out = 0
    if most is not None and len(cells) > most:
        first, left_out = most // 2, len(cells) - most
        cells = cells[:first] + cells[-(most - first) :]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    numeric = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]

    def line(words: Sequence[str]) -> str:
        return "  ".join(
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(words, widths, numeric, strict=True)
        ).rstrip()

    lines = [line(columns), line(["-" * width for width in widths]), *map(line, cells)]
    if left_out:
        lines.insert(2 + first, f"... {left_out} more rows in the record ...")
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
