"""The folders under `--cache-dir`, for results that can be computed again: one per kind and revision of the method.

Entries are found by the content they are computed from. Where a correction gives other results from the same content, the
revision of the kind goes up, and entries of before are neither found nor lost.
"""

from pathlib import Path

# kind -> revision
REVISIONS = {
    "features": 1,  # of layers of networks
    "neighbors": 1,  # tables of distances
    "attacks": 2,  # which images were not moved to another class; 2: L2 attacks start as the nearest-category paper's
    "corrupted": 1,  # images
    "decoded": 1,  # images of folders
    "unpacked": 1,  # arrays of archives
}


def folder(cache_dir: str | Path, kind: str, revision: int | None = None) -> Path:
    """Where entries of a kind lie, by default those of the present revision; those of the first lie without its number."""
    revision = revision or REVISIONS[kind]
    return Path(cache_dir) / (kind if revision == 1 else f"{kind}-{revision}")


def earlier(cache_dir: str | Path) -> list[tuple[Path, int, int]]:
    """The folders with entries of earlier revisions, each with its revision and the present one."""
    past = [(folder(cache_dir, kind, made), made, now) for kind, now in REVISIONS.items() for made in range(1, now)]
    return [entry for entry in past if entry[0].is_dir()]


def files_of(cache_dir: str | Path) -> list[Path]:
    """Every kept array of the present revisions, sorted."""
    folders = [folder(cache_dir, kind) for kind in REVISIONS]
    return [path for one in folders for path in sorted(one.rglob("*")) if path.suffix in (".npy", ".npz") and path.is_file()]
