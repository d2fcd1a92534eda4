"""Modules that are imported at their first use.

Torch with torchvision takes seconds to import; the experiments name their modules through this, so that the command line
is parsed, and a finished run recognised, without them.
"""

import importlib


class lazy:  # noqa: N801 - reads as a statement: torch = lazy("torch")
    """Stands for the module `name` and imports it when one of its attributes is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str):
        return getattr(importlib.import_module(self._name), attribute)
