"""Random command lines in one process: `python tests/fuzz_lines.py COUNT SEED`, in a folder that test_fuzz.py laid out.

Every line is first run with torch barred: most are refused there. The others then run to their end on a few images.
Prints a line per fault and, last, how many were refused, answered and run; the exit status is 1 if there were faults.
"""

import dataclasses
import random
import shlex
import sys
import typing

import inprocess
import readme

from lib.runs import cli

WORDS = [
    "",
    "a b",
    "near far",
    "\n",
    "x" * 300,
    *"""
    x - -- -1 0 1 2 nan inf -inf 1e400 0x1f 1_0 ² ü a,b , * [ ** .. ../../x / /dev/null %s%n {} $HOME -d auto none True false
    models models/a models/a/model_1.pt models/a/model_9.pt models/a/init.pt a/model_2.pt results results/eval/known.json
    lenet LeNet small_cnn networks.py:plain networks.py:missing networks.py:breaks nothing.py:plain tv:nothing timm:nothing
    cuts all features.* features.0 features.99 conv? digits digits:test digits:nothing digits-wo3 digits-wo99 digits-k3
    digits-k99 digits-k3s1 digits-c digits-c/fog-3 digits-c/fog-9 digits-c/nothing-1 patches patches:ood cifar10 near
    folder= folder=nothing npy= npy=x.npy
""".split(),
]
NUMBERS = {
    int: ("1", "2", "3", "5", "0", "-1", "1000000000000000000000000"),
    float: ("0.5", "1", "2", "0", "1e-3", "-1", "1e30"),
}
DATA = (
    "digits",
    "digits:train",
    "digits-wo3",
    "digits-wo3:ood",
    "digits-k3s1",
    "digits-c/fog-3",
    "digits-bg",
    "patches",
    "digits-c",
    "npy=images.npy",
    "folder=tree",
)
LAYERS = ("cuts", "all", "features.0", "features.*", "classifier.6", "*", "features.1,features.3")
CHECKPOINTS = ("models/a/model_2.pt", "models/a/init.pt", "models/a", "a/model_1.pt", "bare.pt")
# what suits a flag without choices, by the words of its field's name
SUITING = {
    "dataset": DATA,
    "ood": DATA,
    "on": DATA,
    "outliers": DATA,
    "layers": LAYERS,
    "layer": LAYERS,
    "exits": LAYERS,
    "layers1": LAYERS,
    "layers2": LAYERS,
    "path": CHECKPOINTS,
    "from": CHECKPOINTS,
    "against": CHECKPOINTS,
    "backbone": CHECKPOINTS,
    "type": ("lenet", "auto"),
    "arguments": DATA,
    "experiments": ("train", "eval"),
    "config": ("flags.yaml",),
    "corruptions": ("fog", "all"),
    "samples": ("all", "5"),
    "reduce": ("gap", "grid:2", "pca:2"),
}
# what would use the network, delete what the test compares, or rightly take long
LEFT_OUT = {"--pretrained", "--overwrite", "--rerun", "-workers", "--workers", "--attack", "--debug"}
LONG = {
    "epochs",
    "ft_epochs",
    "bootstrap",
    "rand",
    "random",
    "restarts",
    "attack_steps",
    "radius",
    "prefetch",
    "upscale",
    "upscale_padding",
    "image_size",
    "epoch_images",
    "permutations",
    "null",
}
BRIEF = {"epochs": "1", "ft_epochs": "1", "max_examples": "12", "image_size": "32", "batch_size": "7"}


def lines(count: int, seed: int) -> list[list[str]]:
    """Command lines for all scripts in turn: some nearly right, some wild."""
    draw = random.Random(seed)
    scripts = list(readme.configurations().items())
    return [one(draw, *scripts[number % len(scripts)]) for number in range(count)]


def one(draw: random.Random, script: str, configuration: type) -> list[str]:
    """A sensible beginning in most cases, then a few flags with values of all kinds."""
    words = list(draw.choice(BEGINNINGS.get(script, ((),)))) if draw.random() < 0.8 else []
    fields = [field for field in dataclasses.fields(configuration) if not LEFT_OUT & set(options(field))]
    hints = typing.get_type_hints(configuration)
    for field in draw.choices(fields, k=draw.choice((0, 1, 1, 2, 2, 3, 5))):
        words += flag(draw, field, *cli._kind(hints[field.name]))
    for field in fields:
        if field.name in BRIEF and not set(options(field)) & set(words):
            words += [options(field)[0], BRIEF[field.name]]
    if draw.random() < 0.1:
        words.insert(draw.randrange(len(words) + 1), draw.choice(WORDS))
    if draw.random() < 0.1 and words:
        words.pop(draw.randrange(len(words)))
    if draw.random() < 0.05:
        words.append(draw.choice(("--nothing", "--epoch", "-z", "--name=x", "--quiet=3", "--list-layers", "--plan")))
    return [script, *words]


