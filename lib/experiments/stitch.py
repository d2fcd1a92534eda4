"""Stitching two networks: `exec_stitch.py`.

Balogh & Jelasity, "How not to Stitch Representations to Measure Similarity: Task Loss Matching versus Direct Matching",
AAAI 2025. Task-loss matching is `-i rand -e 30`, direct matching `-i pinv -e 0`. Where the published code differs:
direct matching is exact in float64 (`--solver reference` is the published float32 one), a rank limit has one basis, fitted
on the matched images, and is applied to the source before any resizing, and donors never change.
"""

import itertools
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.core import devices, randomness, saved_state
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.datasets.subsets import in_classes
from lib.experiments.config.stitch import NOISE, StitchConfig
from lib.metrics import image_permutations
from lib.metrics.answer_null import answer_null
from lib.metrics.image_permutations import Permutations
from lib.metrics.permutation_null import Null
from lib.models import checkpoints
from lib.models.checkpoints import Checkpoint, Description
from lib.representations import aliases, passes
from lib.runs import loading, records
from lib.runs.records import Result, Row
from lib.stitching import chance, least_squares, reuse, train
from lib.stitching import grid as stitching_grid
from lib.stitching import layer as stitching_layer
from lib.stitching.grid import Donors, GridStitch
from lib.stitching.layer import Shape, Stitch
from lib.stitching.least_squares import Solution, Statistics
from lib.stitching.train import Part
from lib.training import loop
from lib.training.optimizers import optimizer, schedule

Pairs = dict[tuple[str, str], Stitch]  # (front layer, end layer) -> an untrained stitch
Ranks = dict[str, list[tuple[int | None, int | None]]]  # front layer -> every (stitch rank, matching rank)

MATCHED = ("pinv", "perm")  # initialised from activations
THRESHOLDS = {"0": 0.0, "1e-5": 1e-5, "1e-4": 1e-4, "1e-3": 1e-3, "1e-2": 1e-2, "1e-1": 1e-1}


def stitch(config: StitchConfig) -> Result:
    """One row per pair of layers and of ranks; the weights of every stitch; heat maps of a grid."""
    if config.mod_only_stitch:
        warnings.warn("--mod-only-stitch has no effect: only stitches are trained and saved in any case", stacklevel=2)
    begin = time.perf_counter()
    device = loading.device(config)
    front = loading.load_checkpoint(config, config.front_path, config.front_type, device)
    end = loading.load_checkpoint(config, config.end_path, config.end_type, device)
    name = loading.dataset_name(config.dataset, front)
    train_split, test_split = (
        loading.load_split(config, name, part, image_size=front.description.image_size) for part in ("train", "test")
    )
    _check(config, front.description, end.description, train_split, name)
    loading.check_classes(end.description, train_split.classes, name)
    train_split, test_split = (
        in_classes(split, loading.known_classes(end.description)) for split in (train_split, test_split)
    )
    _check(config, front.description, end.description, test_split, name)
    matched = _matched_images(config, train_split)
    size = front.description.image_size or max(test_split.height, test_split.width)
    listed = [loading.layers(checkpoint, size, device) for checkpoint in (front, end)]
    front_shapes, end_shapes = ({layer.name: layer.shape for layer in side} for side in listed)
    layers = (
        stitching_grid.choose(front, listed[0], tuple(config.front_layer.split(",")), "FRONT_LAYER"),
        stitching_grid.choose(end, listed[1], tuple(config.end_layer.split(",")), "END_LAYER"),
    )
    batching = loading.batching(config, device, front.description.channels, size, config.precision)
    once = tuple(
        aliases.distinct(checkpoint.network, test_split, chosen, batching, passes.flatten, tuple(words.split(",")))
        for checkpoint, chosen, words in zip((front, end), layers, (config.front_layer, config.end_layer), strict=True)
    )
    layers = (once[0].kept, once[1].kept)
    donors = Donors(front.network, end.network, *layers)
    pairs, impossible = _pairs(config, front_shapes, end_shapes, layers)
    ranks = {one: _ranks(config, one, stitching_layer.channels(front_shapes[one])) for one in layers[0]}
    seconds = {"setup": time.perf_counter() - begin}
    begin = time.perf_counter()
    cuts = [layer.name for layer in listed[1] if layer.cut]
    between = stitching_grid.between(donors, config.match_at, cuts) if config.match_at else {}
    senders = _senders(config, donors, {name: front_shapes[name] for name in layers[0]}, size, device)
    parts, rows = _parts(config, front, donors, train_split, matched, batching, pairs, ranks, senders)
    for row in rows:
        row |= {f"{side}_aliases": one.words(row[f"{side}_layer"]) for side, one in zip(("front", "end"), once, strict=True)}
    seconds["matching"] = time.perf_counter() - begin
    if config.epochs:
        begin = time.perf_counter()
        _train(config, parts, rows, batching, between)
        seconds["training"] = time.perf_counter() - begin
    begin = time.perf_counter()
    answers: list[Tensor] = []
    measured, end_accuracy = _evaluated(parts, test_split.to(device), batching, answers if config.permutations else None)
    seconds["evaluation"] = time.perf_counter() - begin
    common = {
        "trained": config.epochs > 0,
        "end_accuracy": end_accuracy,
        "data": test_split.name,
        "split": test_split.split,
        "n": len(test_split),
        "epochs": config.epochs,
        "seed": config.seed,
        **({"match_at": config.match_at} if config.match_at else {}),
    }
    entries = [entry for part in parts for entry in part.entries]
    origins = [part.origins.get(number) for part in parts for number in range(len(part.entries))]
    for number, (row, measures, entry, origin) in enumerate(zip(rows, measured, entries, origins, strict=True)):
        shares = stitching_layer.sparsity(entry.stitch, tuple(THRESHOLDS.values()))
        row |= measures | {f"sparsity_{name}": share for name, share in zip(THRESHOLDS, shares, strict=True)}
        row |= {**common, "stitch": number if config.save else None, "taken_from": origin}
    if config.permutations:
        begin = time.perf_counter()
        _add_accuracy_nulls(config, rows, torch.cat(answers, 1)[: len(parts[0].entries)], test_split.labels)
        seconds["permutations"] = time.perf_counter() - begin
    rows += [
        {**common, "front_layer": one, "end_layer": two, "stitch": None, "missing": reason}
        for (one, two), reason in impossible.items()
    ]
    _partial(config).unlink(missing_ok=True)
    return Result(
        rows,
        _weights(entries) if config.save else {},
        seconds,
        columns=(
            *(["null"] if config.null else []),
            "front_layer",
            "end_layer",
            "type",
            "stitch_rank",
            "pinv_rank",
            "accuracy",
            *(("accuracy_null_mean", "accuracy_p_best") if config.permutations else ()),
            "agreement",
            "penalty",
            "matching_residual",
            *(("matching_residual_null_mean", "matching_residual_p_best") if config.permutations else ()),
            "normalized_difference",
            "r2",
            "effective_rank",
            *(["missing"] if impossible else []),
        ),
    )


