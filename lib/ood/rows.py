"""The rows of `exec_ood_layers.py`: every measure of every score."""

import warnings
from collections.abc import Iterator

import numpy as np

from lib.datasets import names, openood
from lib.datasets.split import Split
from lib.metrics import distribution_free
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.ood import aggregate, comparison, layer_choice
from lib.ood.flags import DETECTORS
from lib.ood.last_layer import NEEDS, TEMPERATURES
from lib.ood.passes import LayerStudy, Passed


def rows(
    study: LayerStudy, facts: list[dict], fit: Passed, passes: dict[str, Passed], outliers: list[str]
) -> Iterator[tuple[str, dict]]:
    """(OOD set, row) of every layer's energy and every other score."""
    if "transfer" in study.choices and len(outliers) < 2:
        warnings.warn("--choose transfer is left out: there is no other OOD set to test a choice on", stacklevel=2)
    layers = [fact["layer"] for fact in facts]
    final = max(range(len(facts)), key=lambda number: facts[number]["execution_index"])
    for number, temperature in enumerate(study.temperatures):

        def at(passed: Passed, number: int = number) -> np.ndarray:
            return passed.of(study.layers)[..., number]

        inner, outer, fitted = at(passes["id"]), {other: at(passes[other]) for other in outliers}, at(fit)
        measured = {other: comparison.layer_rows(inner, outer[other], fitted, final, study.seed) for other in outliers}
        comparison.mark_signs(list(measured.values()))
        validated = [at(passes[f"validation {other}"]) for other in study.validation]
        aggregators = {
            name: aggregate.fit(name, fitted, np.concatenate(validated) if validated else None)
            for name in study.aggregators
            if name != "oracle"
        }
        scored = {name: score(inner) for name, score in aggregators.items()}
        proxies = at(passes["jigsaw"]) if "jigsaw" in study.choices else None
        transferred = layer_choice.transfers(inner, outer, fitted, study.seed) if "transfer" in study.choices else []
        for other in outliers:
            for place, (fact, row) in enumerate(zip(facts, measured[other], strict=True)):
                energy = comparison.Score({}, inner[:, place], outer[other][:, place])
                about = {**fact, "T": temperature, "score": "energy", "needs": "nothing"}
                yield other, {**about, **row, **_intervals(study, energy, row)}
            scores = [
                comparison.Score(
                    {"layer": "all layers", "score": name, "needs": aggregate.needs(name)}, scored[name], score(outer[other])
                )
                for name, score in aggregators.items()
            ]
            if "oracle" in study.aggregators:
                scores.append(aggregate.oracle(layers, inner, outer[other]))
            scores += layer_choice.scores(
                study.choices, layers, inner, outer, fitted, proxies, transferred, other, study.seed
            )
            if number == 0:
                scores += _last_layer(study, passes["id"], passes[other], layers[final])
            in_set = {fact["layer"]: row["in_best_set_two_sided"] for fact, row in zip(facts, measured[other], strict=True)}
            compared = comparison.score_rows(scores, inner[:, final], outer[other][:, final])
            for score, row in zip(scores, compared, strict=True):
                if row["score"].startswith("two-sided"):
                    row["in_best_set_two_sided"] = in_set.get(row["layer"])
                yield other, {"T": temperature, **row, **_intervals(study, score, row)}
            for found in _detectors(facts, passes["id"], passes[other]) if number == 0 else ():
                compared = comparison.score_rows(found, inner[:, final], outer[other][:, final])
                for score, row in zip(found, compared, strict=True):
                    yield other, row | _intervals(study, score, row)


def _intervals(study: LayerStudy, score: comparison.Score, row: dict) -> dict:
    """The intervals of `--conformal`; none of what was chosen on the test images, or in halves of them."""
    if not study.conformal or not score.tested or score.halves is not None:
        return {}
    return distribution_free.columns(score.inside, score.outside, row["auroc"])


def _detectors(facts: list[dict], inner: Passed, outer: Passed) -> Iterator[list[comparison.Score]]:
    """For every detector its scores at all layers where it could be fitted; they have no temperature."""
    for name, found in inner.detected.items():
        yield [
            comparison.Score(
                {**fact, "T": None, "score": f"layer {name}", "needs": DETECTORS[name]},
                found[fact["layer"]],
                outer.detected[name][fact["layer"]],
            )
            for fact in facts
            if fact["layer"] in found
        ]


def _last_layer(study: LayerStudy, inner: Passed, outer: Passed, final: str) -> list[comparison.Score]:
    """The scores of the last layer; its energy at T = 1 only where that is no row already."""
    there = final == study.head and 1.0 in study.temperatures
    return [
        comparison.Score(
            {"layer": study.head, "score": name, "needs": NEEDS[name], "T": TEMPERATURES.get(name)},
            values,
            outer.scores[name],
        )
        for name, values in inner.scores.items()
        if not (there and name == "energy")
    ]


def about(inside: Split, split: Split) -> dict:
    """What a row says of its OOD set."""
    kind, severity = names.corruption(names.parse(f"{split.name}/{split.variant}")) if split.variant else (None, None)
    return {
        "ood": split.name,
        "ood_split": split.split,
        "variant": split.variant,
        "origin": split.origin,
        "group": openood.group(inside.name, split.name),
        "corruption": kind,
        "severity": severity,
        "n_ood": len(split),
    }


def facts(network: Normalized, listed: list[cutting.Layer], columns: list[str]) -> dict[str, dict]:
    """What each column's layer is: place in registration and execution order, kind, size, share of the cost."""
    by_name = {layer.name: layer for layer in listed}
    spent = cutting.macs_before(listed)
    order = {name: number for number, (name, _) in enumerate(network.body.named_modules())}
    ranked = sorted({column.partition("@")[0] for column in columns}, key=lambda name: order[name])
    facts = {}
    for column in columns:
        layer = by_name[column.partition("@")[0]]
        facts[column] = {
            "layer": column,
            "index": ranked.index(layer.name),
            "execution_index": layer.run(column).index,
            "kind": layer.kind,
            "role": layer.role or None,
            "dim": int(np.prod(layer.run(column).shape)),
            "mac_fraction": spent[column],
        }
    return facts
