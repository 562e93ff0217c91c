"""The base class of all trackers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cellflow.errors import CellflowError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Links", "Pictures", "Tracker", "TrackerUnavailableError"]

Links: TypeAlias = dict[str, str | dict[str, str]]
"""Where people find what was tracked: by tracker, and there by fold_0, fold_1, run where it has several."""

Pictures: TypeAlias = "Mapping[str, NDArray[np.uint8]]"
"""Pictures ``(H, W, 3)`` by image id."""


class TrackerUnavailableError(CellflowError):
    """A tracker cannot work in this process at all: a package or credentials are missing."""


class Tracker:
    """One place where experiments are tracked; does nothing until a subclass says what.

    Every method may raise whatever it likes: `Trackers` turns it into a warning. A new tracker is a file with
    a subclass, and a line in `cellflow.tracking.trackers`.
    """

    name: str
    """What the tracker is called in messages."""
    advice = "see its documentation"
    """What to do when it fails, as the end of a sentence."""
    takes_pictures = False
    """Whether `log_examples` does something with the pictures."""

    def start_fold(self, fold: int, start: Mapping[str, Any]) -> None:
        """A fold starts, or goes on after a stop.

        `start` has experiment, config, data_hash, folds_hash, network, training, validation, host, environment,
        comment, started, and under `trackers` the links of trackers that came before.
        """

    def log_epoch(self, fold: int, row: Mapping[str, float]) -> None:
        """A row of the history; nan is what was not measured. After a resume an epoch may come again."""

    def log_examples(self, fold: int, epoch: float, pictures: Pictures) -> None:
        """Pictures of an evaluation."""

    def end_fold(self, fold: int, summary: Mapping[str, Any], model: Path) -> None:
        """A fold has ended, with the content of its summary.json and its best model."""

    def update_run(self, metadata: Mapping[str, Any]) -> None:
        """The run as a whole has come further; the content of metadata.json."""

    def fail(self, what: str, message: str) -> None:
        """Something went wrong for good."""

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """The experiment is complete."""

    def close(self) -> None:
        """Let go of everything; called at the end of each command, also after an interruption."""

    def links(self) -> Links:
        """Where people find what was tracked so far."""
        return {}
