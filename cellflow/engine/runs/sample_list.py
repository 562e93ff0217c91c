"""`samples.csv` of a fold: what became of every image in its training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from cellflow.io.fold_table import RESERVED
from cellflow.io.tables import read_frame
from cellflow.storage.atomic import write_csv
from cellflow.storage.hashing import hash_json

__all__ = ["TRAINS", "VALIDATES", "ids_hash", "read_sample_list", "write_sample_list"]

TRAINS, VALIDATES, LEFT_OUT, KEPT_BACK = "train", "validate", "too few cells", "reserved"


def write_sample_list(
    path: Path, folds: pd.Series[int], training: Collection[str], validation: Sequence[str]
) -> None:
    """Write id and role of each image of the split: what is trained on, what evaluations are made with, and others."""
    ids = [str(name) for name in folds.index]
    roles = {name: KEPT_BACK if folds[name] == RESERVED else LEFT_OUT for name in ids}
    roles |= dict.fromkeys(validation, VALIDATES) | dict.fromkeys(training, TRAINS)
    write_csv(path, pd.DataFrame({"id": ids, "role": [roles[name] for name in ids]}))


def read_sample_list(path: Path) -> pd.Series[str]:
    """Role of every image in the training of a fold, by id."""
    table = read_frame(path, ["id", "role"], text=("id", "role"))
    return pd.Series(table["role"].to_numpy(str), index=pd.Index(table["id"], dtype=str))


def ids_hash(ids: Iterable[str]) -> str:
    """Hash of a set of ids, whatever their order; models bear that of the images they were trained on."""
    return hash_json(sorted(ids))