def _pairs(
    config: StitchConfig, front_shapes: dict[str, Shape], end_shapes: dict[str, Shape], layers: tuple[list[str], list[str]]
) -> tuple[Pairs, dict[tuple[str, str], str]]:
    """The untrained stitch of every pair of layers, and of those that no stitch joins the reason.

    Raises `UserError` where no pair can be joined.
    """
    pairs: Pairs = {}
    impossible: dict[tuple[str, str], str] = {}
    for pair in itertools.product(*layers):
        try:
            made = _blank(config, front_shapes[pair[0]], end_shapes[pair[1]])
            if config.init == "eye":
                stitching_layer.initialise(made, config.init, randomness.generator(config.seed))
            pairs[pair] = made
        except UserError as error:
            impossible[pair] = str(error)
    if not pairs:
        first = next(iter(impossible.values()))
        others = f"; no other of the {len(impossible)} pairs can be stitched either" if len(impossible) > 1 else ""
        raise UserError(first + others)
    if impossible:
        (one, two), reason = next(iter(impossible.items()))
        warnings.warn(
            f"{len(impossible)} of {len(impossible) + len(pairs)} pairs of layers cannot be stitched, such as {one} into "
            f"{two}: {reason}",
            stacklevel=2,
        )
    return pairs, impossible


def _senders(config: StitchConfig, donors: Donors, shapes: dict[str, Shape], size: int, device) -> dict[str, Donors]:
    """The donors of every --sender, by the word for it in the rows. Raises `UserError` for a network of other layers."""
    found: dict[str, Donors] = {}
    for sender in config.sender:
        if sender == NOISE:
            found["clustered noise"] = stitching_grid.ClusteredNoise(donors, shapes, config.seed)
            continue
        loaded = loading.load_checkpoint(config, sender, "auto", device)
        own = {layer.name: layer.shape for layer in loading.layers(loaded, size, device)}
        for layer, shape in shapes.items():
            if own.get(layer) != shape:
                what = f"puts out {own[layer]} there" if layer in own else "has no such layer"
                raise UserError(f"--sender {sender}: the front network puts out {shape} at {layer}, the sender {what}")
        found[f"sender {sender}"] = stitching_grid.Sender(loaded.network, loaded.description.channels, donors)
    return found


