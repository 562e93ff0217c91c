"""Training samples on disk: normalised images and flow targets, computed once, read by memory map."""

from __future__ import annotations

import getpass
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from cellflow.engine.runtime.progress_lines import follow
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.nn.dataset import Sample
from cellflow.numeric.dynamics import FLOW_SCALE
from cellflow.numeric.labels import labels_from_instances, median_diameter
from cellflow.numeric.normalize import network_channels
from cellflow.numeric.targets import labels_to_flows
from cellflow.storage.arrays import map_array
from cellflow.storage.atomic import atomic_path, remove_leftovers
from cellflow.storage.hashing import hash_array, hash_file, hash_json

__all__ = [
    "MIN_DIAMETER",
    "Cached",
    "CachedSamples",
    "cache_all",
    "cache_array",
    "cache_folder",
    "cache_samples",
    "field_target",
    "label_target",
    "network_image",
    "stored_diameter",
]

MIN_DIAMETER = 5.0
"""Smaller median diameters count as this, as in Cellpose; so do images without cells."""
MAX_THREADS = 4
"""Images that are worked on at once, at most: each takes some 20 bytes a pixel."""

_VERSION = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedSamples:
    """Samples read from files by memory map: memory stays flat however many images there are.

    Attributes
    ----------
    ids : tuple of str
        Image of each sample.
    images : tuple of Path
        ``.npy`` files with the image ``(1 or 2, H, W)``, float32.
    targets : tuple of Path
        ``.npy`` files with one structure: `labels` ``(H, W)``, the unit `flow` ``(2, n)`` of the pixels in
        cells, and the median `diameter`; where not all pixels count also `ignored`, ``(H, W)`` bool. What a network
        has put out has `field` ``(3, H, W)`` float16 instead: flow and logit.
    diameters : tuple of float
        Median cell diameter of each image in pixels.
    """

    ids: tuple[str, ...]
    images: tuple[Path, ...]
    targets: tuple[Path, ...]
    diameters: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, index: int) -> Sample:
        """Sample of an index; the image is memory-mapped."""
        image = map_array(self.images[index])
        stored, diameter = map_array(self.targets[index]), self.diameters[index]
        names = stored.dtype.names or ()
        if "field" in names:
            return Sample(image, _unpack_field(stored["field"][0]), diameter, is_soft=True)
        ignored = stored["ignored"][0] if "ignored" in names else None
        return Sample(image, _unpack(stored), diameter, ignored)

    def __add__(self, others: CachedSamples) -> CachedSamples:
        """These, and then others."""
        return CachedSamples(
            self.ids + others.ids, self.images + others.images,
            self.targets + others.targets, self.diameters + others.diameters,
        )  # fmt: skip


def cache_samples(dataset: Dataset, ids: list[str], *, chan: int, chan2: int) -> CachedSamples:
    """Compute what is missing in the cache and return the samples.

    File names are hashes of content and recipe, so a changed image or mask is never served from an
    old file. Images and label maps that were changed after `cellflow prepare` are refused.

    Parameters
    ----------
    dataset : Dataset
        Where images and labels come from.
    ids : list of str
        Images, in the order of the samples.
    chan, chan2 : int
        Channels as in Cellpose.

    Raises
    ------
    DataError
        If an image or a label map is missing, damaged or not what was prepared; the first such in the
        order of `ids`.

    Notes
    -----
    A pixel takes 6 bytes, 4 more with a second channel and 8 more inside a cell: 2.9 MB for 520 x 704
    pixels of which a quarter is cells. Whatever ends the work, files that are there are whole, and the
    next call goes on.
    """
    dataset.images.index.get_indexer(
        pd.Index(ids)
    )  # fills its table of ids; threads then only read
    return cache_all(ids, partial(_cached, dataset, cache_folder(dataset.path), chan, chan2))


def cache_all(ids: list[str], make: Callable[[str], Cached]) -> CachedSamples:
    """Samples of images, each made by a function that is called in threads and gives its files."""
    with _threads() as pool:
        made = pool.map(make, ids)
        files = list(follow(made, "flow targets", len(ids), brief=True))
    return CachedSamples(
        tuple(ids),
        tuple(item.image for item in files),
        tuple(item.target for item in files),
        tuple(max(MIN_DIAMETER, item.diameter) for item in files),
    )


