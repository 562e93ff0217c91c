"""Every block of the README, and of the pages that a user types from, is run, with trainings of seconds.

The tutorials have tests of their own, and what measures something is in `benchmarks/`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from fake_kaggle import FakeKaggle
from narrow import NarrowUNet
from page_blocks import ROOT, Reader, run_page
from test_tutorials import CPU, SECONDS, SHORTER, SIDES, TYPES, made, save

import cellflow
from cellflow import FoldsConfig, PrepareConfig, cli, rle_encode
from cellflow.io.audit_list import read_audit_list, write_audit_list
from cellflow.io.formats.ome_zarr import write_ome_zarr
from cellflow.io.images import write_labels
from cellflow.io.pixel_size import PixelSize
from cellflow.nn.checkpoint import save_model_file

pytestmark = pytest.mark.slow

NEW = ("new_images", "images", "unlabelled", "day1", "never_seen/images")
OTHERS = (
    "cellflow demo",
    "cellflow predict slide.svs",
    "cellflow train --fold all --chan Cyto",
    "cellflow pseudo RUN",
    *("make", "source", "pip", "docker", "napari", "dask", "export", "python"),
    "CUDA_VISIBLE_DEVICES",
)
"""What pages name and has tests elsewhere, or is not ours."""


SEASON = """
defaults: {data: cellflow-data}
experiments:
  - name: one
  - {name: two, optimizer: adamw}
"""


def write_sources(here: Path) -> None:
    """What a reader brings: annotated images in two layouts, others in folders, a plate, a slide, models."""
    runs, wells = [], []
    for item in made(12, seed=5):
        save(here / "home" / "sartorius" / "train", item)
        save(here / "my_images" / "images", item)
        save(here / "microscope" / "images", item)
        for folder in ("my_images", "microscope"):
            write_labels(here / folder / "masks" / f"{item.id}.tif", item.labels)
        facts = {"id": item.id, "cell_type": TYPES[item.cell_type]}
        wells.append({**facts, "well": item.group})
        size = {"width": SIDES[1], "height": SIDES[0], "sample_id": item.group}
        for label in range(1, item.labels.max() + 1):
            runs.append({**facts, **size, "annotation": rle_encode(item.labels == label)})
    pd.DataFrame(runs).to_csv(here / "home" / "sartorius" / "train.csv", index=False)
    for name in ("table.csv", "my_images/table.csv"):
        pd.DataFrame(wells).to_csv(here / name, index=False)
    for item in made(3, seed=6):
        for folder in (*NEW, "home/sartorius/test"):
            save(here / folder, item)
        for folder in ("truth_masks", "never_seen/masks"):
            write_labels(here / folder / f"{item.id}.tif", item.labels)
    (here / "day2").mkdir()
    tifffile.imwrite(here / "day2" / "other.tif", item.image)
    tifffile.imwrite(here / "plate.tif", item.image)
    write_ome_zarr(
        here / "slide.ome.zarr", item.image, item.labels, pixel_size=PixelSize(0.65, 0.65)
    )
    corners = [[0, 0], [80, 0], [80, 80], [0, 80], [0, 0]]
    region = {"type": "Polygon", "coordinates": [corners]}
    feature = {"type": "Feature", "geometry": region, "properties": {}}
    (here / "tissue.geojson").write_text(json.dumps(feature))
    (here / "models").mkdir()
    save_model_file(here / "models" / "cyto3", NarrowUNet.build(seed=0), {})
    shutil.copyfile(here / "new_images" / f"{item.id}.png", here / "image.png")
    shutil.copyfile(here / "plate.tif", here / "nice.tif")
    (here / "season.yaml").write_text(SEASON)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("pages") / "here"
    here.mkdir()
    write_sources(here)
    return here


def typed(*words: str) -> None:
    """Run a command of cellflow, which must end well."""
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert not end.value.code


@pytest.fixture(scope="module")
def runs(sources: Path) -> Path:
    """Folder of `cellflow-data` and three runs of it, calibrated, which stand under the names that a page wants."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sources.parent)
        data = Path("cellflow-data")
        table = sources / "my_images" / "table.csv"
        cellflow.prepare(PrepareConfig(source=sources / "my_images", out=data, table=table))
        cellflow.make_folds(FoldsConfig(data=data, k=2, group="well"))
        for seed in "012":
            typed("train", "--name", seed, "--seed", seed, "--adam", *SECONDS)
            typed("oof", seed, *SHORTER["oof"])
            typed("calibrate", seed, *SHORTER["calibrate"])
    return sources.parent


