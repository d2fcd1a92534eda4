"""Records, checkpoints and caches that earlier versions of a method have made."""

import contextlib
from pathlib import Path

from lib.core import cache_folders, files
from lib.core.errors import UserError
from lib.runs import records
from lib.runs.command_lines import Experiments


def earlier(
    experiments: Experiments, results_dir: str | Path, models_dir: str | Path, cache_dir: str | Path
) -> list[dict[str, str | int]]:
    """A row for each that is of an earlier revision than the present one, and what makes it again."""
    left: list[tuple[str, Path, int, int, str]] = []
    for path, record in records.records(results_dir, experiments, []):
        now = experiments[record["experiment"]].revision
        left.append(("record", path, records.revision(record), now, f"exec_tables.py --rerun {path}"))
    for marker in sorted(Path(models_dir).rglob("run.json")):
        with contextlib.suppress(UserError):
            settings = of_folder(marker)
            made, _ = settings.pop("revision", 1), settings.pop("inputs", {})
            left.append(("checkpoints", marker.parent, made, _present(settings, experiments), "its command"))
    for path, made, now in cache_folders.earlier(cache_dir):
        left.append(("cache", path, made, now, "what needs it; this folder can go"))
    return [
        {"what": what, "path": str(path), "revision": made, "now": now, "made again by": again}
        for what, path, made, now, again in left
        if made < now
    ]


def of_folder(marker: Path) -> dict:
    """What the file run.json in the folder of a training says. Raises `UserError` where it is broken."""
    try:
        content = files.read_json(marker)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{marker} is broken; --overwrite starts the run again")
    return content


def _present(settings: dict, experiments: Experiments) -> int:
    """The present revision of the experiment that has these settings; 0 where there is none."""
    fitting = [one.revision for one in experiments.values() if settings and settings.keys() <= one.fields.keys()]
    return fitting[0] if fitting else 0