def _check(config: StitchConfig, front: Description, end: Description, split: Split, name: str) -> None:
    """Raises `UserError` where the two networks, or network and data, do not go together."""
    for what, other in ((f"FRONT_PATH {config.front_path}", front), (f"-d {name}", split)):
        if len(other.classes) != len(end.classes):
            raise UserError(f"{what}: it has {len(other.classes)} classes, the end network {len(end.classes)}")
    if bool((split.labels < 0).any()):
        raise UserError(f"-d {name}: it has images without labels, so there is no accuracy")
    if front.channels != end.channels or (front.image_size and end.image_size and front.image_size != end.image_size):
        raise UserError(
            f"the front network takes {front.channels} channels of {front.image_size} px, the end network "
            f"{end.channels} of {end.image_size} px: they cannot see the same images"
        )


def _blank(config: StitchConfig, source: Shape, target: Shape) -> Stitch:
    return stitching_layer.Stitch(
        config.stitching_type,
        source,
        target,
        upsample=config.upsample,
        to_class_token=config.c2t_cls,
        from_class=config.t2c_cls,
        norm=config.stitch_norm,
    )


def _ranks(config: StitchConfig, layer: str, width: int) -> list[tuple[int | None, int | None]]:
    """All (stitch rank, matching rank) of a layer: what is too wide is dropped from a list, and refused alone."""

    def usable(given: tuple[int, ...], spelling: str) -> list[int] | list[None]:
        kept = [rank for rank in given if rank <= width]
        wide = ", ".join(str(rank) for rank in given if rank > width)
        if given and not kept:
            raise UserError(f"{spelling} {wide}: layer {layer} has only {width} channels")
        if wide:
            warnings.warn(f"{spelling} {wide}: left out for layer {layer}, which has {width} channels", stacklevel=2)
        return kept or [None]

    stitch_ranks = usable(config.front_stitch_rank, "--front-stitch-rank")
    return [(rank, other) for rank in stitch_ranks for other in usable(config.front_pinv_rank, "--front-pinv-rank")]


def _matched_images(config: StitchConfig, split: Split) -> Split:
    """The training images that are matched on: the same for every pair of layers, fewer of them within more."""
    if config.pinv_samples == "all" or not (config.init in MATCHED or config.front_stitch_rank):
        return split  # in the second case nothing is matched
    count = int(config.pinv_samples)
    if count > len(split):
        raise UserError(f"-pinv-samples {count}: {split.name} has only {len(split)} training images; all takes them")
    return split.subset(torch.randperm(len(split), generator=randomness.generator(config.seed, "matching"))[:count])


def _parts(
    config: StitchConfig,
    front: Checkpoint,
    donors: Donors,
    split: Split,
    matched: Split,
    batching: Batching,
    pairs: Pairs,
    ranks: Ranks,
    senders: dict[str, Donors],
) -> tuple[list[Part], list[dict]]:
    """The stitches with their first weights, and the beginnings of their rows; with --null those of all baselines too.

    A stitch that is neither matched nor trained has nothing to shuffle, and nor has one that learns from no label.
    """
    kinds: dict[str | None, tuple[Donors, Split, Split | None]] = {None: (donors, split, None)}
    if config.null:
        untrained = checkpoints.fresh(front.description, config.seed, "null").to(batching.device)
        kinds["untrained"] = Donors(untrained, donors.end, donors.front_layers, list(donors.tails)), split, None
        if (config.epochs or config.init in MATCHED) and not config.match_at:
            labels = split.labels[stitching_grid.derangement(len(split), config.seed)]
            partners = matched.subset(stitching_grid.derangement(len(matched), config.seed))
            kinds["shuffled"] = donors, replace(split, labels=labels), partners
        kinds |= {name: (networks, split, None) for name, networks in senders.items()}
    parts, rows = [], []
    for null, (networks, images, partners) in kinds.items():
        permutations = _permutations(config, len(matched)) if null is None else []
        entries, begun = _initial(config, networks, pairs, ranks, matched, batching, partners, permutations)
        parts.append(Part(networks, images.to(batching.device), entries))
        rows += [{"null": null, **row} for row in begun]
    return parts, rows


