"""The tables and figures of the papers that the suite brings onto common ground: what they show, and what was published.

A paper is a file here with its `TABLES`; `published.yaml` has its numbers. To add one: a `PaperTable` in its file.
"""

from dataclasses import dataclass

from lib.core.errors import UsageError
from lib.core.registry import near
from lib.tables.papers import hyperplanes, ilc, ncg, oodlayers, stitching
from lib.tables.papers.spec import PaperTable


@dataclass(frozen=True)
class Paper:
    """A paper, its tables by id, and what is not among them."""

    citation: str
    tables: dict[str, PaperTable]
    left_out: str = ""


PAPERS = {
    "ilc": Paper("Uselis & Oh, Intermediate Layer Classifiers for OOD Generalization, ICLR 2025", ilc.TABLES),
    "stitching": Paper(
        "Balogh & Jelasity, How not to Stitch Representations to Measure Similarity, AAAI 2025",
        stitching.TABLES,
        "the paper's own tables and figures: not found",
    ),
    "oodlayers": Paper(
        "Guglielmo & Masana, Leveraging Intermediate Representations for Better OOD Detection, CVWW 2025",
        oodlayers.TABLES,
        "the paper's own tables: not found",
    ),
    "ncg": Paper(
        "Yang et al., Probing Predictions on OOD Images via Nearest Categories, TMLR 2023",
        ncg.TABLES,
        "Figures 1, 2 and 4: content not found",
    ),
    "hyperplanes": Paper(
        "Gamba et al., Hyperplane Arrangements of Trained ConvNets Are Biased, 2023",
        hyperplanes.TABLES,
        "the paper's own tables and captions: not found",
    ),
}


def names() -> list[str]:
    """Every `paper` and `paper/table`."""
    return [*PAPERS, *(f"{paper}/{table}" for paper, found in PAPERS.items() for table in found.tables)]


def chosen(words: tuple[str, ...]) -> dict[str, PaperTable]:
    """The tables that words `paper` and `paper/table` name, by `paper/table`; all without words. Raises `UsageError`."""
    known = {f"{paper}/{table}": spec for paper, found in PAPERS.items() for table, spec in found.tables.items()}
    found = {}
    for word in words or PAPERS:
        part = {name: spec for name, spec in known.items() if name == word or name.startswith(word + "/")}
        if not part:
            raise UsageError(f"{word}: no such paper, table or experiment; {near(word, names())}")
        found |= part
    return found
