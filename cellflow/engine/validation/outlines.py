"""A folder of pictures with truth and prediction over the images, the worst ones first."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.scoring import COUNTS
from cellflow.errors import DataError
from cellflow.report.comparison import MAX_SHOWN, Comparison, write_comparison, write_overview
from cellflow.storage.atomic import atomic_folder, write_csv

__all__ = ["check_outlines_folder", "write_outlines_folder"]

INDEX, OVERVIEW = "index.csv", "worst.png"
"""Table of the pictures, which marks a folder as one that may be replaced; and the worst ones on a sheet."""
_LONGEST = 150
"""Bytes of an id that a file name holds at most."""


def write_outlines_folder(
    folder: Path, scores: pd.DataFrame, compare: Callable[[str], Comparison]
) -> Path:
    """Write a picture of every image, named by rank, score and id, a sheet of the worst, and a table.

    Parameters
    ----------
    folder : Path
        Folder to write, whole or not at all; an earlier one is replaced.
    scores : pandas.DataFrame
        A row per image: id, score, n_true, n_found, n_missed, n_false.
    compare : callable
        Takes an id and gives its image with the true and the predicted cells.

    Returns
    -------
    Path
        The sheet of the worst images.

    Raises
    ------
    DataError
        If the folder holds something else, or an image cannot be drawn.
    """
    check_outlines_folder(folder)
    ranked = scores.sort_values(["score", "id"], kind="stable").reset_index(drop=True)
    digits = max(3, len(str(len(ranked))))
    files, worst = [], []
    with atomic_folder(folder, replace=True) as temporary:
        rows = zip(ranked["id"], ranked["score"], strict=True)
        drawn = follow(rows, "outlines", len(ranked), brief=True)
        for rank, (name, score) in enumerate(drawn, 1):
            item = compare(str(name))
            files.append(f"{rank:0{digits}d}_{score:.2f}_{_file_name(str(name))}.png")
            write_comparison(temporary / files[-1], item)
            if rank <= MAX_SHOWN:
                worst.append(item)
        title = f"{len(ranked)} images, the worst first"
        if len(worst) < len(ranked):
            title = f"The {len(worst)} worst of {len(ranked)} images"
        write_overview(temporary / OVERVIEW, worst, title=title)
        table = ranked[["id", "score", "n_true", *COUNTS]].assign(file=files)
        table.insert(0, "rank", range(1, len(table) + 1))
        write_csv(temporary / INDEX, table)
    return folder / OVERVIEW


def check_outlines_folder(folder: Path) -> None:
    """Refuse to replace a folder that holds something else than such pictures.

    Raises
    ------
    DataError
        If it does.
    """
    if folder.exists() and not (folder / INDEX).is_file() and any(folder.iterdir()):
        raise DataError(
            f"{folder}: expected nothing, or pictures of an earlier --outlines (with {INDEX}), found "
            "something else. Choose another folder, or remove this one."
        )


def _file_name(name: str) -> str:
    """An id as part of a file name: ids of foreign tables may hold anything."""
    plain = re.sub(r'[/\\:*?"<>|\s\x00-\x1f]', "_", name)
    return plain.encode()[:_LONGEST].decode(errors="ignore")
