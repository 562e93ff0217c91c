"""What the demo gave, as `cellflow demo` prints it."""

from __future__ import annotations

from typing import Any

from cellflow.report.text.cv import cv_text

__all__ = ["demo_text"]


def demo_text(result: Any) -> str:
    """A `DemoResult`: scores of single models and of the ensemble, and where results lie."""
    return "\n".join(
        [
            cv_text(result.cv),
            "",
            f"ensemble of {result.members} models on {result.unseen} unseen images: {result.score:.4f}",
            f"submission  {result.submission}",
            f"masks       {result.masks}",
            f"picture     {result.picture}",
            *(f"report      {path}" for path in result.reports),
            f"time        {result.seconds:.0f} s",
        ]
    )
