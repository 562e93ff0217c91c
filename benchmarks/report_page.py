"""How large the explorer of a run of many images is, how long it takes to write, and how soon it opens.

    python benchmarks/report_page.py --images 600

A few synthetic images are rolled and get new noise, so that no two are alike; their out-of-fold predictions are
the true cells with errors planted: some are missing, invented, merged, split, and a quarter too small. The
page holds plotly's script, as a report does, and is opened in a real, headless Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.io import imsave

import cellflow
from cellflow import FoldsConfig, MaskConfig, ModelConfig, PrepareConfig
from cellflow.engine.pages.explorer import explorer_facts
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.images import write_labels
from cellflow.numeric.labels import compact
from cellflow.numeric.score import competition_score
from cellflow.numeric.targets import labels_to_flows
from cellflow.report.pages import page as pages
from cellflow.report.pages.explorer import EXPLORER_ASSETS, ExplorerFacts, explorer_values
from cellflow.storage.run_folder import RunFolder
from cellflow.synthetic import synthetic_dataset

Labels = NDArray[np.int32]
BASES = 12
PAGE = """
{% extends "base.html" %}
{% from "explorer.html" import explorer_section with context %}
{% block main %}{{ explorer_section(explorer, explorer_data, poor_below) }}{% endblock %}
"""


def source(folder: Path, images: int, shape: tuple[int, int]) -> Path:
    """Images with masks and a table, as a person brings them."""
    (folder / "images").mkdir(parents=True)
    half = -(-shape[0] // 2), -(-shape[1] // 2)  # cells of twice their usual size
    bases = list(synthetic_dataset(min(BASES, images), shape=half, seed=3))
    rng, rows = np.random.default_rng(0), []
    for index in range(images):
        base = bases[index % len(bases)]
        shift = rng.integers(0, shape)
        large = [
            cv2.resize(part, shape[::-1], interpolation=how)
            for part, how in ((base.image, cv2.INTER_CUBIC), (base.labels, cv2.INTER_NEAREST))
        ]
        pixels = np.roll(large[0], shift, (0, 1)) + rng.normal(0, 2, shape)
        name = f"{base.cell_type}_{index:04d}"
        picture = np.clip(pixels, 0, 255).astype(np.uint8)
        imsave(folder / "images" / f"{name}.png", picture, check_contrast=False)
        write_labels(folder / "masks" / f"{name}.tif", np.roll(large[1], shift, (0, 1)))
        rows.append({"id": name, "cell_type": base.cell_type, "group": f"well_{index // 2}"})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder


def planted(labels: Labels, rng: np.random.Generator) -> Labels:
    """A prediction with errors of all kinds."""
    wrong = labels.copy()
    eroded = cv2.erode(labels.astype(np.float32), np.ones((3, 3))) == labels
    wrong[(labels % 4 == 0) & ~eroded] = 0  # poor outlines
    for number in np.unique(labels[labels > 0]):
        chance, (y, x) = rng.random(), np.nonzero(wrong == number)
        if chance < 0.06 or not len(y):
            wrong[y, x] = 0  # missed
        elif chance < 0.14:
            half = x > np.median(x)
            wrong[y[half], x[half]] = wrong.max() + 1  # split
        elif chance < 0.24:
            around = cv2.dilate((labels == number).astype(np.uint8), np.ones((9, 9))) > 0
            others = np.setdiff1d(wrong[around], [0, number])
            if len(others):
                wrong[wrong == others[0]] = number  # merged
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    for _ in range(1 + labels.max() // 25):  # false
        centre, radius = rng.integers(0, labels.shape), rng.integers(5, 11)
        disc = (np.hypot(y - centre[0], x - centre[1]) < radius) & (labels == 0) & (wrong == 0)
        wrong[disc] = wrong.max() + 1
    return compact(wrong)[0]


def run_of(data: Path, folder: Path) -> RunFolder:
    """A run of this dataset with out-of-fold predictions, none of which a network has made."""
    dataset = Dataset.open(data)
    run, folds = RunFolder(folder), dataset.folds()
    (run.oof / "masks").mkdir(parents=True)
    shutil.copyfile(dataset.folds_path, run.folds)
    config = {"mask": asdict(MaskConfig()), "model": asdict(ModelConfig())}
    record = {
        "data": str(data.resolve()),
        "data_hash": dataset.hash,
        "folds_hash": dataset.folds_hash(),
    }
    run.write_record(record | {"folds": sorted({int(fold) for fold in folds}), "config": config})
    pd.DataFrame(_predict(dataset, run, folds)).to_csv(run.scores, index=False)
    return run


def _predict(dataset: Dataset, run: RunFolder, folds: pd.Series[int]) -> Iterator[dict[str, Any]]:
    rng, store = np.random.default_rng(1), FlowStore(run.flows, mode="w")
    for name in dataset.ids:
        truth = dataset.instances(name)
        labels = planted(dataset.labels(name), rng)
        write_labels(run.oof / "masks" / f"{name}.tif", labels)
        flow = 5 * labels_to_flows(labels) + rng.normal(0, 0.2, (2, *labels.shape))
        logit = np.where(labels > 0, 4.0, -4.0) + rng.normal(0, 1, labels.shape)
        smooth = [cv2.GaussianBlur(part, (0, 0), 1.5) for part in (*flow, logit)]
        store.write(name, np.stack(smooth[:2]), smooth[2], model_hash="none", diameter=20.0)
        score = competition_score(truth, labels)
        counts = dict(
            zip(("n_found", "n_missed", "n_false"), (score.tp, score.fn, score.fp), strict=True)
        )
        yield {
            "id": name, "fold": int(folds[name]), "cell_type": dataset.images.at[name, "cell_type"],
            "score": float(score.mean), "n_true": len(truth), "n_predicted": int(labels.max()),
            **{key: int(value[0, 0]) for key, value in counts.items()},
        }  # fmt: skip


def write_explorer_page(path: Path, facts: ExplorerFacts, *, charts: bool = False) -> None:
    """A page that holds the explorer only."""
    environment = pages._environment()
    loader = environment.loader
    environment.loader = jinja2.ChoiceLoader([jinja2.DictLoader({"only.html": PAGE}), loader])
    try:
        values = explorer_values(facts)
        pages.write_page(
            path, "only.html", values, title="Explorer", assets=EXPLORER_ASSETS, charts=charts
        )
    finally:
        environment.loader = loader


def opened(path: Path, times: int = 5) -> Sequence[float]:
    """Seconds from the address to an explorer that shows its first image."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(times):
            page = browser.new_page()
            begin = time.perf_counter()
            page.goto(path.resolve().as_uri())
            page.wait_for_selector("[data-explorer][data-ready]", state="attached")
            page.wait_for_function("document.querySelector('[data-sums] table')")
            seconds.append(time.perf_counter() - begin)
            page.close()
        browser.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--shape", type=int, nargs=2, default=(520, 704))
    parser.add_argument("--keep", type=Path, help="folder to keep all in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        measure(folder, options.images, tuple(options.shape))


def measure(folder: Path, images: int, shape: tuple[int, int]) -> None:
    table = source(folder / "source", images, shape) / "table.csv"
    data = folder / "data"
    cellflow.prepare(PrepareConfig(source=table.parent, out=data, table=table))
    cellflow.make_folds(FoldsConfig(data=data, k=5))
    run = run_of(data, folder / "runs" / "planted")
    page, seconds = run.path / "explorer.html", []
    for _ in range(2):
        begin = time.perf_counter()
        facts = explorer_facts(run, Dataset.open(data))
        write_explorer_page(page, facts, charts=True)
        seconds.append(time.perf_counter() - begin)
    beside = sum(path.stat().st_size for path in run.report_files.iterdir())
    cells = sum(item.scores["n_true"] or 0 for item in facts.images) / images
    print(f"{images} images of {shape[0]} x {shape[1]}, {cells:.0f} true cells each")
    print(
        f"written in    {seconds[0]:.1f} s, {seconds[0] / images:.3f} s an image; again {seconds[1]:.1f} s"
    )
    print(f"page          {page.stat().st_size / 1e6:.1f} MB with plotly")
    print(f"beside it     {beside / 1e6:.1f} MB")
    print(f"opens in      {max(opened(page)):.2f} s at most of 5 times")


if __name__ == "__main__":
    main()
