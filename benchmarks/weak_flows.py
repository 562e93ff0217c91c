"""Labels that one way of following flows makes where the other makes none, on flows that lead nowhere.

    python benchmarks/weak_flows.py [--images 40] [--size 320]      generated flows
    python benchmarks/weak_flows.py --real 22                       ../shared's U-Net on changed images
    python benchmarks/weak_flows.py --flows FILE.npz [FILE.npz ...]  kept flows (arrays flow and cellprob)

`method="basin"` takes a short cut; `method="trace"` takes every step, as Cellpose does. A label is made of
nothing if the other method labels less than a tenth of its pixels, at the default thresholds. Where the other
one found the same candidate (at an IoU of one half or more) and only the flow check saw it differently, at
0.39 and 0.41 say, it is counted as "at the threshold" instead. "Lost" is the same from trace's side.
"""

from __future__ import annotations

import argparse
import collections
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inputs
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellflow.numeric.dynamics import flows_to_labels
from cellflow.numeric.score import average_precision

Floats = NDArray[np.float64]
Fields = tuple[Floats, Floats]


def smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Floats:
    """Noise of mean 0 and standard deviation 1, smooth in the last two axes."""
    sigmas = (0,) * (len(shape) - 2) + (sigma, sigma)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), sigmas)
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float64)


def blobs(rng: np.random.Generator, size: int) -> Floats:
    """Logits with some two thirds of the image in the foreground."""
    return 4 * smooth(rng, (size, size), rng.uniform(6, 25)) + rng.uniform(0, 3)


def noise(rng: np.random.Generator, size: int) -> Fields:
    flow = smooth(rng, (2, size, size), np.exp(rng.uniform(np.log(1.5), np.log(20))))
    return flow * np.exp(rng.uniform(np.log(0.2), np.log(4))), blobs(rng, size)


def cells(rng: np.random.Generator, size: int) -> Fields:
    """Flows of cells at a tenth of their length and more, under noise."""
    n_cells = int(size**2 / np.exp(rng.uniform(np.log(150), np.log(5000))))
    field = inputs.generated((size, size), max(4, n_cells), int(rng.integers(2**31)))
    flow = field.flow * rng.uniform(0.1, 1.0)
    return flow + rng.uniform(0, 0.5) * smooth(rng, flow.shape, 3), field.cellprob


def valleys(rng: np.random.Generator, size: int) -> Fields:
    """Strong flow onto lines, and a weak one along them; half of the lines run along an axis."""
    y, x = np.mgrid[:size, :size].astype(float)
    angle = rng.uniform(0, np.pi) if rng.random() < 0.5 else rng.integers(2) * np.pi / 2
    bend = rng.uniform(0, 6) * smooth(rng, (size, size), rng.uniform(15, 50))
    across = np.cos(angle) * y + np.sin(angle) * x + bend
    along = np.cos(angle) * x - np.sin(angle) * y
    onto = -rng.uniform(1, 5) * np.sin(2 * np.pi * across / rng.uniform(12, 70))
    drift = np.exp(rng.uniform(np.log(0.02), np.log(2)))
    forward = drift * np.sin(2 * np.pi * along / rng.uniform(30, 500))
    flow = [np.cos(angle) * onto - np.sin(angle) * forward]
    flow += [np.sin(angle) * onto + np.cos(angle) * forward]
    return np.stack(flow) + rng.uniform(0, 0.3) * smooth(rng, (2, size, size), 4), blobs(rng, size)


def curls(rng: np.random.Generator, size: int) -> Fields:
    """Flow around centres, and a little towards or away from them."""
    height = smooth(rng, (size, size), rng.uniform(4, 25))
    dy, dx = np.gradient(height)
    inward = rng.uniform(-0.1, 0.4)
    flow = np.stack([dx + inward * dy, -dy + inward * dx])
    return flow / flow.std() * rng.uniform(0.3, 4), blobs(rng, size)


def borders(rng: np.random.Generator, size: int) -> Fields:
    """Flow that leaves the image, or the foreground."""
    angle = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(0.3, 4) * np.array([np.sin(angle), np.cos(angle)])[:, None, None]
    return away + rng.uniform(0, 1) * smooth(rng, (2, size, size), 6), blobs(rng, size)


def ensembles(rng: np.random.Generator, size: int) -> Fields:
    """The mean of members that see the cells elsewhere, which shrinks the flow."""
    n_cells = int(size**2 / np.exp(rng.uniform(np.log(300), np.log(5000))))
    field = inputs.generated((size, size), max(4, n_cells), int(rng.integers(2**31)))
    reach = rng.uniform(1, 0.5 * np.sqrt(size**2 / max(4, n_cells)))
    flow, cellprob = np.zeros((2, size, size)), np.zeros((size, size))
    y, x = np.mgrid[:size, :size]
    members = int(rng.integers(2, 7))
    for _ in range(members):
        at = np.stack([y, x]) + reach * smooth(rng, (2, size, size), 20)
        flow += [ndimage.map_coordinates(part, at, order=1) / members for part in field.flow]
        cellprob += ndimage.map_coordinates(field.cellprob, at, order=1) / members
    return flow, cellprob


