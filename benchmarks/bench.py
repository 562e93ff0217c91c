"""Speed and memory of the numeric core against cellpose, both in this process, in turns.

    make bench            generated fields and, where ../shared has them, flows of a real network
    python benchmarks/bench.py --quick      generated 520 x 704 only

Every row is measured as pairs: one call of cellpose, then several of ours, again and again, so that
whatever else the machine does falls on both. The ratio is the median over the pairs, the spread their
lowest and highest. "cpu" is the same ratio in seconds of processor time, which a busy machine
disturbs less; ours then counts all its threads, so it shows the gain without that from threads.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable

import inputs
import numpy as np

warnings.simplefilter("ignore")
Call = Callable[[], object]


def timed(call: Call, times: int) -> tuple[float, float]:
    """Seconds on the wall and of the processor for one call, the median of some."""
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def compare(name: str, theirs: Call, ours: Call, *, pairs: int, inner: int = 5) -> None:
    theirs(), ours()
    slow, fast = [], []
    for _ in range(pairs):
        slow.append(timed(theirs, 1))
        fast.append(timed(ours, inner))
    ratios = [a[0] / b[0] for a, b in zip(slow, fast, strict=True)]
    cpu = statistics.median(a[1] / b[1] for a, b in zip(slow, fast, strict=True))
    print(
        f"| {name} | {statistics.median(a[0] for a in slow) * 1e3:.0f} ms"
        f" | {statistics.median(b[0] for b in fast) * 1e3:.1f} ms"
        f" | {statistics.median(ratios):.0f} x | {min(ratios):.0f} to {max(ratios):.0f} x"
        f" | {cpu:.0f} x |",
        flush=True,
    )


def peak(call: Call) -> int:
    """Most bytes that NumPy holds at once during a call, results included."""
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def bench_field(field: inputs.Field, pairs: int) -> None:
    import torch
    from cellpose import dynamics, metrics

    from cellflow.numeric.dynamics import flows_to_labels
    from cellflow.numeric.score import COMPETITION_THRESHOLDS, competition_score
    from cellflow.numeric.targets import labels_to_flows

    flow, cellprob, labels = field.flow, field.cellprob, field.labels
    found = flows_to_labels(flow, cellprob)
    thresholds = list(COMPETITION_THRESHOLDS)

    def theirs() -> object:
        return dynamics.resize_and_compute_masks(flow, cellprob, niter=200)

    def their_targets() -> object:
        return dynamics.masks_to_flows(labels, device=torch.device("cpu"))

    name = field.name
    compare(f"basin, {name}", theirs, lambda: flows_to_labels(flow, cellprob), pairs=pairs)
    compare(
        f"trace, {name}",
        theirs,
        lambda: flows_to_labels(flow, cellprob, method="trace"),
        pairs=max(1, pairs // 2),
        inner=3,
    )
    compare(f"targets, {name}", their_targets, lambda: labels_to_flows(labels), pairs=pairs)
    compare(
        f"score, {name}",
        lambda: metrics.average_precision(labels, found, threshold=thresholds),
        lambda: competition_score(labels, found),
        pairs=pairs,
    )
    most = peak(lambda: flows_to_labels(flow, cellprob))
    print(f"\npeak of basin: {most / (flow.nbytes + cellprob.nbytes):.2f} x the input\n")


def bench_sweep(field: inputs.Field) -> None:
    from cellflow.numeric.dynamics import flows_to_labels
    from cellflow.numeric.sweep import sweep

    grids = {
        "cellprob_thresholds": np.linspace(-3, 3, 20),
        "flow_thresholds": np.linspace(0.05, 1, 20),
        "min_sizes": np.linspace(0, 200, 20).astype(int).tolist(),
    }
    sweep(field.flow, field.cellprob, field.labels, **grids)
    walls, cpus = [], []
    for _ in range(7):
        call = timed(lambda: flows_to_labels(field.flow, field.cellprob), 15)
        whole = timed(lambda: sweep(field.flow, field.cellprob, field.labels, **grids), 3)
        walls.append(whole[0] / call[0])
        cpus.append(whole[1] / call[1])
    print(
        f"sweep of 20 x 20 x 20, {field.name}: {statistics.median(walls):.1f} single calls"
        f" ({min(walls):.1f} to {max(walls):.1f}), in processor time {statistics.median(cpus):.1f}\n"
    )


def quality(fields: list[inputs.Field]) -> None:
    from cellflow.numeric.dynamics import flows_to_labels
    from cellflow.numeric.score import average_precision, competition_score

    trace = [flows_to_labels(f.flow, f.cellprob, method="trace") for f in fields]
    basin = [flows_to_labels(f.flow, f.cellprob) for f in fields]
    truth = [f.labels for f in fields]
    gap = competition_score(truth, basin).mean - competition_score(truth, trace).mean
    print(
        f"{len(fields)} real images: basin against trace AP at IoU 0.95"
        f" {average_precision(trace, basin, [0.95]).mean:.4f}, score against truth {gap:+.4f}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small generated field only")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--real", type=int, default=3, help="real images")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{platform.processor() or platform.machine()}, {cores} cores, load {load:.1f}\n")
    header = "| what | cellpose | cellflow | ratio | spread | cpu |\n|---|---|---|---|---|---|"
    small = inputs.generated((520, 704), 300)
    print(header)
    bench_field(small, options.pairs)
    bench_sweep(small)
    if options.quick:
        return
    print(header)
    bench_field(inputs.generated((2048, 2048), 1800), max(1, options.pairs - 2))
    reason = inputs.have_real()
    if reason:
        print(f"no real flows: {reason}")
        return
    real = inputs.real(options.real)
    print(header)
    bench_field(real[0], max(1, options.pairs - 2))
    quality(real)


if __name__ == "__main__":
    main()
