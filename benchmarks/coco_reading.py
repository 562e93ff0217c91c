"""Time and memory that a COCO file of LIVECell's size takes: 3,253 images of 520 x 704, a million polygons.

    python benchmarks/coco_reading.py [--images 3253] [--file FILE]
    python benchmarks/coco_reading.py --labels

Writes a file of that shape, with 307 polygons of 30 points an image (coordinates with four decimals), unless
FILE is there; then reads it in a process of its own as truth, all cells down to their runs, and prints time
and peak memory of that process. The images themselves are not there and not needed: the file says how large
they are. With `--labels` the label maps of `../shared/data` are written as `--export coco` writes them and read
back, each of them: how many cells are polygons, how many run lengths, and how many do not come back to the pixel.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import numpy as np

HEIGHT, WIDTH, CELLS, POINTS = 520, 704, 307, 30


def write_image(file: TextIO, image: int, rng: np.random.Generator) -> None:
    """The annotations of one image."""
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    centre = rng.uniform((8, 8), (WIDTH - 8, HEIGHT - 8), (CELLS, 2))
    radius = rng.uniform(5, 14, (CELLS, 1)) * rng.uniform(0.8, 1.2, (CELLS, POINTS))
    turn = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    points = np.clip(centre[:, None] + radius[..., None] * turn, 0, (WIDTH, HEIGHT)).round(4)
    for cell, polygon in enumerate(points):
        x, y = polygon.min(axis=0).tolist()
        entry = {
            "id": image * CELLS + cell + 1, "image_id": image, "category_id": 1,
            "segmentation": [polygon.reshape(-1).tolist()], "area": 300.0,
            "bbox": [x, y, 20.0, 20.0], "iscrowd": 0,
        }  # fmt: skip
        file.write((", " if image or cell else "") + json.dumps(entry))


def write_table(path: Path, images: int) -> None:
    """A file of annotations with its sections in LIVECell's order."""
    rng = np.random.default_rng(0)
    shown = [
        {"id": i, "file_name": f"A172_Phase_{i}.tif", "height": HEIGHT, "width": WIDTH}
        for i in range(images)
    ]
    with path.open("w", encoding="utf-8") as file:
        file.write(
            f'{{"info": {{}}, "licenses": [], "images": {json.dumps(shown)}, "annotations": ['
        )
        for image in range(images):
            write_image(file, image, rng)
        file.write('], "categories": [{"id": 1, "name": "cell"}]}')


def read_table(path: Path) -> None:
    """Read all of it, in this process, and print what that took."""
    from cellflow.io.formats import ReadOptions, read_source

    begin = time.perf_counter()
    source = read_source(path, ReadOptions("truth"))
    read = time.perf_counter() - begin
    cells = sum(len(image.instances()) for image in source.images.values())
    decoded = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{path.stat().st_size / 1e6:.0f} MB, {len(source.images)} images, {cells} cells")
    print(
        f"read {read:.1f} s, with all cells as runs {decoded:.1f} s, peak memory {memory:.2f} GiB"
    )


def write_and_read(folders: list[Path]) -> None:
    """Label maps to COCO and back."""
    from cellflow.io.formats import ReadOptions, read_source
    from cellflow.io.formats.coco import cells_of_labels, write_coco
    from cellflow.io.images import list_images, read_masks
    from cellflow.numeric.labels import compact

    images = []
    maps = {
        f"{path.parent.parent.name} {path.stem}": path
        for folder in folders
        for path in list_images(folder)
    }
    for name, path in maps.items():
        labels, count = compact(read_masks(path))
        cells = cells_of_labels(labels, dict.fromkeys(range(1, count + 1), 1.0))
        height, width = labels.shape
        known = {"id": name, "file_name": path.name, "height": height, "width": width}
        images.append({**known, "cell_type": "", "cells": cells})
    cells = [cell for image in images for cell in image["cells"]]
    with TemporaryDirectory() as folder:
        write_coco(Path(folder, "coco.json"), Path(folder, "coco_results.json"), lambda: images)
        source = read_source(Path(folder, "coco.json"), ReadOptions("prediction"))
        changed = 0
        for name, path in maps.items():
            labels = compact(read_masks(path))[0]
            back = source.images[name].labels(labels.shape)
            changed += len(
                np.unique(np.concatenate([labels[labels != back], back[labels != back]]))
            )
    polygons = sum(isinstance(cell["segmentation"], list) for cell in cells)
    print(
        f"{len(maps)} label maps, {len(cells)} cells: {polygons} polygons, {len(cells) - polygons} run lengths"
    )
    print(f"cells that do not come back to the pixel: {changed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3253)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--read", action="store_true", help="only read FILE, in this process")
    parser.add_argument("--labels", action="store_true")
    given = parser.parse_args()
    if given.labels:
        shared = Path(__file__).resolve().parents[2] / "shared" / "data"
        write_and_read([shared / "usiigaci" / "masks", shared / "dsb2018" / "masks"])
        return
    if given.read:
        read_table(given.file)
        return
    with TemporaryDirectory() as folder:
        file = given.file or Path(folder, "annotations.json")
        if not file.exists():
            write_table(file, given.images)
        subprocess.run([sys.executable, __file__, "--read", "--file", str(file)], check=True)


if __name__ == "__main__":
    main()