@pytest.fixture
def kaggle() -> Iterator[FakeKaggle]:
    with FakeKaggle() as server:
        yield server


@dataclass(frozen=True)
class Page:
    """A page, what is there when it is opened, and how it is read."""

    name: str
    runs: tuple[str, ...] = ()  # of seeds 0, 1 and 2
    data: tuple[str, ...] = ()
    reader: Reader | None = None
    least: int = 1


def marked_list() -> None:
    """The list that the page of an audit gives a person who finds all annotations good."""
    (found,) = Path("runs").glob("*/audit.csv")
    rows = read_audit_list(found)
    assert rows
    write_audit_list(Path("audit-list.csv"), [replace(row, verdict="ok") for row in rows])


def without_folds() -> None:
    """Another way to split is for another dataset."""
    for path in Path("cellflow-data").glob("folds.*"):
        path.unlink()


def trained_and_predicted() -> None:
    """Both runs whose scores are compared."""
    for name in ("mine", "fine"):
        typed("oof", name, *SHORTER["oof"])


def all_folds_of_adam() -> None:
    if Path("runs/adam/oof").is_dir():
        return
    typed("train", "--config", "runs/adam/train.yaml", "--fold", "all")
    typed("oof", "adam", *SHORTER["oof"])


def predictions_of_two() -> None:
    for model, name in (("a", "mine"), ("b", "theirs")):
        typed("predict", "my_data", "--model", model, "--name", name, *CPU)


def values() -> dict[str, Any]:
    """What the README's Python has at hand."""
    (item,) = made(1, seed=7)
    cellprob = np.where(item.labels > 0, 4.0, -4.0).astype(np.float32)
    flow = cellflow.FLOW_SCALE * cellflow.labels_to_flows(item.labels)
    return {
        "labels": item.labels, "truth": item.labels, "prediction": item.labels, "image": item.image,
        "cellprob": cellprob, "members": [(flow, cellprob), (flow, cellprob)],
    }  # fmt: skip


MORE = SHORTER | {
    "train": SECONDS,
    "distil": ("--n_epochs", "3"),
    "queue": ("--dry_run",),
    "publish": ("--wheels", "none"),
    "audit": ("--least", "0"),
    "pseudo": (*CPU, "--min_confidence", "0"),
    "suggest": CPU,
}
BETWEEN = {
    "prepare my_data --audit": marked_list,
    "prepare cellflow-data --audit": marked_list,
    "folds --k 5": without_folds,
    "score runs/mine": trained_and_predicted,
    "compare baseline adam": all_folds_of_adam,
    "score predictions/mine --truth my_data": predictions_of_two,
}
READ = Reader(MORE, {"local:4": "local:1", "5": "3"}, before=BETWEEN, passed_over=OTHERS)
PAGES = [
    Page("README", runs=("baseline", "adam"), reader=replace(READ, names=values()), least=25),
    Page("docs/index"),
    Page("docs/coming-from", reader=replace(READ, words={"FOLDER": "my_images"})),
    Page("docs/honest-cv", runs=("baseline", "adam", "mine"), data=("cellflow-data",)),
    Page("docs/experiments", runs=("baseline",), data=("cellflow-data",)),
    Page("docs/prediction", runs=("a", "b"), data=("my_data",)),
    Page("docs/training", runs=(), data=("cellflow-data",)),
    Page("docs/slides", runs=("exp",)),
    Page("docs/models", runs=("mine", "other", "exp")),
    Page("docs/more-images", runs=("other", "third"), data=("cellflow-data",)),
    Page("docs/audit", runs=("exp",), data=("cellflow-data",)),
    Page("docs/pages", runs=("exp",)),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(
    page: Page,
    runs: Path,
    sources: Path,
    kaggle: FakeKaggle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    shutil.copytree(sources, here)
    for seed, name in enumerate(page.runs):
        shutil.copytree(runs / "runs" / str(seed), here / "runs" / name)
    for name in page.data:
        shutil.copytree(runs / "cellflow-data", here / name)
    kaggle.point_client(monkeypatch, here / "home")
    monkeypatch.setenv("CELLPOSE_LOCAL_MODELS_PATH", str(here / "models"))
    monkeypatch.chdir(here)
    assert run_page(ROOT / f"{page.name}.md", capsys, page.reader or READ) >= page.least
