"""Forms of one picture: told by `prepare`, kept together by `folds`, found across folds by `verify`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage.io import imsave

from cellflow import cli
from cellflow.config import FoldsConfig, PrepareConfig, VerifyConfig
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.validation.verify import verify
from cellflow.errors import FoldError
from cellflow.io.dataset import NEAR_COPY, Dataset
from cellflow.io.images import write_labels
from cellflow.synthetic import synthetic_dataset

FORMS = {
    "turned": lambda image: np.rot90(image),
    "small": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "bright": lambda image: np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight pictures; the first in four forms, and the last twice as it is."""
    items = list(synthetic_dataset(8, shape=(96, 112), seed=5))
    images = {f"im{at}": (item.image, item.labels) for at, item in enumerate(items)}
    for name, form in FORMS.items():
        empty = np.zeros(form(items[0].image).shape, np.int32)
        empty[5:15, 5:15] = 1
        images[name] = (form(items[0].image), empty)
    images["twin"] = images["im7"]
    (tmp_path / "source" / "images").mkdir(parents=True)
    for name, (image, labels) in images.items():
        imsave(tmp_path / "source" / "images" / f"{name}.png", image, check_contrast=False)
        write_labels(tmp_path / "source" / "masks" / f"{name}.tif", labels)
    return tmp_path / "source"


def test_forms_of_one_picture_stay_in_one_fold(source: Path, tmp_path: Path, caplog):
    data = tmp_path / "data"
    with caplog.at_level("WARNING"):
        dataset = prepare(PrepareConfig(source, out=data))
    assert "3 images in another form (turned, mirrored, rescaled, brightened)" in caplog.text
    assert "The same image under 2 names: im7, twin" in caplog.text
    copies = dataset.images[NEAR_COPY]
    assert copies[copies != ""].to_dict() == dict.fromkeys(["im0", "small", "turned"], "bright")
    for seed in range(10):
        make_folds(FoldsConfig(data=data, k=3, seed=seed, overwrite=True))
        folds = Dataset.open(data).folds()
        assert folds[["im0", *FORMS]].nunique() == 1
        assert folds[["im7", "twin"]].nunique() == 1
    found = verify(VerifyConfig(data))
    assert found.problems == 0
    notes = {(item.kind, item.id) for item in found.findings}
    assert ("same image", "twin") in notes
    assert {name for kind, name in notes if kind == "near copy"} == {"im0", "small", "turned"}


def test_a_table_that_splits_them_is_told_by_verify(source: Path, tmp_path: Path, capsys):
    data = tmp_path / "data"
    prepare(PrepareConfig(source, out=data))
    make_folds(FoldsConfig(data=data, k=2))
    table = pd.read_csv(data / "folds.csv", dtype=str)
    one = table.loc[table["id"] == "im0", "fold"].item()
    table.loc[table["id"] == "turned", "fold"] = "1" if one == "0" else "0"
    table.to_csv(data / "folds.csv", index=False)
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", str(data), "--out", str(tmp_path / "all.csv")])
    assert end.value.code == 1
    text = capsys.readouterr().out
    assert "! over several folds" in text
    assert f"Next: cellflow folds --data {data} --overwrite" in text
    rows = pd.read_csv(tmp_path / "all.csv", dtype=str).fillna("")
    rows = rows[rows["kind"] == "over several folds"]
    assert set(rows["verdict"]) == {"problem"}
    assert len(rows) == 3  # against each of the other forms
    assert rows["reason"].str.contains("turned is im0 in another form, turned by 90 degrees").any()


def test_forms_lie_apart_where_too_few_groups_would_be_left(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    data = tmp_path / "data"
    prepare(PrepareConfig(source, out=data))
    make_folds(FoldsConfig(data=data, k=8))
    caplog.clear()
    make_folds(FoldsConfig(data=data, k=9, overwrite=True))
    assert "Kept together they leave 8 groups for 9 folds" in caplog.text
    assert Dataset.open(data).folds()[["im0", *FORMS]].nunique() > 1
    with pytest.raises(
        FoldError, match=r"found 8 .*forms of one picture count once, see near_copy_of"
    ):
        make_folds(FoldsConfig(data=data, k=12, overwrite=True))


def test_images_that_differ_get_no_column(tmp_path: Path, tiny_data: Path):
    assert NEAR_COPY not in Dataset.open(tiny_data).images
