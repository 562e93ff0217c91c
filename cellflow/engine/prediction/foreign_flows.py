"""Flows of other origin that join the average: checked before anything is predicted, read image by image."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.segmentation.segmenter import ForeignFlows
from cellflow.errors import DataError
from cellflow.io.foreign_flows import check_layout, read_foreign_flows
from cellflow.storage.hashing import hash_json

__all__ = ["check_foreign", "foreign_facts", "foreign_flows"]


def foreign_flows(folders: Iterable[Path]) -> list[ForeignFlows]:
    """What a `Segmenter` asks for the flows in each of some folders."""
    return [partial(_flows_of, folder) for folder in folders]


def _flows_of(
    folder: Path, name: str, reference: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Flows of an image, unless they differ from a member's as only another order of axes would have it."""
    path = folder / f"{name}.npz"
    fields = read_foreign_flows(path)
    check_layout(path, fields, reference)
    return fields


def check_foreign(folders: Iterable[Path], names: Iterable[str]) -> None:
    """Read the first file of every folder, before anything is predicted: one cause, one message.

    Raises
    ------
    DataError
        If a folder holds no flows of these images, or its first file is none.
    """
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"--flows {folder}: expected a folder with ID.npz files, found none.")
        first = next((path for name in names if (path := folder / f"{name}.npz").exists()), None)
        if first is None:
            raise DataError(
                f"--flows {folder}: expected a file ID.npz for every image, such as "
                f"{next(iter(names), 'ID')}.npz; found none of them."
            )
        read_foreign_flows(first)


def foreign_facts(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Where foreign flows lie, and what tells whether they have changed."""
    files = [folder / f"{name}.npz" for name in names]
    facts = [(path.name, path.stat()) for path in files if path.exists()]
    marks = [f"{name} {fact.st_size} {fact.st_mtime_ns}" for name, fact in facts]
    return {"folder": str(folder.resolve()), "hash": hash_json(marks)}
