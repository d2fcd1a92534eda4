"""The folder of cached features: its entries and their sizes, and which are removed when it grows too large.

`<cache>/features/<key>/` holds the features of one network on one split (`lib.representations.features`). An entry is
touched whenever it is read, and the one read longest ago goes first. Free of torch.
"""

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from lib.core import cache_folders, files

GIB = 2**30
BLOCK = 512  # bytes, the unit of st_blocks


@dataclass(frozen=True)
class CachedFeatures:
    """The features of one network on one split: what they are, in bytes, and when they were last used."""

    path: Path
    about: str
    size: int
    used: float


def folder(cache_dir: str | Path) -> Path:
    return cache_folders.folder(cache_dir, "features")


def entries(cache_dir: str | Path) -> list[CachedFeatures]:
    """All entries, the one used longest ago first."""
    listed = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder(cache_dir).iterdir():
            sizes = []
            for file in path.glob("*"):
                with contextlib.suppress(FileNotFoundError):  # another process may be pruning
                    sizes.append(file.stat().st_blocks * BLOCK)
            with contextlib.suppress(FileNotFoundError):
                listed.append(CachedFeatures(path, _about(path), sum(sizes), path.stat().st_mtime))
    return sorted(listed, key=lambda entry: entry.used)


def touch(path: Path, about: str = "") -> None:
    """Says that an entry is in use, and with `about` what it holds."""
    with contextlib.suppress(OSError):
        if about and not (path / "about.json").exists():
            (path / "about.json").write_text(json.dumps({"about": about}), "utf-8")
        os.utime(path)


def prune(cache_dir: str | Path, limit: float) -> list[CachedFeatures]:
    """Removes entries, those used longest ago first, until no more than `limit` bytes lie there; what went.

    A process that has mapped a removed file goes on reading it.
    """
    gone, listed = [], entries(cache_dir)
    total = sum(entry.size for entry in listed)
    for entry in listed:
        if total <= limit:
            break
        shutil.rmtree(entry.path, ignore_errors=True)
        total -= entry.size
        gone.append(entry)
    return gone


def room(cache_dir: str | Path) -> int:
    """Bytes that the disk of the cache has left."""
    path = folder(cache_dir)
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def table(listed: list[CachedFeatures]) -> list[dict]:
    """A row per entry, the one used last at the bottom, and the sum."""
    rows = [
        {
            "features": entry.path.name,
            "of": entry.about,
            "GiB": f"{entry.size / GIB:.3f}",
            "used": time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)),
        }
        for entry in listed
    ]
    return [
        *rows,
        {
            "features": f"{len(listed)} in all",
            "of": "",
            "GiB": f"{sum(entry.size for entry in listed) / GIB:.3f}",
            "used": "",
        },
    ]


def _about(path: Path) -> str:
    try:
        return str(files.read_json(path / "about.json")["about"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