def _initial(
    config: StitchConfig,
    donors: Donors,
    pairs: Pairs,
    ranks: Ranks,
    matched: Split,
    batching: Batching,
    partners: Split | None,
    permutations: list[Permutations],
) -> tuple[list[GridStitch], list[dict]]:
    """A stitch, on its device and with its first weights, and the beginning of its row for every pair and its ranks."""
    limited = any(rank for chosen in ranks.values() for pair in chosen for rank in pair)
    statistics = least_squares.Statistics(pairs, ranks=limited)
    if config.init in MATCHED or limited:
        stitching_grid.collect(donors, matched, statistics, batching, partners)
    kept = stitching_grid.activations(donors, matched, batching, partners) if config.solver == "reference" else None
    solutions: dict[tuple[str, str, int | None], Solution] = {}
    if config.init in MATCHED:
        for (front, end), blank in pairs.items():
            for rank in dict.fromkeys(rank for _, rank in ranks[front]):
                solutions[front, end, rank] = _solve(config, statistics, kept, blank, front, end, rank)
        doubtful = [key for key, solution in solutions.items() if solution.doubtful]
        coarse = {(front, end): pairs[front, end] for front, end, _ in doubtful}
        exactly = stitching_grid.streamed_qr(donors, matched, coarse, batching, partners)
        for front, end, rank in doubtful:
            width = stitching_layer.channels(pairs[front, end].source)
            solutions[front, end, rank] = exactly[front, end].solve(width)
    nulls = _residual_nulls(donors, pairs, ranks, matched, batching, statistics, permutations) if permutations else {}
    entries, rows = [], []
    for (front, end), blank in pairs.items():
        for stitch_rank, pinv_rank in ranks[front]:
            made = _blank(config, blank.source, blank.target)
            row: Row = {
                "front_layer": front,
                "end_layer": end,
                "type": made.kind,
                "init": config.init,
                "trained": False,
                "samples": len(matched) if config.init in MATCHED else None,
                "stitch_rank": stitch_rank,
                "pinv_rank": pinv_rank,
                "pinv_basis": None if pinv_rank is None else BASES[config.solver],
                "solver": config.solver if config.init == "pinv" else None,
                "matching_residual": None,
                "effective_rank": None,
                "condition": None,
            }
            if config.init in MATCHED:
                solution = solutions[front, end, pinv_rank]
                row |= {
                    "matching_residual": statistics.problem(front, end).residual(solution.weight, solution.bias),
                    "effective_rank": solution.effective_rank,
                    "condition": solution.condition,
                    **nulls.get((front, end, pinv_rank), {}),
                }
                statistics.install(made, front, end, solution)
            else:
                stitching_layer.initialise(made, config.init, randomness.generator(config.seed, "init", front, end))
            if stitch_rank is not None:
                made.limit = stitching_layer.RankLimit(*statistics.components(front, stitch_rank))
            entries.append(GridStitch(front, end, made.to(batching.device)))
            rows.append(row)
    return entries, rows


def _permutations(config: StitchConfig, n: int) -> list[Permutations]:
    """The orders of the end network's images behind `--permutations`; none where nothing is matched, or not exactly."""
    if not config.permutations or config.init != "pinv" or config.solver != "exact":
        return []
    return image_permutations.around_circles(n, config.permutations, randomness.generator(config.seed, "permutations"))


def _residual_nulls(
    donors: Donors,
    pairs: Pairs,
    ranks: Ranks,
    matched: Split,
    batching: Batching,
    statistics: Statistics,
    permutations: list[Permutations],
) -> dict[tuple[str, str, int | None], dict]:
    """What the residual of every pair of layers and matching rank is by chance: another pass, whose activations are kept."""
    sources, targets = stitching_grid.activations(donors, matched, batching)
    chosen = {front: dict.fromkeys(rank for _, rank in ranks[front]) for front, _ in pairs}

    def problems():
        for (front, end), blank in pairs.items():
            bases = [None if rank is None else statistics.components(front, rank)[1] for rank in chosen[front]]
            yield blank.rows_of_source(sources[front]), blank.rows_of_target(targets[end]), bases

    columns = _named("matching_residual", chance.residual_null(problems(), permutations))
    keys = [(front, end, rank) for front, end in pairs for rank in chosen[front]]
    return dict(zip(keys, columns, strict=True))


def _add_accuracy_nulls(config: StitchConfig, rows: list[dict], answers: Tensor, labels: Tensor) -> None:
    """Adds to the rows of stitches, which come first, what accuracies are by chance; answers (stitches, n), labels (n,)."""
    pairs = [(one, labels.cpu().numpy()) for one in answers.cpu().numpy()]
    null = answer_null(pairs, config.permutations, config.seed)
    for row, columns in zip(rows, _named("accuracy", null), strict=False):
        row |= columns


def _named(measure: str, null: Null) -> list[dict]:
    """The columns of a null, called after the measure."""
    return [{f"{measure}_{name}": value for name, value in row.items()} for row in null.columns()]


