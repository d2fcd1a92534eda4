"""Nearest-category generalisation of a network: `exec_ncg.py`.

Yang et al., "Probing Predictions on OOD Images via Nearest Categories", TMLR 2023. Pixel distances are in [0, 1] units of
the images as the data set has them; features are the activations of one layer, not rescaled.
"""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

from lib import inputs
from lib.cli import at_least, flag
from lib.datasets import corruptions, names
from lib.errors import UsageError, UserError
from lib.inputs import NetworkConfig
from lib.lazy import lazy
from lib.results import Result

category_scores = lazy("lib.category_scores")
devices = lazy("lib.devices")
files = lazy("lib.files")
graph = lazy("lib.graph")
neighbors = lazy("lib.neighbors")
np = lazy("numpy")
plots = lazy("lib.plots.ncg")
radius = lazy("lib.radius")
representations = lazy("lib.representations")
torch = lazy("torch")
training = lazy("lib.training")

SPACES = ("pixel", "feature")
RADIUS_STEPS = 100  # of DDN


@dataclass(frozen=True, kw_only=True)
class NcgConfig(NetworkConfig):
    """How often a network answers with the label of the nearest training example."""

    dataset: str = flag("", "-d", label="{}", help="training data, in which neighbours are searched; default: those of the "
                                                   "network")
    ood: tuple[str, ...] = flag((), "-ood", label="{}", help="data sets of other images; default: the class that -d "
                                                             "holds out")
    space: tuple[str, ...] = flag(("pixel",), choices=SPACES, commas=True, help="where distances are taken: pixel, feature")
    layer: str = flag("", help="layer of --space feature; default: the last cut before the last linear layer")
    backbone: str = flag("", help="checkpoint that makes the features; default: the network itself")
    against: str = flag("", help="checkpoint to compare with image by image: a natural network")
    corruptions: tuple[str, ...] = flag((), commas=True, choices={"all": 0, **corruptions.CORRUPTIONS},
                                        help="corruptions of the test images, or all, at severities 1 to 5")
    radius: int = flag(0, check=at_least(0), help="images of each kind at which the distance to the decision boundary is "
                                                  "measured; 0: none")
    engine: str = flag("auto", choices=("auto", "faiss", "torch"), help="what searches neighbours; the answers are the same",
                       identity=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset and names.parse(self.dataset).split:
            raise UsageError(f"-d {self.dataset}: a data set without a split is named; its train and test are used")
        if "feature" not in self.space and (self.layer or self.backbone):
            raise UsageError("--layer and --backbone are for --space feature")
        if self.radius and "pixel" not in self.space:
            raise UsageError("--radius is measured in --space pixel")

    def inputs(self) -> dict[str, list[Path]]:
        networks = [path for path in (self.backbone, self.against) if path]
        named = [name for name in (self.dataset, *self.ood) if name]
        return super().inputs() | inputs.checkpoint_files(self, *networks) | inputs.data_files(self, *named)


def ncg(config: NcgConfig) -> Result:
    """Rows per (network, images, space), in all and by distance quintile; predictions and neighbours in the arrays."""
    device = inputs.device(config)
    networks = [inputs.load_checkpoint(config, config.model_path, config.model_type, device)]
    if config.against:
        networks.append(inputs.load_checkpoint(config, config.against, device=device))
    name = inputs.dataset_name(config.dataset, networks[0])
    size = networks[0].description.image_size
    seen = inputs.load_split(config, name, "train", image_size=size)
    answers = [_answers(checkpoint, seen, name) for checkpoint in networks]
    if config.radius:
        for checkpoint in networks:
            _check_pixels(checkpoint, seen)
    queries = _queries(config, name, size)
    spaces = [_space(config, space, networks[0], device) for space in dict.fromkeys(config.space)]
    rows, arrays, seconds = [], {}, {}
    begin = time.perf_counter()
    logits = {(checkpoint.path, key): _predict(config, checkpoint, split) for checkpoint in networks
              for key, split in queries.items()}
    seconds["predictions"] = time.perf_counter() - begin
    predicted = {key: found.argmax(1).numpy() for key, found in logits.items()}
    for key, split in queries.items():
        arrays |= {f"labels_{key}": split.labels.numpy(), f"indices_{key}": split.indices.numpy()}
        arrays |= {f"predictions_{key}" + ("_against" if place else ""): predicted[checkpoint.path, key]
                   for place, checkpoint in enumerate(networks)}
    for space in spaces:
        begin = time.perf_counter()
        known = space.points(seen)
        for key, split in queries.items():
            table = neighbors.cached_table(config.cache_dir, space.points(split), known, seen.labels, len(seen.classes),
                                           engine=config.engine, quiet=config.quiet)
            found = table.nearest()
            arrays |= {f"neighbors_{space.name}_{key}": found.indices.numpy(),
                       f"nearest_labels_{space.name}_{key}": found.labels.numpy(),
                       f"squared_distances_{space.name}_{key}": found.squared.numpy()}
            nearest = [answer[found.labels].numpy() for answer in answers]
            second = predicted[networks[1].path, key] == nearest[1] if config.against else None
            for place, checkpoint in enumerate(networks):
                base = {"model": str(checkpoint.path), "against": config.against if place == 0 else "", "train": seen.name,
                        "n_train": len(seen), "data": split.name, "split": split.split, "variant": split.variant,
                        "origin": split.origin, "space": space.name, **space.about, "in_distribution": key == "test"}
                rows += category_scores.rows(
                    base, predicted[checkpoint.path, key], nearest[place], table, space.unit,
                    classes=len(checkpoint.description.classes), seed=config.seed,
                    labels=answers[place][split.labels].numpy() if split.classes == seen.classes else None,
                    against=second if place == 0 else None)
                if config.radius and space.name == "pixel" and key != "test" and not split.variant:
                    measured = _radii(config, checkpoint, seen, answers[place][seen.labels], split, found)
                    for at, (row, values) in measured.items():
                        rows.append({**base, "subset": "radius", "at": at, **row})
                        arrays |= {f"{what}_at_{at}_{key}" + ("_against" if place else ""): array
                                   for what, array in values.items()}
        seconds[f"neighbours in {space.name} space"] = time.perf_counter() - begin
    cells = [row for row in rows if row["variant"] and row["subset"] == "all"]
    rows += category_scores.over_levels(cells)
    figures = _figures(rows, cells, networks, seen.name)
    if any(row["subset"] == "radius" for row in rows):
        figures["radius"] = plots.radii(arrays, [str(checkpoint.path) for checkpoint in networks], seen.name)
    return Result(rows, arrays, figures, seconds,
                  columns=("model", "data", "split", "variant", "space", "subset", "n", "ncg", "ncg_low", "ncg_high",
                           "majority", "independence", "kappa", "p_permutation", "accuracy", "mean_distance"))


@dataclass(frozen=True)
class _Space:
    """Where distances are taken: `points(split)`, `unit` of a distance in what rows show, and what rows say of it."""

    name: str
    points: object
    unit: float
    about: dict


def _space(config: NcgConfig, name: str, checkpoint, device) -> _Space:
    if name == "pixel":
        return _Space(name, lambda split: neighbors.Points(_title(split), _pixels(split)), 255,
                      {"layer": None, "backbone": None})
    backbone = inputs.load_checkpoint(config, config.backbone, device=device) if config.backbone else checkpoint
    layer = config.layer or _last_cut(backbone.network)
    graph.check_names(backbone.network, [layer])
    units = f"features of {layer} of {files.sha256(backbone.path)[:12]}"

    def points(split):
        values = representations.features(backbone.network, split, layer, channels=backbone.description.channels,
                                          size=backbone.description.image_size, **_passing(config))
        return neighbors.Points(_title(split), values, units)
    return _Space(name, points, 1, {"layer": layer, "backbone": str(backbone.path)})


def _radii(config: NcgConfig, checkpoint, seen, labels, split, nearest) -> dict[str, tuple[dict, dict]]:
    """Row and arrays of the distances to the boundary, at the images' neighbours (the paper) and at the images."""
    images, distances = _pixels(seen), nearest.squared.double().sqrt().numpy() / 255
    options = {"steps": RADIUS_STEPS, "seed": config.seed, "batch_size": config.batch_size, "quiet": config.quiet}
    return {
        "neighbours": radius.at_training_examples(checkpoint.network, images, labels, nearest, distances, config.radius,
                                                  **options),
        "images": radius.at_images(checkpoint.network, _pixels(split), images[nearest.indices], distances, config.radius,
                                   **options),
    }


def _check_pixels(checkpoint, seen) -> None:
    described, size = checkpoint.description, checkpoint.description.image_size
    if described.channels != seen.channels or size not in (None, seen.height) or seen.height != seen.width:
        raise UserError(f"--radius: {checkpoint.path} takes {described.channels} x {size} x {size} images and {seen.name} "
                        f"has {seen.channels} x {seen.height} x {seen.width}: their distances are in different units")


def _answers(checkpoint, seen, name: str):
    """The network's number of each class of the training set: its own, or that of the set with all classes."""
    count = len(checkpoint.description.classes)
    if count == len(seen.classes):
        return torch.arange(count)
    if seen.original_labels and count == len(seen.classes) + 1:
        return torch.tensor(seen.original_labels)
    whole = f", or {len(seen.classes) + 1} with the one held out" if seen.original_labels else ""
    raise UserError(f"-d {name}: it has {len(seen.classes)} classes{whole}, the network {checkpoint.path} has {count}")


def _queries(config: NcgConfig, name: str, size: int | None) -> dict:
    """Key of the arrays -> images: those from elsewhere, the test images, and these corrupted."""
    named = config.ood or ((f"{name}:ood",) if names.parse(name).held_out is not None else ())
    if not named and not config.corruptions:
        raise UserError(f"-ood or --corruptions is required: {name} holds no class out")
    kinds = tuple(corruptions.CORRUPTIONS) if "all" in config.corruptions else config.corruptions
    corrupted = [f"{name}-c:test/{kind}-{level}" for kind, level in itertools.product(kinds, corruptions.SEVERITIES)]
    found = {_key(other): inputs.load_split(config, other, image_size=size) for other in (*named, *corrupted)}
    return {**found, "test": inputs.load_split(config, name, "test", image_size=size)}


def _predict(config: NcgConfig, checkpoint, split):
    precision = devices.resolve_precision(config.precision, next(checkpoint.network.parameters()).device)
    return training.predict(checkpoint.network, split, channels=checkpoint.description.channels,
                            size=checkpoint.description.image_size, precision=precision, **_passing(config))


def _passing(config: NcgConfig) -> dict:
    return {"batch_size": config.batch_size, "workers": config.workers, "prefetch": config.prefetch, "quiet": config.quiet}


def _pixels(split):
    """All images of a split, uint8, in memory."""
    if not split.lazy:
        return split.images
    return torch.cat([split.images.take(part) for part in np.array_split(np.arange(len(split)), len(split) // 4096 + 1)])


def _last_cut(network) -> str:
    """The deepest layer at which the network can be cut in front of its last linear layer."""
    linear = [name for name, module in network.body.named_modules() if isinstance(module, torch.nn.Linear)]
    cuts = graph.cuts(network)
    before = cuts[:cuts.index(linear[-1])] if linear and linear[-1] in cuts else []
    if not before:
        raise UserError("--layer is required: the network has no cut in front of a last linear layer")
    return before[-1]


def _figures(rows: list[dict], cells: list[dict], networks, train: str) -> dict:
    title = f"{networks[0].description.architecture}, neighbours in {train}"
    shown = [row for row in rows if not row["variant"]]
    whole, figures = [row for row in shown if row["subset"] == "all"], {}
    if whole:
        figures = {"": plots.scores(whole, title),
                   "quintiles": plots.quintiles([row for row in shown if row["subset"].startswith("quintile")], title)}
    if cells:
        figures["corruptions"] = plots.levels([row for row in cells if row["model"] == str(networks[0].path)], title)
    return figures


def _title(split) -> str:
    return f"{split.name}:{split.split}" + (f"/{split.variant}" if split.variant else "")


def _key(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
