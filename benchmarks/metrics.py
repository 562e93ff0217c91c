"""How far metrics agree with the libraries and definitions they are from, and how long they take.

    python benchmarks/metrics.py ../shared/data

Predictions are the truth of real images, moved, with cells lost, merged, cut and crumbs added.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from cellflow import segmentation_metrics
from cellflow.io.images import read_labels
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.matching import match
from cellflow.numeric.metrics.counts import count_cells
from cellflow.numeric.metrics.table import METRICS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import metric_oracles as others

MANY_CELLS = 60
"""Up to so many cells an image is given to the slow twins, which draw every cell as a mask."""
Pair = tuple[Any, Any]


def read_pairs(data: Path) -> list[Pair]:
    """Truth and prediction of real images."""
    files = sorted((data / "usiigaci" / "masks").iterdir())
    files += sorted((data / "dsb2018" / "masks").iterdir())[::4]
    return [(labels, others.spoiled(labels, n)) for n, labels in enumerate(map(read_labels, files))]


def slow(pair: Pair) -> dict[str, float]:
    """Pairs as StarDist, AJI and AJI+ from their definitions."""
    truths, predictions = map(others.masks_of, pair)
    shared, union = others.tables(truths, predictions)
    n, m = shared.shape
    found = {
        "aji": others.aji(truths, predictions, shared, union),
        "aji_plus": others.aji_plus(truths, predictions, shared, union),
    }
    for level in (50, 75):
        pairs = others.stardist(shared, union, Fraction(level, 100))[0]
        found |= {f"precision_{level}": pairs / m, f"recall_{level}": pairs / n}
        found[f"f1_{level}"] = 2 * pairs / (n + m)
    return found


def coco(pair: Pair) -> dict[str, float]:
    precision = others.coco([others.masks_of(pair[0])], [others.masks_of(pair[1])])
    return {"coco_ap": precision.mean(), "coco_ap50": precision[0], "coco_ap75": precision[5]}


def cell_tracking(pair: Pair) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return others.cell_tracking([pair], Path(folder))


ORACLES: dict[str, Callable[[Pair], dict[str, float]]] = {
    "pycocotools": coco,
    "panoptica": lambda pair: others.panoptica(*pair),
    "py-ctcmetrics": cell_tracking,
    "its definition, cell by cell": slow,
}


def differences(pairs: list[Pair], name: str) -> Iterator[tuple[str, int, float]]:
    """Largest difference to an oracle over all images, metric by metric."""
    found = defaultdict(list)
    for pair in pairs:
        if name.startswith("its") and max(len(np.unique(side)) for side in pair) > MANY_CELLS:
            continue
        own = segmentation_metrics(*pair).mean
        for metric, value in ORACLES[name](pair).items():
            found[metric].append(abs(own[metric] - value))
    for metric, values in found.items():
        yield metric, len(values), max(values)


def time_metrics() -> None:
    """Milliseconds for 2,025 cells, from a label map and from runs."""
    labels = np.kron(np.arange(1, 2026).reshape(45, 45), np.ones((22, 22), int))
    labels[::22] = labels[:, ::22] = 0
    prediction = others.spoiled(labels, 0)
    for what, truth in (("label map", labels), ("runs", instances_from_labels(labels))):
        best = [np.inf, np.inf]
        for _ in range(6):
            started = time.perf_counter()
            match(truth, prediction)
            matched = time.perf_counter()
            counts = count_cells(truth, prediction)
            for metric in METRICS.values():
                metric.value(counts)
            best[0] = min(best[0], matched - started)
            best[1] = min(best[1], time.perf_counter() - matched)
        print(
            f"2,025 cells, truth as {what}: match {1000 * best[0]:.0f} ms, the same with all "
            f"{len(METRICS)} metrics {1000 * best[1]:.0f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    pairs = read_pairs(parser.parse_args().data)
    cells = sum(len(np.unique(truth)) - 1 for truth, _ in pairs)
    print(f"{len(pairs)} images, {cells} cells")
    for name in ORACLES:
        try:
            rows = list(differences(pairs, name))
        except ImportError as error:
            print(f"{name}: {error}")
            continue
        for metric, images, largest in rows:
            print(f"{metric:<14}{name:<30}{images:>4} images  largest difference {largest:.1e}")
    time_metrics()


if __name__ == "__main__":
    main()
