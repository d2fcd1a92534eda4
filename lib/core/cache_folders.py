"""The folders under `--cache-dir`: what can be computed again, by kind, and by the revision of how it is computed.

Entries are found by the content they are computed from. Where a correction gives other results from the same content, the
revision of the kind goes up, and entries of before are neither found nor lost.
"""

import contextlib
from pathlib import Path

# kind -> revision
REVISIONS = {
    "features": 1,  # of layers of networks
    "neighbors": 1,  # tables of distances
    "attacks": 1,  # which images were not moved to another class
    "corrupted": 1,  # images
    "decoded": 1,  # images of folders
    "unpacked": 1,  # arrays of archives
}


def folder(cache_dir: str | Path, kind: str) -> Path:
    """Where entries of a kind lie; those of the first revision without its number."""
    revision = REVISIONS[kind]
    return Path(cache_dir) / (kind if revision == 1 else f"{kind}-{revision}")


def earlier(cache_dir: str | Path) -> dict[Path, int]:
    """The folders with entries of earlier revisions, and these."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(Path(cache_dir).iterdir()):
            kind, _, number = path.name.partition("-")
            revision = int(number) if number.isdigit() else 1 if not number else None
            if path.is_dir() and revision is not None and revision < REVISIONS.get(kind, 0):
                found[path] = revision
    return found
