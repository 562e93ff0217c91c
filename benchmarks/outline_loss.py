"""What forms of outlines lose of label maps: cells and pixels, written and read back.

    python benchmarks/outline_loss.py [FOLDER OF LABEL MAPS ...]

Without folders: the label maps of `../shared/data`. A text is read as Cellpose's macro for ImageJ reads it, a
polygon a line. Cellpose's own files are those of `cellpose.io.save_rois` and `outlines_to_text`.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from roifile import roiread

from cellflow.io.formats.geojson import read_geojson, write_geojson
from cellflow.io.formats.imagej_rois import read_rois, write_rois
from cellflow.io.formats.text_outlines import write_text_outlines
from cellflow.io.found_outlines import FoundOutlines
from cellflow.io.images import list_images, read_masks
from cellflow.io.shapes import closed, instances_from_outlines
from cellflow.numeric.labels import compact
from cellflow.types import Instances

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
Labels = np.ndarray
Way = Callable[[Path, Labels], FoundOutlines]


def rois(folder: Path, labels: Labels) -> FoundOutlines:
    write_rois(folder / "x_rois.zip", labels)
    return read_rois(folder / "x_rois.zip")


def geojson(folder: Path, labels: Labels) -> FoundOutlines:
    write_geojson(folder / "x.geojson", labels, "x")
    return read_geojson(folder / "x.geojson")


def text(folder: Path, labels: Labels) -> FoundOutlines:
    write_text_outlines(folder / "x_cp_outlines.txt", labels)
    return read_text(folder / "x_cp_outlines.txt")


def rois_of_cellpose(folder: Path, labels: Labels) -> FoundOutlines:
    from cellpose import io

    io.save_rois(labels, str(folder / "c.tif"), multiprocessing=False)
    return read_rois(folder / "c_rois.zip")


def rois_of_cellpose_in_fiji(folder: Path, labels: Labels) -> FoundOutlines:
    """As ImageJ fills them, which was compared with ImageJ itself (`tests/io/test_imagej_rois.py`)."""
    rois_of_cellpose(folder, labels)
    found = FoundOutlines()
    for roi in roiread(folder / "c_rois.zip"):
        found.add(roi.name, [[closed(roi.coordinates())]])
    return found


def text_of_cellpose(folder: Path, labels: Labels) -> FoundOutlines:
    from cellpose import io, utils

    io.outlines_to_text(str(folder / "c"), utils.outlines_list(labels, multiprocessing=False))
    return read_text(folder / "c_cp_outlines.txt")


def read_text(path: Path) -> FoundOutlines:
    found = FoundOutlines()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        corners = np.array(line.split(",") if line else [], dtype=float).reshape(-1, 2)
        found.add(str(number), [[closed(corners)]])
    return found


WAYS: dict[str, Way] = {
    "--export roi": rois,
    "--export geojson": geojson,
    "--export txt": text,
    "Cellpose's ROIs": rois_of_cellpose,
    "the same in Fiji": rois_of_cellpose_in_fiji,
    "Cellpose's text": text_of_cellpose,
}


def pixels(cells: Instances) -> list[set[int]]:
    return [
        {at for start, length in zip(*runs, strict=True) for at in range(start, start + length)}
        for runs in cells
    ]


def compare(labels: Labels, back: Instances) -> np.ndarray:
    """Cells gone, cells changed, pixels lost, pixels gained, and those of all cells; each cell against the one
    that has most of its pixels."""
    flat = labels.ravel()
    sums = np.zeros(5, dtype=np.int64)
    found: dict[int, set[int]] = {}
    for own in filter(None, pixels(back)):
        numbers = np.bincount(flat[list(own)])
        numbers[0] = 0
        found[int(numbers.argmax())] = own
    order = np.argsort(flat, kind="stable")
    ends = np.searchsorted(flat[order], np.arange(1, flat.max() + 2))
    for number in range(1, int(flat.max()) + 1):
        true = set(order[ends[number - 1] : ends[number]].tolist())
        own = found.get(number, set())
        sums += (not own, bool(own) and own != true, len(true - own), len(own - true), len(true))
    return sums


def main(folders: list[Path]) -> None:
    logging.disable(logging.WARNING)
    folders = folders or [SHARED / "usiigaci" / "masks", SHARED / "dsb2018" / "masks"]
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(5, dtype=np.int64))
    maps = cells = 0
    with tempfile.TemporaryDirectory() as place:
        for path in (path for folder in folders for path in list_images(folder)):
            labels, count = compact(read_masks(path))
            maps, cells = maps + 1, cells + count
            for name, way in WAYS.items():
                back = instances_from_outlines(way(Path(place), labels).cells, labels.shape)
                totals[name] += compare(labels, back)
    print(f"{maps} label maps, {cells} cells")
    print(f"{'':18}{'cells gone':>11}{'changed':>9}{'pixels lost':>13}{'gained':>9}")
    for name, (gone, changed, lost, gained, size) in totals.items():
        shares = f"{lost / size:>12.3%}{gained / size:>10.3%}"
        print(f"{name:18}{gone:>11}{changed:>9}{shares}")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
