"""Small data sets of exactly the official layouts, written for tests, and other images for them."""

import csv
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lib import datasets
from lib.datasets import corruptions
from lib.datasets.sets import imagenet16
from lib.datasets.split import Split

RANDOM = np.random.default_rng(0)


def levels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def toy(n: int = 60, classes: int = 3, shape: tuple[int, ...] = (3, 8, 8)) -> Split:
    labels = torch.arange(n) % classes
    return Split("toy", "train", torch.from_numpy(levels(n, *shape)), labels, classes=tuple("abcdefghij"[:classes]))


def load(text: str, root: Path, split: str | None = None, **options) -> Split:
    return datasets.load(text, root, split, cache_dir=root / "cache", **options)


def write_idx(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    file.write_bytes(header + array.tobytes())


def write_mnist(root: Path, folder: str = "MNIST") -> dict[str, np.ndarray]:
    written = {}
    for part, n in (("train", 40), ("t10k", 20)):
        written[part] = levels(n, 28, 28)
        write_idx(root / folder / "raw" / f"{part}-images-idx3-ubyte", written[part])
        write_idx(root / folder / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return written


def write_cifar10(root: Path) -> dict[str, np.ndarray]:
    folder, written = root / "cifar-10-batches-py", {}
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        written[file] = levels(20, 3072)
        batch = {"data": written[file], "labels": [i % 10 for i in range(20)], "batch_label": file, "filenames": []}
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}, protocol=2))
    return written


def write_cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("train", "test"):
        fine = [i % 100 for i in range(100)]
        batch = {"data": levels(100, 3072), "fine_labels": fine, "coarse_labels": [i // 5 for i in fine]}
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {"fine_label_names": [f"f{i}" for i in range(100)], "coarse_label_names": [f"s{i}" for i in range(20)]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))


def write_corrupted(root: Path, folder: str, n: int, classes: int) -> np.ndarray:
    (root / folder).mkdir(parents=True, exist_ok=True)
    array = levels(5 * n, 32, 32, 3)
    for name in corruptions.CORRUPTIONS:
        np.save(root / folder / f"{name}.npy", array)
    np.save(root / folder / "labels.npy", np.tile(np.arange(n, dtype=np.uint8) % classes, 5))
    return array


def write_image(file: Path, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    Image.fromarray(levels(height, width) if mode == "L" else levels(height, width, 3)).save(file)


def write_tree(folder: Path, parts=("train", "test"), classes=("cat", "dog"), count: int = 3, **options) -> None:
    for part in parts:
        for name in classes:
            for number in range(count):
                write_image(folder / part / name / f"{number}.png", **options)


def tar(entries: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


WATERBIRDS = "waterbird_complete95_forest2water2"


COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")


ATTRIBUTES = ("Blond_Hair", "High_Cheekbones", "Male", "Young", "Smiling")


def write_waterbirds(root: Path, counts=((3, 1, 1, 2), (1, 1, 1, 1), (2, 2, 1, 1)), size=(120, 100), species=3) -> Path:
    """`counts[split][group]` images, all hard links to one file per group; returns the folder."""
    folder = root / WATERBIRDS
    for group in range(4):
        write_image(root / f"{group}.jpg", size)
    for number in range(species):
        (folder / f"{number + 1:03d}.Species").mkdir(parents=True)
    lines = []
    for split, groups in enumerate(counts):
        for group, count in enumerate(groups):
            for _ in range(count):
                file = f"{len(lines) % species + 1:03d}.Species/{len(lines):05d}.jpg"
                os.link(root / f"{group}.jpg", folder / file)
                lines.append((len(lines) + 1, file, group // 2, split, group % 2, "/b/bamboo_forest/1.jpg"))
    np.random.default_rng(0).shuffle(lines)
    write_csv(folder / "metadata.csv", COLUMNS, lines)
    return folder


def write_csv(file: Path, header, lines) -> None:
    with open(file, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *lines])


def write_celeba(root: Path, values: np.ndarray, parts, form: str = "txt", pictures: bool = True) -> list[str]:
    """Attributes (n, 5) of 0 and 1 in the order of ATTRIBUTES, and partitions (n,); `form` is "txt", "csv" or "metadata"."""
    folder, files = root / "celeba", [f"{number:06d}.jpg" for number in range(1, len(values) + 1)]
    folder.mkdir(parents=True)
    for file in files if pictures else ():
        write_image(folder / "img_align_celeba" / file, (178, 218))
    signs = np.where(values, 1, -1)
    if form == "metadata":
        lines = [(i, file, v[0], part, v[2]) for i, (file, v, part) in enumerate(zip(files, values, parts, strict=True))]
        write_csv(folder / "metadata.csv", ("", "img_filename", "y", "split", "place"), lines)
    elif form == "csv":
        write_csv(
            folder / "list_attr_celeba.csv",
            ("image_id", *ATTRIBUTES),
            [(file, *row) for file, row in zip(files, signs, strict=True)],
        )
        write_csv(folder / "list_eval_partition.csv", ("image_id", "partition"), zip(files, parts, strict=True))
    else:
        written = {row: " ".join(f"{sign:2d}" for sign in row) for row in set(map(tuple, signs.tolist()))}
        rows = "\n".join(f"{file} {written[tuple(row)]}" for file, row in zip(files, signs.tolist(), strict=True))
        (folder / "list_attr_celeba.txt").write_text(f"{len(files)}\n{' '.join(ATTRIBUTES)}\n{rows}\n")
        lines = "\n".join(f"{file} {part}" for file, part in zip(files, parts, strict=True))
        (folder / "list_eval_partition.txt").write_text(lines + "\n")
    return files


FACES = np.array([(label >> 3 & 1, label >> 2 & 1, label >> 1 & 1, label & 1, 0) for label in range(16)] * 2)


PARTS = [0] * 20 + [1] * 6 + [2] * 6


def write_imagenet(root: Path, wnids, parts=("train", "val"), count: int = 1) -> None:
    write_tree(root / "imagenet", parts, wnids, count=count, size=(110, 100))


def write_cue_conflict(root: Path) -> None:
    for label, shape in enumerate(imagenet16.CATEGORIES):
        for texture in (shape, imagenet16.CATEGORIES[label - 1]):
            write_image(root / "cue-conflict" / shape / f"{shape}1-{texture}2.png", (224, 224))
        write_image(root / "silhouette" / shape / f"{shape}1.png", (224, 224))


def one_of_each_category() -> dict[str, str]:
    """A WordNet id of ILSVRC 2012 per category."""
    from timm.data import ImageNetInfo

    there = set(ImageNetInfo().label_names())
    return {name: next(wnid for wnid in wnids if wnid in there) for name, wnids in imagenet16.WNIDS_16.items()}


def write_birds(folder) -> None:
    """Digits on backgrounds that go with their label, as images of a table with groups and splits."""
    rows = ["path,label,group,split"]
    for part, count in (("train", 120), ("val", 40), ("test", 60)):
        split = load("digits-bg", folder, part).spread(count)
        images = folder / "data" / "birds" / "images" / part
        images.mkdir(parents=True)
        for number, (image, label, group) in enumerate(zip(split.images, split.labels, split.groups, strict=True)):
            Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0))).save(images / f"{number}.png")
            group_name = split.group_names[group].replace(", ", " on ")
            rows.append(f"images/{part}/{number}.png,{split.classes[label]},{group_name},{part}")
    (folder / "data" / "birds" / "labels.csv").write_text("\n".join(rows) + "\n")