BEGINNINGS = {
    "exec_data.py": (
        ("show", "digits"),
        ("show", "patches"),
        ("list",),
        ("verify", "digits"),
        ("show",),
        ("prepare", "x"),
        ("convert-checkpoint", "models/a/model_1.pt", "new.pt"),
    ),
    "exec_eval.py": (("models/a/model_2.pt",), ("models/a/model_2.pt", "lenet", "-d", "digits")),
    "exec_ncg.py": (("models/a/model_2.pt", "-ood", "digits-c/fog-3"), ("models/a/model_2.pt", "-ood", "digits-c/fog-5")),
    "exec_ood_detector.py": (
        (
            "models/a/model_2.pt",
            "auto",
            "features.0",
            "-m",
            "repr_cls_resnet20",
            "-d",
            "digits",
            "-ftoodd",
            "patches",
            "-dir",
            "e",
        ),
        ("models/a/model_2.pt", "auto", "features.*", "-m", "repr_cls_resnet20", "-dir", "f"),
    ),
    "exec_ood_layers.py": (("models/a/model_2.pt", "-ood", "patches"), ("models/a/model_2.pt", "lenet", "-d", "digits")),
    "exec_probe.py": (
        ("models/a/model_2.pt", "-d", "digits", "-l", "features.0"),
        ("models/a/model_2.pt", "-ood", "digits-c/fog-5", "-l", "features.0,features.3"),
    ),
    "exec_projections.py": (("models/a",), ("models/a/model_1.pt", "models/a/model_2.pt"), ("models/a/model_1.pt", "lenet")),
    "exec_reinit.py": (("models/a/model_2.pt", "--rand"), ("models/a/model_2.pt", "--inits-from", "models/a")),
    "exec_similarity.py": (("models/a/model_1.pt", "models/a/model_2.pt", "auto", "auto", "features.0"),),
    "exec_stitch.py": (
        (
            "models/a/model_1.pt",
            "models/a/model_2.pt",
            "auto",
            "auto",
            "features.0",
            "features.0",
            "auto",
            "-d",
            "digits",
            "-pinv-samples",
            "all",
        ),
    ),
    "exec_stitch_ood.py": (("results/stitch/known.json",), ("results/stitch", "-scd", "patches", "-d", "digits")),
    "exec_study.py": (
        ("models/a/model_2.pt", "-ood", "patches", "--only", "eval", "ood_layers"),
        ("models/a/model_2.pt", "--only", "projections", "similarity"),
    ),
    "exec_tables.py": (
        ("eval",),
        ("ilc/fig5", "ncg/pixel"),
        ("--missing", "oodlayers"),
        ("stitching", "--measured"),
        ("--network", "models/a/model_2.pt"),
    ),
    "exec_train.py": (
        ("lenet", "-d", "digits", "-dir", "b"),
        ("small_cnn", "-d", "digits-wo3", "-dir", "c"),
        ("lenet", "-d", "digits", "-dir", "a"),
    ),
}


def flag(draw: random.Random, field: dataclasses.Field, kind: type, several: bool) -> list[str]:
    """The flag with a fitting value, a wild one, several, or none."""
    spelling = draw.choice(options(field))
    choices = field.metadata["choices"]
    if kind is bool:
        return [spelling if draw.random() < 0.6 else "--no-" + spelling.lstrip("-")]
    suiting = [words for word, words in SUITING.items() if word in field.name.split("_")]
    fitting = list(choices) if choices else suiting[0] if suiting else NUMBERS.get(kind, WORDS)
    if field.name in LONG:
        fitting = fitting[:2]
    values = [
        draw.choice(fitting if draw.random() < 0.85 else WORDS)
        for _ in range(draw.choice((1, 1, 1, 2, 3)) if several else draw.choice((1, 1, 1, 1, 1, 0, 2)))
    ]
    return values if field.metadata["positional"] else [spelling, *values]


def options(field: dataclasses.Field) -> list[str]:
    """The spellings of a field's flag."""
    return cli.spellings(field)


def main(count: int, seed: int) -> int:
    """Runs the lines; the number of faults."""
    faults, ended = [], {"refused": 0, "answered": 0, "run": 0}
    before = inprocess.contents("models", "results")
    todo = []

    def judge(words, end, kind) -> None:
        ended[kind] += 1
        if fault := end.fault():
            faults.append(f"{shlex.join(words)}\n    {fault}")
            print(faults[-1], flush=True)

    every = lines(count, seed)
    with inprocess.without_torch():
        for words in every:
            end = inprocess.run(words)
            if end.torch:
                todo.append(words)
            else:
                judge(words, end, "refused" if end.returncode else "answered")
    for words in todo:
        judge(words, inprocess.run(words), "run")
    now = inprocess.contents("models", "results")
    changed = [path for path, known in before.items() if now.get(path) != known]
    faults += [f"{path} was changed" for path in changed]
    print(*[f"{path} was changed" for path in changed], sep="\n")
    print(
        f"{count} command lines, seed {seed}: {ended['refused']} refused and {ended['answered']} answered without torch, "
        f"{ended['run']} run; {len(faults)} faults"
    )
    return len(faults)


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
