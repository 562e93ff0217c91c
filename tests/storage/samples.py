"""A small valid file of every kind that people bring: images, OME-Zarr, label maps, tables, outlines, flows."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import zarr_files
from PIL import Image

from cellflow.io.formats.geojson import write_geojson
from cellflow.io.formats.imagej_rois import write_rois
from cellflow.io.formats.seg_npy import write_seg_npy
from cellflow.io.formats.submission import write_submission
from cellflow.io.images import write_labels
from cellflow.io.pixel_size import PixelSize
from cellflow.numeric.rle import rles_from_labels

Make = Callable[[Path], Path]
SHAPE = (40, 50)
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60_000, SHAPE, dtype=np.uint16)
SMOOTH = np.add.outer(3 * np.arange(40), np.arange(50)).astype(np.uint8)
RGB = np.dstack([SMOOTH, SMOOTH[::-1], 255 - SMOOTH])
LABELS = np.zeros(SHAPE, np.int32)
for _number, (_row, _column) in enumerate([(3, 4), (5, 30), (22, 8), (24, 33)], 1):
    LABELS[_row : _row + 12, _column : _column + 13] = _number
LABELS[27:30, 36:40] = 0
"""Four cells, one with a hole."""


# ------------------------------------------------------------------------------------------------- images


def file_of(name: str, data: Callable[[], bytes], folder: Path) -> Path:
    path = folder / name
    path.write_bytes(data())
    return path


def picture(name: str, pixels: Any, folder: Path, **options: Any) -> Path:
    path = folder / name
    Image.fromarray(pixels).save(path, **options)
    return path


def tiff(name: str, pixels: Any, options: dict[str, Any], folder: Path) -> Path:
    tifffile.imwrite(folder / name, pixels, **options)
    return folder / name


def image(folder: Path, name: str = "a.png") -> None:
    (folder / name).write_bytes(imagecodecs.png_encode(GREY))


def palette(folder: Path) -> Path:
    picture = Image.fromarray(LABELS.astype(np.uint8))
    picture.putpalette([value for number in range(5) for value in (50 * number, 0, 0)])
    picture.save(folder / "a.png")
    return folder / "a.png"


_EXIF = Image.Exif()
_EXIF[274] = 6
_JPX = {"codecformat": "jp2"}
IMAGES: dict[str, Make] = {
    "PNG, grey": partial(file_of, "a.png", partial(imagecodecs.png_encode, GREY)),
    "PNG, RGB": partial(file_of, "a.png", partial(imagecodecs.png_encode, RGB)),
    "PNG, palette": palette,
    "JPEG, EXIF": partial(picture, "a.jpg", RGB, exif=_EXIF),
    "BMP": partial(file_of, "a.bmp", partial(imagecodecs.bmp_encode, RGB)),
    "WebP, lossless": partial(picture, "a.webp", RGB, lossless=True),
    "WebP, lossy": partial(picture, "a.webp", RGB, quality=90),
    "JPEG 2000": partial(file_of, "a.jp2", partial(imagecodecs.jpeg2k_encode, RGB, **_JPX)),
}
TIFFS: dict[str, tuple[Any, dict[str, Any]]] = {
    "strips": (GREY, {"rowsperstrip": 7}),
    "strips, LZW, BigTIFF": (RGB, {"photometric": "rgb", "rowsperstrip": 9, "compression": "lzw", "bigtiff": True}),
    "tiles, deflate": (GREY, {"tile": (16, 16), "compression": "zlib", "predictor": 2}),
    "tiles, JPEG": (RGB, {"photometric": "rgb", "tile": (32, 32), "compression": "jpeg"}),
    "tiles, JPEG 2000": (RGB, {"photometric": "rgb", "tile": (32, 32), "compression": "jpeg2000"}),
    "zstd, float": (GREY.astype(np.float32), {"tile": (16, 16), "compression": "zstd", "predictor": 3}),
    "OME": (np.stack([GREY] * 3), {"photometric": "minisblack", "ome": True, "compression": "zlib",
                                   "metadata": {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5,
                                                "Channel": {"Name": ["a", "b", "c"]}}}),
    "ImageJ": (np.stack([GREY] * 2), {"imagej": True, "resolution": (2.0, 2.0),
                                      "metadata": {"axes": "CYX", "unit": "um", "Labels": ["a", "b"]}}),
    "palette": (SMOOTH, {"photometric": "palette", "colormap": RNG.integers(0, 2**16, (3, 256), dtype=np.uint16)}),
}  # fmt: skip
SHARDS = {"shards": (2, 32, 64), "chunks": (1, 32, 32)}
ZARR_METADATA = {"0.5": "**/zarr.json", "0.4": "**/.z*"}


def zarr(version: str, folder: Path, **options: Any) -> Path:
    pixels = np.stack([GREY, GREY[::-1]])
    names, labels = ("a", "b"), {"cells": LABELS.astype(np.uint16)}
    options = {"chunks": (2, 32, 32)} | options  # few, so that cases take little time
    return zarr_files.write_image(
        folder / "a.zarr", pixels, version=version, names=names, labels=labels, levels=1, **options
    )


# ------------------------------------------------------------------------------ cells, as others keep them


def labels(name: str, folder: Path) -> Path:
    write_labels(folder / name, LABELS, PixelSize(0.5, 0.5))
    return folder / name


def kaggle(name: str, folder: Path) -> Path:
    """``train.csv`` and ``train/``, plain or packed."""
    (folder / "train").mkdir()
    image(folder / "train")
    image(folder / "train", "b.png")
    lines = ["id,annotation,width,height,cell_type"]
    lines += [f"a,{rle},50,40,astro" for rle in rles_from_labels(LABELS)]
    text = "\n".join([*lines, "b,,50,40,cort", ""]).encode()
    path = folder / name
    path.write_bytes(gzip.compress(text, mtime=0) if name.endswith("gz") else text)
    return path


def submission(folder: Path) -> Path:
    write_submission(folder / "submission.csv", [("a", rles_from_labels(LABELS)), ("b", [])])
    return folder / "submission.csv"


def _packed(cell: int) -> dict[str, Any]:
    from pycocotools import mask

    found = mask.encode(np.asfortranarray(cell == LABELS).astype(np.uint8))
    return {"size": list(SHAPE), "counts": found["counts"].decode()}


def coco(folder: Path) -> Path:
    """An outline, runs in the three ways of COCO, and a crowd."""
    image(folder)
    square = [[4.0, 3.0, 17.0, 3.0, 17.0, 15.0, 4.0, 15.0]]
    counts = {"size": list(SHAPE), "counts": [1000, 12, 28, 12, 948]}
    found = [(square, 0), (_packed(2), 0), (counts, 0), (_packed(4), 1)]
    cells = [
        {"id": at, "image_id": 1, "category_id": 1, "segmentation": segmentation, "iscrowd": crowd,
         "area": 9, "bbox": [0, 0, 3, 3]}
        for at, (segmentation, crowd) in enumerate(found, 1)
    ]  # fmt: skip
    listed = {"id": 1, "file_name": "a.png", "height": 40, "width": 50}
    content = {
        "images": [listed],
        "annotations": cells,
        "categories": [{"id": 1, "name": "cell"}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def coco_results(folder: Path) -> Path:
    (folder / "truth").mkdir()
    coco(folder / "truth")
    rows = [
        {"image_id": 1, "category_id": 1, "segmentation": _packed(cell), "score": 0.5}
        for cell in (1, 2)
    ]
    path = folder / "results.json"
    path.write_text(json.dumps(rows))
    return path


def geojson(folder: Path) -> Path:
    image(folder)
    path = folder / "a.geojson"
    write_geojson(path, LABELS, "a", cell_type="x", measurements={1: {"area": 3.0}})
    content = json.loads(path.read_text())
    region = {"objectType": "annotation", "name": "region"}
    shape = {"type": "Polygon", "coordinates": [[[0, 0], [30, 0], [30, 20], [0, 20], [0, 0]]]}
    content["features"].append({"type": "Feature", "geometry": shape, "properties": region})
    path.write_text(json.dumps(content))
    return path


def rois(folder: Path) -> Path:
    image(folder)
    write_rois(folder / "a_rois.zip", LABELS)
    return folder / "a_rois.zip"


def roi(kind: str, folder: Path) -> Path:
    """One ROI beside its image: traced, composite, an oval, or a polygon with sub-pixel corners and a spline."""
    from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

    if kind in ("traced", "composite"):
        with zipfile.ZipFile(rois(folder)) as archive:
            data = archive.read("1.roi" if kind == "traced" else "4.roi")
        (folder / "a_rois.zip").unlink()
        return file_of("a.roi", lambda: data, folder)
    image(folder)
    roi = ImagejRoi.frompoints(np.array([[3.5, 4.2], [20.1, 5.0], [18.0, 30.5], [4.0, 22.0]]))
    if kind == "oval":
        roi.roitype = ROI_TYPE.OVAL
        roi.top, roi.left, roi.bottom, roi.right = 3, 4, 30, 28
    else:
        roi.roitype, roi.options = ROI_TYPE.POLYGON, roi.options | ROI_OPTIONS.SPLINE_FIT
    return file_of("a.roi", roi.tobytes, folder)


def seg(folder: Path) -> Path:
    image(folder)
    field = np.zeros((1, *SHAPE), np.float32)
    picture = np.zeros((1, *SHAPE, 3), np.uint8)
    flows = [picture, picture[..., 0], np.stack([field, field], 1), field, np.zeros((3, *SHAPE))]
    write_seg_npy(folder / "a_seg.npy", LABELS, image=folder / "a.png", flows=flows)
    return folder / "a_seg.npy"


def fields() -> tuple[Any, Any]:
    angle = RNG.uniform(0, 6, SHAPE)
    flow = np.stack([np.sin(angle), np.cos(angle)]).astype(np.float32) * 5
    return flow, RNG.normal(size=SHAPE).astype(np.float32)


def npz(save: Callable[..., None], folder: Path) -> Path:
    flow, cellprob = fields()
    buffer = io.BytesIO()
    save(buffer, flow=flow, cellprob=cellprob, scale=5.0)
    return file_of("a.npz", buffer.getvalue, folder)
