"""What a prediction writes of its images: one file an export, and the table that finds them.

Another export is a subclass of `Export` in a file of its own, a row of `EXPORTS`, and the field of the same
name in `ExportsConfig`, which is its flag.
"""

from __future__ import annotations

from cellflow.config.prediction import ExportsConfig
from cellflow.engine.prediction.exports.cells import Cells
from cellflow.engine.prediction.exports.export import Export
from cellflow.engine.prediction.exports.masks import Masks
from cellflow.engine.prediction.exports.outlines import Outlines
from cellflow.engine.prediction.exports.submission import Submission

__all__ = ["EXPORTS", "chosen_exports"]

EXPORTS: dict[str, Export] = {
    "masks": Masks(),
    "outlines": Outlines(),
    "cells": Cells(),
    "submission": Submission(),
}
"""Exports by the names of their flags, in the order in which they are written and named."""


def chosen_exports(config: ExportsConfig) -> set[str]:
    """Names of the exports that a config asks for."""
    return {name for name in EXPORTS if getattr(config, name)}
