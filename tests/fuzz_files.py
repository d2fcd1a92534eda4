"""Broken input files: `python tests/fuzz_files.py COUNT SEED`, in a folder with what test_fuzz.py puts there.

Each time one file that some command reads is cut off, emptied, or changed in a few bytes, and the command run. Prints a line
per fault and, last, how the commands ended; the exit status is 1 if there were faults.
"""

import random
import shlex
import sys
from pathlib import Path

import inprocess

SMALL = ("--max-examples", "12", "-gpu", "-1")
NETWORK = ("models/a/model_2.pt", *SMALL)

STITCH_OOD = (("exec_stitch_ood.py", "results/stitch/known.json", "-scd", "patches", *SMALL),)

# file, or a pattern that one file matches -> the commands that read it
READERS = {
    "models/a/model_2.pt": (
        ("exec_eval.py", *NETWORK, "-d", "digits"),
        ("exec_projections.py", "models/a/model_2.pt"),
        ("exec_similarity.py", "models/a/model_2.pt", "models/a/model_1.pt", "auto", "auto", "classifier.1"),
    ),
    "models/a/model_2.json": (
        ("exec_eval.py", *NETWORK),
        ("exec_ood_layers.py", *NETWORK, "-ood", "patches"),
        ("exec_projections.py", "models/a"),
    ),
    "models/b/resume.pt": (("exec_train.py", "lenet", "-d", "digits", "-dir", "b", "-e", "2", *SMALL),),
    "models/b/run.json": (("exec_train.py", "lenet", "-d", "digits", "-dir", "b", "-e", "2", *SMALL),),
    "bare.pt": (("exec_eval.py", "bare.pt", "lenet", "-d", "digits", *SMALL), ("exec_projections.py", "bare.pt", "lenet")),
    "old.pt": (("exec_eval.py", "old.pt", "lenet", "-d", "digits", *SMALL),),
    "bare.safetensors": (("exec_eval.py", "bare.safetensors", "lenet", "-d", "digits", *SMALL),),
    "results/eval/known.json": (
        ("exec_tables.py", "eval"),
        ("exec_eval.py", "--list"),
        ("exec_eval.py", "models/a/model_2.pt", "--name", "known"),
    ),
    "results/stitch/known.json": (("exec_tables.py", "stitch", "stitching/e1"), *STITCH_OOD),
    "results/stitch/known.npz": STITCH_OOD,
    "models/repr_cls_ood_detectors/*.pt": STITCH_OOD,
    "models/repr_cls_ood_detectors/*.json": STITCH_OOD,
    "images.npy": (
        ("exec_eval.py", *NETWORK, "-d", "npy=images.npy"),
        ("exec_ood_layers.py", *NETWORK, "-ood", "npy=images.npy"),
    ),
    "images_labels.npy": (("exec_eval.py", *NETWORK, "-d", "npy=images.npy"), ("exec_data.py", "show", "npy=images.npy")),
    "tree/test/cat/0.png": (("exec_data.py", "show", "folder=tree:test"), ("exec_data.py", "verify", "folder=tree")),
    "tree/test/dog/0.jpg": (
        ("exec_data.py", "show", "folder=tree:test"),
        ("exec_ood_layers.py", *NETWORK, "-ood", "folder=tree:test"),
    ),
    "data/MNIST/raw/t10k-images-idx3-ubyte": (("exec_eval.py", *NETWORK, "-d", "mnist"),),
    "data/MNIST/raw/t10k-labels-idx1-ubyte.gz": (
        ("exec_eval.py", *NETWORK, "-d", "mnist"),
        ("exec_data.py", "show", "mnist:test"),
    ),
    "data/cifar-10-batches-py/test_batch": (("exec_data.py", "show", "cifar10:test"), ("exec_data.py", "verify", "cifar10")),
    "data/cifar-10-batches-py/batches.meta": (("exec_data.py", "show", "cifar10:test"),),
    "data/test_32x32.mat": (("exec_data.py", "show", "svhn:test"),),
    "data/cifar5m/part0.npz": (("exec_data.py", "show", "cifar5m:train"), ("exec_data.py", "verify", "cifar5m")),
    "data/waterbird_complete95_forest2water2/metadata.csv": (
        ("exec_data.py", "show", "waterbirds:test"),
        ("exec_eval.py", *NETWORK, "-d", "waterbirds"),
    ),
    "data/celeba/list_attr_celeba.csv": (("exec_data.py", "show", "celeba:test"),),
    "flags.yaml": (("exec_eval.py", *NETWORK, "-d", "digits", "--config", "flags.yaml"),),
    "files.txt": (("exec_reinit.py", *NETWORK, "--inits-from", "files.txt"),),
    "networks.py": (("exec_train.py", "networks.py:plain", "-d", "digits", "-dir", "user", "-e", "1", *SMALL),),
    ".cache/hashes-*.json": (("exec_eval.py", "models/a/model_2.pt", "--name", "known"), ("exec_eval.py", *NETWORK)),
}


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content, broken in one of the ways in which files break."""
    way = draw.choice(("cut", "cut", "empty", "bytes", "bytes", "head", "tail", "doubled", "hole", "text"))
    n = len(content)
    if way == "cut":
        return content[: draw.randrange(n)]
    if way in ("bytes", "head", "tail"):
        changed = bytearray(content)
        low, high = {"bytes": (0, n), "head": (0, min(n, 200)), "tail": (max(0, n - 200), n)}[way]
        for _ in range(draw.choice((1, 2, 5, 30))):
            changed[draw.randrange(low, high)] = draw.randrange(256)
        return bytes(changed)
    if way == "hole":  # as a crash leaves a file whose blocks were never written
        begin = draw.randrange(n)
        end = min(n, begin + draw.choice((10, 512, 4096)))
        return content[:begin] + bytes(end - begin) + content[end:]
    return {"empty": b"", "doubled": content + content, "text": b"<html>404 Not Found</html>\n"}[way]


def main(count: int, seed: int) -> int:
    """Breaks files and runs their readers; the number of faults."""
    draw, faults, ended = random.Random(seed), [], {0: 0, 1: 0, 2: 0}
    records = inprocess.contents("results")
    files = list(READERS)
    for number in range(count):
        pattern = files[number % len(files)]
        (file,) = Path().glob(pattern)
        words = [*draw.choice(READERS[pattern])]
        whole = file.read_bytes()
        broken = mutated(whole, draw)
        replace(file, broken)
        end = inprocess.run([*words, *fresh(words, number)])
        fault = end.fault()
        if str(file) in records and file.read_bytes() != broken:
            fault = "it was written to"
        if fault:
            faults.append(f"{file}, {len(broken)} bytes, break {number}: {shlex.join(words)}\n    {fault}")
            print(faults[-1], flush=True)
            Path(f"break-{number}").write_bytes(broken)
        ended[end.returncode if end.returncode in ended else 1] += 1
        replace(file, whole)
    now = inprocess.contents("results")
    changed = [f"{path} was changed" for path, known in records.items() if now.get(path) != known]
    print(*changed, *[""] * bool(changed), sep="\n", end="")
    faults += changed
    print(
        f"{count} broken files, seed {seed}: {ended[0]} commands succeeded, {ended[1] + ended[2]} were refused; "
        f"{len(faults)} faults"
    )
    return len(faults)


def fresh(words: tuple[str, ...], number: int) -> tuple[str, ...]:
    """A record name of its own, so that no command finds its work done; not for commands that ask for a certain record."""
    return () if "--name" in words or words[0] in ("exec_tables.py", "exec_train.py") else ("--name", f"break-{number}")


def replace(file: Path, content: bytes) -> None:
    """A new file in place of the old one: a mapping of the old one keeps its own content."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
