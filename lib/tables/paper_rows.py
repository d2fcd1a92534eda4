"""The lines of a paper's table as rows: rounded for readers, or in full."""

from lib.core import text_table
from lib.tables.compare import Comparison
from lib.tables.papers.published import NOT_FOUND


def shown(axes: list[str], lines: list[Comparison]) -> list[dict[str, str]]:
    """The lines of a paper's table as a reader meets them; columns that are empty throughout are left out."""
    rows = []
    for line in lines:
        known = line.published
        interval = f"[{number(line.low)}, {number(line.high)}] over {line.interval_of}" if line.interval_of else ""
        networks = f" ({line.networks} network{'s' * (line.networks > 1)})" if line.networks not in (0, line.n) else ""
        rows.append(
            {
                **dict(zip(axes, line.labels, strict=True)),
                "run": line.network,
                "setting": line.setting,
                "ours": ours(line),
                "95 % interval": interval,
                "n": f"{line.n}{networks}" if line.n else "",
                "published": known.text if known else NOT_FOUND,
                "difference": _difference(line),
                "verdict": line.verdict,
                "note": line.note,
                "published in": f"{known.source} [{known.tag}]" if known else "",
            }
        )
    kept = [column for column in (rows[0] if rows else ()) if any(row[column] for row in rows)]
    return [{column: row[column] for column in kept} for row in rows]


def raw(axes: list[str], lines: list[Comparison]) -> list[dict]:
    """The lines with their numbers in full."""
    rows = []
    for line in lines:
        known = line.published
        rows.append(
            {
                **dict(zip(axes, line.labels, strict=True)),
                "run": line.network,
                "setting": line.setting,
                "mean": line.mean,
                "deviation": line.deviation,
                "n": line.n,
                "networks": line.networks,
                "low": line.low,
                "high": line.high,
                "interval_of": line.interval_of,
                "published": known.value if known else None,
                "published_text": known.text if known else NOT_FOUND,
                "tolerance": known.tolerance if known else None,
                "tag": known.tag if known else "",
                "published_in": known.source if known else "",
                "difference": line.difference,
                "margin": line.margin,
                "verdict": line.verdict,
                "note": line.note,
                "records": " ".join(map(str, line.records)),
            }
        )
    return rows


def ours(line: Comparison) -> str:
    """Mean and deviation."""
    if line.mean is None:
        return ""
    return number(line.mean) + (f" ± {number(line.deviation)}" if line.deviation is not None else "")


def _difference(line: Comparison) -> str:
    """Ours less the published number, and how far both are apart at most in 95 % of exact reproductions."""
    margin = f" ± {number(line.margin)}" if line.difference is not None and line.margin else ""
    return signed(line.difference) + margin


def number(value: float | None) -> str:
    """A measured number to four digits, counts in full."""
    if value is None:
        return ""
    return str(int(value)) if value == int(value) and abs(value) > 1 else text_table.cell(float(value))


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    return "" if value is None else ("+" if value > 0 else "") + number(value)
