"""Tables as other programs write them, from `prepare` to `score`."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave

from cellflow.config import FoldsConfig, PrepareConfig, ScoreConfig
from cellflow.engine.data.folds import load_folds
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.validation.score_masks import score_masks
from cellflow.errors import DataError, FoldError
from cellflow.io.dataset import NEAR_COPY, Dataset
from cellflow.io.images import write_labels

ROWS = (
    ("id", "annotation", "width", "height", "cell_type"),
    ("a", "1 3", "16", "12", "astro"),
    ("a", "40 4", "16", "12", "astro"),
    ("b", "17 5", "16", "12", "cört"),
    ("c", "", "16", "12", ""),
)
LINES = "\n".join(map(",".join, ROWS)) + "\n"
INDEXED = "".join(f"{n or ''},{line}\n" for n, line in enumerate(LINES.splitlines()))
KINDS = {
    "plain": LINES.encode(),
    "gzip": gzip.compress(LINES.encode(), mtime=0),
    "semicolons in UTF-16": LINES.replace(",", ";").encode("utf-16"),
    "tabs with a mark": LINES.replace(",", "\t").encode("utf-8-sig"),
    "floats": LINES.replace(",16,12,", ",16.0,12.0,").encode(),
    "floats in one row": LINES.replace("4,16,12,", "4,16.0,12,").encode(),
    "an index": INDEXED.encode(),
    "two indices": INDEXED.replace(",id", ",Unnamed: 0,id", 1)
    .replace(",a,", ",0,a,")
    .replace(",b,", ",1,b,")
    .replace(",c,", ",2,c,")
    .encode(),
    "blank rows of a spreadsheet": (LINES + ",,,,\n\n").encode(),
}


def images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    for name in "abc":
        pixels = rng.integers(0, 255, (12, 16), np.uint8)
        imsave(folder / "train" / f"{name}.png", pixels, check_contrast=False)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_prepared_and_scored(tmp_path: Path, kind: str) -> None:
    source = images(tmp_path / "source")
    name = "train.csv.gz" if kind == "gzip" else "train.csv"
    (source / name).write_bytes(KINDS[kind])
    data = prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    assert data.images["n_instances"].to_dict() == {"a": 2, "b": 1, "c": 0}
    assert data.images["cell_type"].to_dict() == {"a": "astro", "b": "cört", "c": ""}
    assert set(data.images) == {*data.computed_columns, "cell_type"} - {"id", NEAR_COPY}
    for truth in (source / name, source):
        result = score_masks(ScoreConfig(pred=str(data.path / "labels"), truth=truth))
        assert result.images["score"].tolist() == [1.0, 1.0, 1.0]
        assert result.images["cell_type"].tolist() == ["astro", "cört", ""]


TABLE = "id,cell_type,group\na,NA,007\nb,,nan\nc,1e5,7\n"


@pytest.mark.parametrize(
    "content",
    [gzip.compress(TABLE.encode(), mtime=0), TABLE.replace(",", ";").encode("utf-16")],
    ids=["gzip", "utf-16"],
)
def test_a_table_beside_folders(tmp_path: Path, content: bytes) -> None:
    source = images(tmp_path / "source")
    (source / "train").rename(source / "images")
    for name in "abc":
        write_labels(source / "masks" / f"{name}.tif", np.eye(12, 16, dtype=np.int32))
    (tmp_path / "t.csv.gz").write_bytes(content)
    config = PrepareConfig(source=source, out=tmp_path / "data", table=tmp_path / "t.csv.gz")
    found = prepare(config).images
    assert found["cell_type"].to_dict() == {"a": "NA", "b": "", "c": "1e5"}
    assert found["group"].to_dict() == {"a": "007", "b": "nan", "c": "7"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LINES.splitlines()[0].encode() + b"\n", "no image of .*train has a row"),
        (LINES.encode("latin-1"), "line 4: expected UTF-8 text, found the byte 0xf6"),
        (LINES.replace("id,", "Image,", 1).encode(), "say which: --id_column Image"),
        (LINES.replace("id,", "ID,", 1).encode(), "or say --id_column ID"),
        (LINES.replace(",16,", ",16.5,").encode(), "width 16.5, but the image is 12 x 16"),
    ],
)
def test_refused(tmp_path: Path, content: bytes, message: str) -> None:
    source = images(tmp_path / "source")
    (source / "train.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_folds_edited_in_a_spreadsheet(tmp_path: Path) -> None:
    source = images(tmp_path / "source")
    (source / "train.csv").write_bytes(KINDS["plain"])
    data = prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    make_folds(FoldsConfig(data=data.path, k=3))
    folds = load_folds(data)
    (data.path / "folds.csv").write_text("id;fold;\na;0.0;\nb;1.0;\nc;-1;\n;;\n")
    assert load_folds(Dataset.open(data.path)).to_dict() == {"a": 0, "b": 1, "c": -1}
    assert folds.nunique() == 3
    (data.path / "folds.csv").write_text("id,fold\na,0.5\nb,1\nc,0\n")
    with pytest.raises(FoldError, match=r"line 2: expected a fold number .*'0\.5'"):
        load_folds(data)
