"""A folder of detectors of representations, each with the description of what it is a detector of.

A detector is a checkpoint `<layer>-<key>.pt` with its sidecar. The key stands for the content: the weights of the source
network, the layer, the classifier's type, data and settings; so runs side by side write files of their own, and the same
run again replaces its own. Finding detectors needs no torch.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from lib.core import files, locks
from lib.core.errors import UserError
from lib.core.registry import misspelt
from lib.runs import input_files
from lib.runs.input_files import ModelsDir
from lib.stitching.flags import DetectorConfig

ELSEWHERE = ("source_path", "source_type", "layer", "directory", "detectors_dir")  # part of no key


@dataclass(frozen=True)
class Detector:
    """What the sidecar of a detector says."""

    path: Path
    layer: str
    source_path: str
    source_sha256: str
    settings: dict  # of the run that made it


def folder(config: DetectorConfig) -> Path:
    """The folder of `-fdir`: `a` and `models/a` are the same."""
    given, root = Path(config.detectors_dir), Path(config.models_dir)
    return given if given.is_relative_to(root) or given.is_absolute() else root / given


def path_of(config: DetectorConfig, layer: str) -> Path:
    """Where the detector of a layer goes that this configuration makes; the source and the data must be there."""
    changed = {
        item.name: getattr(config, item.name)
        for item in dataclasses.fields(config)
        if item.metadata["identity"] and item.name not in ELSEWHERE and getattr(config, item.name) != item.default
    }
    data = {
        name: files.fingerprint(paths, Path(config.cache_dir))["sha256"]
        for name, paths in config.inputs().items()
        if name != config.source_path
    }
    content = json.dumps([source_hash(config, config.source_path), layer, changed, data], sort_keys=True)
    return folder(config) / f"{layer}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.pt"


def source_hash(config: DetectorConfig, path: str) -> str:
    """The SHA-256 of a checkpoint."""
    return files.fingerprint([input_files.locate(config, path)], Path(config.cache_dir))["sha256"]


def publish(config: DetectorConfig, layer: str, network, description) -> Path:
    """Writes a detector and its description into the folder of detectors; returns its path."""
    from lib.models import checkpoints

    path = path_of(config, layer)
    settings = dataclasses.asdict(config) | {"layer": [layer], "source_sha256": source_hash(config, config.source_path)}
    with locks.locked(
        path.with_name(f".{path.name}.lock"), f"another process is writing {path}; the same command ends this run"
    ):
        checkpoints.save(path, network, dataclasses.replace(description, config=settings))
    return path


def find(config: ModelsDir, places: tuple[str, ...]) -> list[Detector]:
    """The detectors in folders and files, as given or under the folder of the checkpoints.

    Raises `UserError` for a place that does not exist and for a file that is no detector.
    """
    detectors = []
    for place in places:
        path = input_files.locate(config, place)
        if path.is_dir():
            detectors += [
                read for file in sorted(path.glob("[!.]*.json")) if (read := _read(file.with_suffix(".pt"))) is not None
            ]
        elif path.exists():
            detector = _read(path)
            if detector is None:
                raise UserError(f"-detectors {place}: no detector that exec_ood_detector.py has made")
            detectors.append(detector)
        else:
            way_out = misspelt(path) or "; exec_ood_detector.py makes detectors"
            raise UserError(f"-detectors {place}: there is no such folder or file{way_out}")
    return detectors


def of_network(detectors: list[Detector], source_sha256: str, source_path: str, layers: list[str]) -> dict[str, Detector]:
    """Those of layers of the network with these weights, by layer. Raises `UserError` for a layer with more than one."""
    by_layer = {}
    for layer in layers:
        fitting = [detector for detector in detectors if (detector.source_sha256, detector.layer) == (source_sha256, layer)]
        if len(fitting) > 1:
            raise UserError(
                f"-detectors: of layer {layer} of {source_path} there are {len(fitting)}, "
                f"{', '.join(str(detector.path) for detector in fitting)}; name those that are to be used"
            )
        if fitting:
            by_layer[layer] = fitting[0]
    return by_layer


def _read(path: Path) -> Detector | None:
    """The detector at a path; None if its weights are not there, or its sidecar describes something else."""
    try:
        content = files.read_json(path.with_suffix(".json"))
        settings = content["config"]
        detector = Detector(path, settings["layer"][0], settings["source_path"], settings["source_sha256"], settings)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return detector if path.exists() else None
