"""How large the explorer of a run of many images is, how long it takes to write, and how soon it opens.

    python benchmarks/report_page.py --images 600

Twelve synthetic images have out-of-fold predictions that are the true cells with errors planted: some are
missing, invented, merged, split, and a quarter too small. Their files are made as those of a run of that many
images, and copied until there are so many. The
page holds plotly's script, as a report does, and is opened in a real, headless Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
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
from cellflow.engine.pages import explorer
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
    bases = list(synthetic_dataset(images, shape=half, seed=3))
    rng, rows = np.random.default_rng(0), []
    for index, base in enumerate(bases):
        large = [
            cv2.resize(part, shape[::-1], interpolation=how)
            for part, how in ((base.image, cv2.INTER_CUBIC), (base.labels, cv2.INTER_NEAREST))
        ]
        pixels = large[0] + rng.normal(0, 2, shape)
        name = f"{base.cell_type}_{index:04d}"
        picture = np.clip(pixels, 0, 255).astype(np.uint8)
        imsave(folder / "images" / f"{name}.png", picture, check_contrast=False)
        write_labels(folder / "masks" / f"{name}.tif", large[1])
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


def opened(path: Path, times: int = 5) -> tuple[list[float], float]:
    """Seconds from the address to an explorer that shows its first image; least processor time of the page."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
    seconds, processor = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(times):
            page = browser.new_page()
            page.set_default_timeout(300_000)
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable")
            begin = time.perf_counter()
            page.goto(path.resolve().as_uri())
            page.wait_for_selector("[data-sums] table", state="attached")
            seconds.append(time.perf_counter() - begin)
            metrics = session.send("Performance.getMetrics")["metrics"]
            processor += [item["value"] for item in metrics if item["name"] == "ProcessTime"]
            page.close()
        browser.close()
    return seconds, min(processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--shape", type=int, nargs=2, default=(520, 704))
    parser.add_argument("--keep", type=Path, help="folder to keep all in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        measure(folder, options.images, tuple(options.shape))


def many(facts: ExplorerFacts, folder: Path, images: int) -> ExplorerFacts:
    """The same images again and again, each with files of its own."""
    items = list(facts.images)
    for number in range(len(items) + 1, images + 1):
        base = facts.images[(number - 1) % len(facts.images)]
        for path in folder.glob(f"{base.number}[._]*"):
            copy = folder / path.name.replace(str(base.number), str(number), 1)
            shutil.copyfile(path, copy)
        script = folder / f"{number}.js"
        text = script.read_text().replace(f'"number":{base.number},', f'"number":{number},', 1)
        script.write_text(text)
        items.append(replace(base, id=f"{base.id}_{number}", number=number))
    return replace(facts, images=items)


def measure(folder: Path, images: int, shape: tuple[int, int]) -> None:
    distinct = min(BASES, images)
    table = source(folder / "source", distinct, shape) / "table.csv"
    data = folder / "data"
    cellflow.prepare(PrepareConfig(source=table.parent, out=data, table=table))
    cellflow.make_folds(FoldsConfig(data=data, k=2))
    run = run_of(data, folder / "runs" / "planted")
    page, dataset = run.path / "explorer.html", Dataset.open(data)
    explorer_facts(run, dataset)  # compiles
    made = explorer._source
    explorer._source = lambda *given: made(*given[:3], images)  # files as small as those of so many
    begin, used = time.perf_counter(), time.process_time()
    facts = explorer_facts(run, dataset)
    seconds = time.perf_counter() - begin, time.process_time() - used
    begin = time.perf_counter()
    explorer_facts(run, dataset)
    again = time.perf_counter() - begin
    write_explorer_page(page, many(facts, run.report_files, images), charts=True)
    beside = sum(path.stat().st_size for path in run.report_files.iterdir())
    cells = sum(item.scores["n_true"] or 0 for item in facts.images) / distinct
    times, processor = opened(page)
    print(
        f"{images} images of {shape[0]} x {shape[1]}, {cells:.0f} true cells each; {distinct} are different"
    )
    print(
        f"written   {seconds[0] / distinct:.2f} s an image, {seconds[1] / distinct:.2f} s of one processor"
    )
    print(f"again     {again / distinct:.3f} s an image that did not change")
    print(f"page      {page.stat().st_size / 1e6:.1f} MB with plotly")
    print(f"beside    {beside / 1e6:.1f} MB")
    print(f"opens in  {min(times):.2f} to {max(times):.2f} s, {processor:.2f} s of one processor")


if __name__ == "__main__":
    main()