class Cached(NamedTuple):
    """The two files of an image and its median diameter in pixels."""

    image: Path
    target: Path
    diameter: float


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that drop what they have not begun when the work ends early."""
    count = min(MAX_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(count, thread_name_prefix="cellflow-samples")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _cached(dataset: Dataset, folder: Path, chan: int, chan2: int, name: str) -> Cached:
    """Files of one image; made if they are not there."""
    pixels_hash = _hash(dataset.path / "images" / str(dataset.images.at[name, "file"]))
    labels_hash = _hash(dataset.path / "labels" / f"{name}.tif")
    image = cache_array(
        folder,
        ["image", _VERSION, pixels_hash, chan, chan2],
        partial(_image, dataset, name, chan, chan2),
    )
    target = cache_array(folder, ["target", _VERSION, labels_hash], partial(_target, dataset, name))
    return Cached(image, target, stored_diameter(target))


def cache_array(folder: Path, key: list[Any], make: Callable[[], NDArray[Any]]) -> Path:
    """File of an array by what it is made of, JSON types; made if it is not there."""
    path = folder / f"{hash_json(key)}.npy"
    if _open(path) is None:
        _save(path, make())
    return path


def stored_diameter(target: Path) -> float:
    """Median diameter in pixels that stands in a target."""
    return float(map_array(target)["diameter"][0])


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read ({reason}). Prepare the dataset again.") from error


def _image(dataset: Dataset, name: str, chan: int, chan2: int) -> NDArray[np.float32]:
    pixels = dataset.image(name)
    if hash_array(pixels) != dataset.images.at[name, "pixel_hash"]:
        raise DataError(_changed(dataset, f"the image {name!r}"))
    return network_image(pixels, chan, chan2)


def network_image(pixels: NDArray[Any], chan: int, chan2: int) -> NDArray[np.float32]:
    """The channels that the network gets, normalised; a second one that is empty is left out."""
    image = network_channels(pixels, chan, chan2)
    return image if image[1].any() else image[:1]


def _target(dataset: Dataset, name: str) -> NDArray[np.void]:
    labels = dataset.labels(name)
    if not np.array_equal(labels, labels_from_instances(dataset.instances(name))):
        raise DataError(_changed(dataset, f"the label map of {name!r}"))
    return label_target(labels)


def label_target(
    labels: NDArray[np.int32], ignored: NDArray[np.bool_] | None = None
) -> NDArray[np.void]:
    """Target of labels as it is stored; outside of cells the flow is 0 and left out."""
    inside = labels > 0
    number = np.uint16 if labels.max(initial=0) < 2**16 else np.uint32
    fields = [
        ("flow", np.float32, (2, int(inside.sum()))),
        ("labels", number, labels.shape),
        ("diameter", np.float64),
        *([] if ignored is None else [("ignored", np.bool_, ignored.shape)]),
    ]
    target = np.empty(1, np.dtype(fields))
    if ignored is not None:
        target["ignored"] = ignored
    target["flow"] = labels_to_flows(labels)[:, inside]
    target["labels"] = labels
    target["diameter"] = median_diameter(labels)
    return target


def _unpack(stored: NDArray[np.void]) -> NDArray[np.float32]:
    """Target ``(3, H, W)`` of what is stored, to the bit as it was computed."""
    labels, flow = stored["labels"][0], stored["flow"][0]
    target = np.zeros((3, *labels.shape), dtype=np.float32)
    target[0] = labels
    inside = labels > 0
    target[1][inside], target[2][inside] = flow
    return target


def field_target(field: NDArray[np.float16], diameter: float) -> NDArray[np.void]:
    """Target of flow and logit ``(3, H, W)`` as it is stored."""
    fields = [("field", np.float16, field.shape), ("diameter", np.float64)]
    target = np.empty(1, np.dtype(fields))
    target["field"], target["diameter"] = field, diameter
    return target


def _unpack_field(field: NDArray[np.float16]) -> NDArray[np.float32]:
    """Target ``(3, H, W)`` of what a network has put out."""
    d_y, d_x, cellprob = field.astype(np.float32)
    return np.stack([expit(cellprob), d_y / FLOW_SCALE, d_x / FLOW_SCALE])


def _changed(dataset: Dataset, what: str) -> str:
    return (
        f"{dataset.path}: {what} is not what `cellflow prepare` wrote. Change the source instead, and "
        "prepare it again."
    )


def _open(path: Path) -> NDArray[Any] | None:
    """A cached array by memory map, or None where there is none, or none that is whole."""
    try:
        return map_array(path)
    except (OSError, ValueError, EOFError):
        return None


def _save(path: Path, array: NDArray[Any]) -> None:
    # By hand, because numpy's own error for a full disk says neither that nor where.
    header = np.lib.format.header_data_from_array_1_0(array)  # type: ignore[no-untyped-call]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def cache_folder(data: Path) -> Path:
    """Folder for cached samples: in the dataset folder, or a temporary one when that is read-only."""
    folder = data / "cache"
    try:
        folder.mkdir(exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if writable:
        remove_leftovers(folder)
        return folder
    folder = Path(tempfile.gettempdir()) / f"cellflow-cache-{_user()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    _log.info("%s is read-only; flow targets are kept in %s", data, folder)
    return folder


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        return str(os.getuid())
