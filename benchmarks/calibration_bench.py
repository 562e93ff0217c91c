"""Time and memory of `cellflow calibrate`'s search on many images.

    python benchmarks/calibration_bench.py                          606 images of 520 x 704, 8,000 settings each
    python benchmarks/calibration_bench.py --images 50 --extras

Images are generated: touching ellipses that cover half of the image, with noisy flows, stored in a zarr
folder as `cellflow oof` stores them. Timed are the search over the grid, the fit of thresholds for three
cell types, and cross-fitting over five folds, as `calibrate` does them.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from inputs import generated

from cellflow.config import GridConfig, MaskConfig
from cellflow.engine.validation.threshold_scores import CalibrationImages
from cellflow.engine.validation.threshold_search import ThresholdSearch
from cellflow.io.flow_store import FlowStore
from cellflow.numeric._jit import thread_count
from cellflow.numeric.labels import instances_from_labels

SHAPE, CELLS, DIAMETER = (520, 704), 300, 30.0


def stored_images(folder: Path, count: int, distinct: int) -> CalibrationImages:
    """Images with flows on disk; `distinct` of them are generated, the others repeat their pixels."""
    store = FlowStore(folder / "flows.zarr", mode="w")
    made = [generated(SHAPE, CELLS, seed) for seed in range(distinct)]
    truth = {}
    for index in range(count):
        field = made[index % distinct]
        store.write(f"im{index:05d}", field.flow, field.cellprob)
        truth[f"im{index:05d}"] = instances_from_labels(field.labels)
    ids = tuple(sorted(truth))
    types = tuple("abc"[index % 3] for index in range(count))
    folds = tuple(index % 5 for index in range(count))

    def flows(name: str):
        return *store.read(name), DIAMETER

    return CalibrationImages(ids, types, folds, ids, types, truth.__getitem__, flows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=606)
    parser.add_argument("--extras", action="store_true", help="with the search for extras")
    options = parser.parse_args()
    grid = GridConfig(
        start_threshold=-4.0,
        threshold_step=0.4,
        n_thresholds=20,
        flow_thresholds=(*np.round(np.arange(0.1, 2.0, 0.1), 2).tolist(), 0.0),
        min_sizes=tuple(range(15, 415, 20)),
        extras=options.extras,
    )
    with tempfile.TemporaryDirectory() as folder:
        images = stored_images(Path(folder), options.images, distinct=min(20, options.images))
        search = ThresholdSearch(images, grid, MaskConfig())
        started = time.perf_counter()
        settings = search.scores.on_grid[0].size
        searched = time.perf_counter() - started
        search.fit()
        search.cross_fit()
        total = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{options.images} images of {SHAPE[0]} x {SHAPE[1]}, {settings} settings, "
        f"{thread_count()} threads: search {searched:.0f} s, with fits and cross-fitting {total:.0f} s, "
        f"peak memory {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main()