# --solver -> whose principal directions --front-pinv-rank keeps
BASES = {"exact": "the front layer's channels", "reference": "the rows of each pair, resized"}


def _solve(
    config: StitchConfig,
    statistics: Statistics,
    kept: tuple[dict[str, Tensor], dict[str, Tensor]] | None,
    made: Stitch,
    front: str,
    end: str,
    rank: int | None,
) -> Solution:
    """The stitch of one pair by the solver that is asked for; `kept` has all activations, for the reference solver."""
    problem = statistics.problem(front, end)
    if config.init == "perm":
        if made.source != made.target and problem.xy.shape[0] != problem.xy.shape[1]:
            raise UserError(
                f"-i perm: {problem.xy.shape[0]} channels of {front} are no permutation of the "
                f"{problem.xy.shape[1]} of {end}; -i pinv joins them"
            )
        return least_squares.permutation(problem)
    if kept is not None:
        x, y = made.rows_of_source(kept[0][front]), made.rows_of_target(kept[1][end])
        return least_squares.reference(x.flatten(0, 1), y.flatten(0, 1), rank)
    if rank is None:
        return least_squares.exact(problem)
    return replace(least_squares.exact(problem, statistics.components(front, rank)[1]), doubtful=False)


def _evaluated(
    parts: list[Part], split: Split, batching: Batching, answers: list[Tensor] | None
) -> tuple[list[dict], float]:
    """The measures of all stitches in their order, and the end network's accuracy.

    Parts with the same donors share a pass. To `answers`, if given, those of the first part's are added, before others of
    its pass: (stitches, b) of every batch.
    """
    of_part: dict[int, list[dict]] = {}
    accuracies = []
    for donors in {id(part.donors): part.donors for part in parts}.values():
        numbers = [number for number, part in enumerate(parts) if part.donors is donors]
        entries = [entry for number in numbers for entry in parts[number].entries]
        measured, accuracy = stitching_grid.evaluate(donors, entries, split, batching, answers if 0 in numbers else None)
        accuracies.append(accuracy)
        left = iter(measured)
        of_part |= {number: list(itertools.islice(left, len(parts[number].entries))) for number in numbers}
    return [row for number in range(len(parts)) for row in of_part[number]], accuracies[-1]


def _train(
    config: StitchConfig, parts: list[Part], rows: list[dict], batching: Batching, between: dict[str, nn.Module]
) -> None:
    """Matching by the task loss, or at a later layer, of all stitches; those that another record holds are taken from there.

    between   what the end network does from each end layer to that of --match-at
    """

    def recipe(part: Part) -> loop.Recipe:
        augmentation = part.split.augmentation if config.augmentation == "auto" else config.augmentation
        return loop.Recipe(
            loss=stitching_grid.latent_loss(part.donors, part.trained(), config.match_at, between, l1=config.l1)
            if config.match_at
            else stitching_grid.task_loss(part.donors, part.trained(), l1=config.l1, soft_targets=config.soft_targets),
            learning_rate=schedule(
                config.schedule, learning_rate=config.learning_rate, epochs=config.epochs, milestones=config.milestones
            ),
            seed=config.seed,
            epochs=config.epochs,
            batching=replace(
                batching, precision=devices.resolve_precision(config.precision, batching.device, training=True)
            ),
            augmentation=augmentation,
        )

    def optimiser(network):
        made = optimizer(
            config.optimizer, network.parameters(), learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        if config.grad_clip:
            train.clip_each(made, network, config.grad_clip)
        return made

    trained = {} if config.overwrite else reuse.find(config)
    beginnings = iter(rows)

    def take(part: Part) -> dict[int, str]:
        origins = {}
        for number, (entry, row) in enumerate(zip(part.entries, beginnings, strict=False)):
            stitch = trained.get(reuse.key_of(row))
            if stitch is not None and reuse.load(entry, stitch):
                origins[number] = str(stitch.record)
        return origins

    saved = saved_state.RunFile(_partial(config), saved_state.content_key(records.under_way(config)))
    train.train(parts, config.epochs, recipe, optimiser, saved, config.overwrite, take, config.quiet)


def _partial(config: StitchConfig) -> Path:
    """Where the state of an interrupted training lies: beside the record."""
    return records.place(config, "stitch").beside(".partial")


def _weights(entries: list[GridStitch]) -> dict[str, np.ndarray]:
    """Every stitch's parameters and buffers as arrays `<number>.<name>`; the row's `stitch` is the number."""
    return {
        f"{number}.{name}": value.detach().cpu().numpy()
        for number, entry in enumerate(entries)
        for name, value in entry.stitch.state_dict().items()
    }
