"""Call every kernel on ordinary and on awkward input and print one digest of all results.

Run as a script by test_jit.py: under other thread counts, in forked and spawned workers, under Dask,
with array bounds checked, without a cache folder. The digest must be the same everywhere.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cellflow.numeric.dynamics import flows_to_labels
from cellflow.numeric.labels import instances_from_labels, labels_from_instances
from cellflow.numeric.matching import match
from cellflow.numeric.metrics.coco import coco_matches
from cellflow.numeric.resize import resize_linear
from cellflow.numeric.rle import instances_from_rles, rles_from_labels
from cellflow.numeric.score import competition_score
from cellflow.numeric.sweep import sweep
from cellflow.numeric.targets import labels_to_flows


def discs(shape, pitch, radius):
    labels = np.zeros(shape, dtype=np.int32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    number = 0
    for cy in range(0, shape[0] + pitch, pitch):
        for cx in range(0, shape[1] + pitch, pitch):
            number += 1
            labels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    return labels


def cases():
    ring = discs((60, 60), 60, 0)
    y, x = np.mgrid[:60, :60]
    distance = np.hypot(y - 30, x - 30)
    ring[(distance < 25) & (distance > 12)] = 1
    ring[distance < 6] = 2
    parts = np.zeros((150, 150), dtype=np.int32)
    parts[:3, :3] = parts[-3:, -3:] = parts[70:80, 70:80] = 1
    full = np.ones((33, 47), dtype=np.int32)
    pixels = np.arange(1, 257, dtype=np.int32).reshape(16, 16)
    yield from (discs((150, 170), 24, 11), discs((64, 1200), 9, 5), ring, parts, full, pixels)
    for shape in ((1, 1), (1, 50), (50, 1), (2, 2), (0, 5), (5, 0)):
        yield np.zeros(shape, dtype=np.int32)
        yield np.ones(shape, dtype=np.int32)


def digest() -> str:
    total = hashlib.sha256()

    def add(*arrays) -> None:
        for array in arrays:
            total.update(np.ascontiguousarray(array).tobytes())

    rng = np.random.default_rng(0)
    for labels in cases():
        unit = labels_to_flows(labels)
        noise = rng.normal(0, 0.4, (3, *labels.shape)).astype(np.float32)
        flow, cellprob = 5 * unit + noise[:2], np.where(labels > 0, 4, -4) + noise[2] * 4
        for method, niter in (("basin", None), ("trace", 61), ("basin", 3), ("trace", 0)):
            found = flows_to_labels(
                flow, cellprob, method=method, niter=niter, min_size=3, check_scale=False
            )
            add(found)
        if labels.size:
            add(*(resize_linear(noise[:n], (97, 70)) for n in (2, 3)))
            add(resize_linear(np.tile(noise[:2], (2, 2)), labels.shape))  # to the half
        wild = flows_to_labels(noise[:2] * 50, noise[2], min_size=0, flow_threshold=5)
        cells = instances_from_labels(labels)
        add(unit, wild, *match(cells, found))
        for order in ("C", "F"):
            again = instances_from_rles(rles_from_labels(labels, order), labels.shape, order)
            add(labels_from_instances(again))
        counts = sweep(
            flow, cellprob, labels, cellprob_thresholds=[-1, 1], flow_thresholds=[0, 0.4],
            min_sizes=[0, 20],
        )  # fmt: skip
        add(counts.tp, counts.fp, counts.fn, competition_score(labels, found).tp)
        add(coco_matches(match(cells, found)).matched)
    return total.hexdigest()


def under_dask(scheduler: str) -> set[str]:
    import dask

    if scheduler != "cluster":
        jobs = [dask.delayed(digest, pure=False)() for _ in range(2)]
        return set(dask.compute(*jobs, scheduler=scheduler, num_workers=2))
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        return set(client.gather([client.submit(digest, pure=False) for _ in range(4)]))


def main(mode: str) -> None:
    if mode == "plain":
        found = {digest()}
    elif mode == "threads":
        with ThreadPoolExecutor(4) as pool:
            found = {job.result() for job in [pool.submit(digest) for _ in range(4)]}
    elif mode.startswith("dask"):
        found = under_dask(mode.removeprefix("dask-"))
    else:
        if mode == "fork":
            digest()  # the parent has its threads and its compiled kernels
        with multiprocessing.get_context(mode).Pool(2) as pool:
            found = set(pool.starmap(digest, [()] * 2))
    sys.stdout.write("\n".join(found))


if __name__ == "__main__":
    main(sys.argv[1])
