"""Any data set as an array or as a folder with a table, which every script reads: `exec_data.py import`."""

import csv
import io
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from lib import datasets
from lib.core import files
from lib.core.errors import UserError
from lib.datasets import names
from lib.datasets.split import Split
from lib.datasets.storage import arrays, image_tables

BATCH = 256  # images at once


def export(text: str, root: str | Path, target: Path, cache_dir: str | Path) -> list[str]:
    """Writes the data set `text` to `target`; a line for each file of an array, or for each split of a folder.

    An array, `x.npy`, holds one split, with labels and groups beside it; a folder holds all, with the table `labels.csv`.
    Arrays of another form are converted (see `arrays.converted`), and a line says what their values were taken as. Raises a
    `UserError` if `target` is there.
    """
    data, said = names.parse(text), []
    if data.base == "npy" and data.path is not None:
        path = Path(data.path)
        datasets.check(text, root)
        array = arrays.map_array(path)
        images, taken_as = arrays.converted(array, path)
        said = [] if array.dtype == np.uint8 else [f"{path}: {array.dtype}, taken as {taken_as}"]
        splits = [arrays.described(path, "all", images)]
    else:
        splits = [datasets.load(text, root, split, cache_dir=cache_dir) for split in datasets.splits(text, root)]
    if target.suffix != ".npy":
        return said + _folder(splits, target)
    if len(splits) > 1:
        several = ", ".join(split.split for split in splits)
        raise UserError(f"{target}: an array holds one split, {text} has {several}: state one, or a folder for all")
    return said + _array(splits[0], target)


def _array(split: Split, target: Path) -> list[str]:
    beside = {what: target.with_name(f"{target.stem}_{what}.npy") for what in ("labels", "groups")}
    _refuse(target, *beside.values())
    shape = (len(split), split.height, split.width, split.channels)

    def write(file: BinaryIO) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for images in split.stored(batch_size=BATCH):
            file.write(images.permute(0, 2, 3, 1).contiguous().numpy().tobytes())

    files.write_atomically(target, write)
    lines = [f"{target}: {len(split):,} images, {split.channels} x {split.height} x {split.width}"]
    if split.classes:
        files.write_atomically(beside["labels"], lambda file: np.save(file, split.labels.numpy()))
        lines.append(f"{beside['labels']}: classes {', '.join(split.classes)}")
    if split.group_names:
        groups = np.array(split.group_names)[split.groups.numpy()]
        files.write_atomically(beside["groups"], lambda file: np.save(file, groups))
        lines.append(f"{beside['groups']}: groups {', '.join(split.group_names)}")
    return lines


def _folder(splits: list[Split], target: Path) -> list[str]:
    """The images as PNG below `images`, and their table; written beside the target and renamed."""
    _refuse(target)
    if any(bool((split.labels < 0).any()) for split in splits):
        raise UserError(f"{target}: a table has a label for every image, but some have none; an array, x.npy, holds them")
    target.parent.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    divided, grouped = len(splits) > 1 or splits[0].split != "all", any(split.group_names for split in splits)
    lines.writerow(["path", "label", *(["group"] if grouped else []), *(["split"] if divided else [])])
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".importing-") as temporary:
        whole = Path(temporary) / target.name
        for split in splits:
            folder = Path("images", split.split)
            (whole / folder).mkdir(parents=True)
            for position, image in _images(split):
                path = folder / f"{position:07d}.png"
                image.save(whole / path)
                group = [split.group_names[int(split.groups[position])]] if grouped else []
                label = split.classes[int(split.labels[position])]
                lines.writerow([path.as_posix(), label, *group, *([split.split] if divided else [])])
        (whole / image_tables.FILE).write_text(table.getvalue(), encoding="utf-8")
        whole.rename(target)
    return [f"{target}: {len(split):,} images of {split.split}, {len(split.classes)} classes" for split in splits]


def _images(split: Split):
    """Every position and its picture."""
    start = 0
    for images in split.stored(batch_size=BATCH):
        if images.shape[1] not in (1, 3):
            raise UserError(f"{split.name}: pictures have 1 or 3 channels, not {images.shape[1]}")
        for offset, image in enumerate(images):
            yield start + offset, _picture(image)
        start += len(images)


def _picture(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def _refuse(*targets: Path) -> None:
    for target in targets:
        if target.exists():
            raise UserError(f"{target} is there already; it is not replaced")
