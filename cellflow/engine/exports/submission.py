"""``submission.csv``: ``id,predicted``, a row per cell, row-major 1-indexed runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path

from cellflow.engine.exports.export import Export, Labels, rows_by_id
from cellflow.engine.runtime.progress_lines import follow
from cellflow.io.formats.submission import write_submission
from cellflow.numeric.labels import labels_from_instances
from cellflow.numeric.rle import instances_from_rles, rles_from_labels

__all__ = ["Submission"]


class Submission(Export):
    """Runs of all cells, made from the label maps at the end."""

    path = "submission.csv"
    content = "runs"

    def finish(
        self, folder: Path, ids: Sequence[str], labels: Callable[[str], Labels | None]
    ) -> None:
        """The runs of the label maps, and the rows of the old table where these are gone."""
        old: dict[str, list[str]] | None = None

        def rows() -> Iterator[tuple[str, list[str]]]:
            nonlocal old
            for name in follow(ids, "submission", brief=True):
                map_of_name = labels(name)
                if map_of_name is not None:
                    yield name, rles_from_labels(map_of_name)
                    continue
                old = _runs(folder / self.path, set(ids)) if old is None else old
                yield name, old.get(name, [])

        write_submission(folder / self.path, rows())

    def is_finished(self, folder: Path) -> bool:
        """Whether the table is there."""
        return (folder / self.path).is_file()

    def known_labels(
        self, folder: Path, ids: AbstractSet[str]
    ) -> Mapping[str, Callable[[tuple[int, int]], Labels]]:
        """Label maps of the images in the table."""
        runs = _runs(folder / self.path, ids)
        return {name: partial(_labels, cells) for name, cells in runs.items()}


def _runs(path: Path, ids: AbstractSet[str]) -> dict[str, list[str]]:
    """Runs of the cells of some images in a submission; an image without cells has a row without runs."""
    rows = rows_by_id(path, ids)
    return {name: [row[1] for row in found if row[1]] for name, found in rows.items()}


def _labels(runs: list[str], shape: tuple[int, int]) -> Labels:
    return labels_from_instances(instances_from_rles(runs, shape))