KINDS = (noise, cells, valleys, curls, borders, ensembles)


def generated(count: int, size: int) -> Iterator[tuple[str, Fields]]:
    for kind in KINDS:
        for seed in range(count):
            yield kind.__name__, kind(np.random.default_rng([seed, len(kind.__name__)]), size)


def kept(paths: list[Path]) -> Iterator[tuple[str, Fields]]:
    """Named by what stands before the first underscore."""
    for path in sorted(paths):
        with np.load(path, allow_pickle=False) as file:
            yield path.stem.partition("_")[0], (file["flow"], file["cellprob"])


def real(count: int) -> Iterator[tuple[str, Fields]]:
    """A trained U-Net on real images as they are, and changed so that it no longer knows what it sees."""
    import torch

    from cellflow.io.images import read_image
    from cellflow.nn.checkpoint import load_model_file
    from cellflow.nn.forward import image_to_flows
    from cellflow.numeric.normalize import normalize_percentile

    net = load_model_file(inputs.SHARED / "models" / "usiigaci_unet").net
    usual = 30 / 53.9  # diam_mean / diam_labels of the file
    rng = np.random.default_rng(0)
    for path in sorted((inputs.SHARED / "data" / "usiigaci" / "images").glob("*.png"))[:count]:
        image = normalize_percentile(read_image(path)[None].astype(np.float32))[0]
        noisy = image + rng.normal(0, 0.25, image.shape)
        changed: dict[str, tuple[Any, float]] = {
            "as it is": (image, usual), "half the size": (image, usual / 2), "noise": (noisy, usual),
            "blurred": (ndimage.gaussian_filter(image, 2), usual), "inverted": (1 - image, usual),
        }  # fmt: skip
        for name, (pixels, rescale) in changed.items():
            both = np.stack([pixels, np.zeros_like(pixels)]).astype(np.float32)
            with torch.inference_mode():
                found = image_to_flows(net, both, rescale=rescale)
            yield name, (found.flow, found.cellprob)


def of_nothing(ours: Any, theirs: Any, candidates: Any) -> tuple[int, int]:
    """Labels that the other method hardly touches: without, and with a candidate of its own there."""
    found = [0, 0]
    areas = np.bincount(candidates.ravel())
    for number, place in enumerate(ndimage.find_objects(ours), start=1):
        mine = ours[place] == number
        if (theirs[place][mine] > 0).mean() >= 0.1:
            continue
        below = np.bincount(candidates[place][mine], minlength=len(areas))
        below[0] = 0
        shared = below[best := int(below.argmax())]
        found[int(shared and shared >= 0.5 * (mine.sum() + areas[best] - shared))] += 1
    return found[0], found[1]


def compare(flow: Any, cellprob: Any) -> Any:
    """One row of counts and seconds, see `main`."""
    flow, cellprob = np.asarray(flow, dtype=np.float32), np.asarray(cellprob, dtype=np.float32)
    both, seconds = {}, {}
    for method in ("basin", "trace"):
        begin = time.process_time()
        both[method] = flows_to_labels(flow, cellprob, method=method, check_scale=False)
        seconds[method] = time.process_time() - begin
    basin, trace = both["basin"], both["trace"]
    raw = [
        flows_to_labels(flow, cellprob, method=m, check_scale=False, flow_threshold=None)
        for m in both
    ]
    score = average_precision(trace, basin, [0.95])
    return np.array([
        1, cellprob.size / 1e6, trace.max(), basin.max(), *of_nothing(basin, trace, raw[1]),
        *of_nothing(trace, basin, raw[0]), score.tp.sum(), (score.tp + score.fp + score.fn).sum(),
        seconds["basin"], seconds["trace"],
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=40, help="generated, of each kind")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--real", type=int, metavar="IMAGES")
    parser.add_argument("--flows", type=Path, nargs="+")
    options = parser.parse_args()
    fields = generated(options.images, options.size)
    if options.flows:
        fields = kept(options.flows)
    elif options.real:
        fields = real(options.real)
    compare(*noise(np.random.default_rng(0), 64))  # compiles
    rows: dict[str, Any] = collections.defaultdict(float)
    for kind, (flow, cellprob) in fields:
        row = compare(flow, cellprob)
        rows[kind] += row
        rows["**all**"] = rows["**all**"] + row
    head = ["flows", "images", "labels of trace", "of basin", "of nothing", "per megapixel"]
    head += ["at the threshold", "lost", "at the threshold", "AP at IoU 0.95", "basin / trace, cpu"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    rows["**all**"] = rows.pop("**all**")
    for kind, r in rows.items():
        print(
            f"| {kind} | {r[0]:.0f} | {r[2]:.0f} | {r[3]:.0f} | {r[4]:.0f} | {r[4] / r[1]:.3f} | {r[5]:.0f}"
            f" | {r[6]:.0f} | {r[7]:.0f} | {r[8] / max(r[9], 1):.4f} | {r[10] / r[11]:.2f} |"
        )


if __name__ == "__main__":
    main()
