"""What earlier versions of a method have left: records, checkpoints of trainings, and caches."""

import contextlib
import json
from pathlib import Path

from lib.core import cache_folders
from lib.core.errors import UserError
from lib.runs import records
from lib.runs.command_lines import Experiments


def earlier(
    experiments: Experiments, results_dir: str | Path, models_dir: str | Path, cache_dir: str | Path
) -> list[dict[str, str | int]]:
    """A row for each that is of an earlier revision than the present one, and what makes it again."""
    rows: list[dict[str, str | int]] = []
    broken: list[str] = []
    for path, record in records.records(results_dir, experiments, broken):
        made, now = records.revision(record), experiments[record["experiment"]].revision
        if made < now:
            again = f"exec_tables.py --rerun {path}"
            rows.append({"what": "record", "path": str(path), "revision": made, "now": now, "made again by": again})
    for marker in sorted(Path(models_dir).rglob("run.json")):
        with contextlib.suppress(UserError):
            settings = of_folder(marker)
            made, now = settings.pop("revision", 1), _present(settings, experiments)
            if made < now:
                row = {"what": "checkpoints", "path": str(marker.parent), "revision": made, "now": now}
                rows.append(row | {"made again by": "its command"})
    for path, made in cache_folders.earlier(cache_dir).items():
        now = cache_folders.REVISIONS[path.name.partition("-")[0]]
        again = "what needs it; this folder can go"
        rows.append({"what": "cache", "path": str(path), "revision": made, "now": now, "made again by": again})
    return rows


def of_folder(marker: Path) -> dict:
    """What the file run.json in the folder of a training says. Raises `UserError` where it is broken."""
    try:
        content = json.loads(marker.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{marker} is broken; --overwrite starts the run again")
    return content


def _present(settings: dict, experiments: Experiments) -> int:
    """The present revision of the experiment that has these settings; 0 where there is none."""
    fitting = [one.revision for one in experiments.values() if settings and settings.keys() <= one.fields.keys()]
    return fitting[0] if fitting else 0
