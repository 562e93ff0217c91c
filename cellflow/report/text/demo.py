"""What the demo gave, as `cellflow demo` prints it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pandas as pd

from cellflow.report.text.cv import cv_text

__all__ = ["demo_text"]


class Demo(Protocol):
    """What the demo gave, see `cellflow.engine.experiments.demo.DemoResult`."""

    @property
    def cv(self) -> pd.DataFrame: ...
    @property
    def score(self) -> float: ...
    @property
    def unseen(self) -> int: ...
    @property
    def members(self) -> int: ...
    @property
    def submission(self) -> Path: ...
    @property
    def masks(self) -> Path: ...
    @property
    def picture(self) -> Path: ...
    @property
    def seconds(self) -> float: ...


def demo_text(result: Demo) -> str:
    """Scores of single models and of the ensemble, and where the results lie."""
    return "\n".join(
        [
            cv_text(result.cv),
            "",
            f"ensemble of {result.members} models on {result.unseen} unseen images: {result.score:.4f}",
            f"submission  {result.submission}",
            f"masks       {result.masks}",
            f"picture     {result.picture}",
            f"time        {result.seconds:.0f} s",
        ]
    )
