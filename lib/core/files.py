"""Atomic writing of files, and hashes of their contents."""

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from lib.core.errors import UserError
from lib.core.text import as_bytes

# what reading an array, or an archive of arrays, raises where the file is not whole
NO_ARRAYS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
)


LEFT_BY_FILE_MANAGERS = ("thumbs.db", "desktop.ini", "__macosx")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file beside `path`, then renames it: a reader never meets half a file.

    Raises `UserError` where the folder cannot be written or the disk is full; what was at `path` is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: object) -> None:
    """Writes `content` as indented JSON; a NaN or an infinity in it is a ValueError.

    A byte of a name that is no UTF-8 becomes `\\udce9`, from which JSON's readers make what Python had read of it.
    """
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def read_json(path: Path, **options) -> Any:
    """What a JSON file holds. Raises OSError, and ValueError for what is no JSON, is no UTF-8 or is nested without end."""
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise ValueError(f"{path}: not a file")
    try:
        return json.loads(path.read_text("utf-8"), **options)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's: hidden (`._model_1.pt`), or left by a file manager."""
    return name.startswith(".") or name.lower() in LEFT_BY_FILE_MANAGERS


def below(folder: Path, suffixes: tuple[str, ...] = ()) -> list[str]:
    """Every file at any depth, relative to the folder, with forward slashes, in the order of its parts.

    Links are followed, those that lead back to a folder around them are not. What is hidden, and what file managers leave
    (`Thumbs.db`, `__MACOSX`), is left out; with `suffixes` also every file of another kind, in whatever case.
    """
    found: list[str] = []

    def walk(path: Path, prefix: str, around: tuple[tuple[int, int], ...]) -> None:
        status = path.stat()
        if (here := (status.st_dev, status.st_ino)) in around:
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if is_litter(entry.name):
                    continue
                if entry.is_dir():
                    walk(Path(entry.path), f"{prefix}{entry.name}/", (*around, here))
                elif entry.is_file() and (not suffixes or entry.name.lower().endswith(suffixes)):
                    found.append(prefix + entry.name)

    walk(Path(folder), "", ())
    return sorted(found, key=lambda name: name.split("/"))


def fingerprint(paths: list[Path], cache_dir: Path) -> dict:
    """{"sha256", "bytes", "files"} of some files and folders (with all that is `below` them) taken together.

    Hashes are kept in `cache_dir`, for each host by itself, under names, sizes, inodes and times, so that a file is read
    once. Of the times the last change of the inode is one: it cannot be set back.
    """
    lines, count, size = [], 0, 0
    for path in map(Path, paths):
        for name in below(path) if path.is_dir() else [path.name]:
            file = path / name if path.is_dir() else path
            status = file.stat()
            lines.append((f"{name} {status.st_size}", identity(status), file))
            count, size = count + 1, size + status.st_size
    manifest = "\n".join(f"{line} {known} {file.resolve()}" for line, known, file in lines)
    key = hashlib.sha256(as_bytes(manifest)).hexdigest()
    cache = hashes_file(cache_dir)
    hashes = _kept_hashes(cache)
    if key not in hashes:
        if len(lines) == 1:
            hashes[key] = sha256(lines[0][2])
        else:
            content = "\n".join(f"{line} {sha256(file)}" for line, _, file in lines)
            hashes[key] = hashlib.sha256(as_bytes(content)).hexdigest()
        with contextlib.suppress(UserError):  # a cache that cannot be written is computed again
            write_json(cache, _kept_hashes(cache) | {key: hashes[key]})
    return {"sha256": hashes[key], "bytes": size, "files": count}


def hashes_file(cache_dir: Path) -> Path:
    """Where this host keeps the hashes of files: inodes and times are other ones on another host."""
    return Path(cache_dir) / f"hashes-{re.sub(r'[^A-Za-z0-9._-]', '-', platform.node()) or 'host'}.json"


def identity(status: os.stat_result) -> str:
    """What a file is recognised by without being read: size, inode, and when its content and its inode were changed."""
    return f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"


def sha256(path: Path) -> str:
    """The hash of one file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kept_hashes(cache: Path) -> dict[str, str]:
    try:
        hashes = read_json(cache)
    except (OSError, ValueError):
        return {}
    return hashes if isinstance(hashes, dict) else {}
