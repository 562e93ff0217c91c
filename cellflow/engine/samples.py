"""Training samples on disk: normalised images and flow targets, computed once, read by memory map."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.nn.dataset import Sample
from cellflow.numeric.labels import labels_from_instances, median_diameter
from cellflow.numeric.normalize import normalize_percentile, select_channels
from cellflow.numeric.targets import labels_to_flows
from cellflow.storage.atomic import atomic_path
from cellflow.storage.hashing import hash_array, hash_file, hash_json

__all__ = ["MIN_DIAMETER", "CachedSamples", "cache_samples"]

MIN_DIAMETER = 5.0
"""Smaller median diameters count as this, as in Cellpose; so do images without cells."""

_VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedSamples:
    """Samples read from files by memory map: memory stays flat however many images there are.

    Attributes
    ----------
    ids : tuple of str
        Image of each sample.
    images, targets : tuple of Path
        ``.npy`` files with the image ``(1 or 2, H, W)`` and the target ``(3, H, W)``, float32.
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
        """Sample of an index, memory-mapped."""
        image = np.load(self.images[index], mmap_mode="r")
        target = np.load(self.targets[index], mmap_mode="r")
        return Sample(image, target, self.diameters[index])


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
    """
    folder = _cache_folder(dataset.path)
    images, targets, diameters = [], [], []
    for name in tqdm(ids, desc="flow targets", unit="image", disable=None, leave=False):
        file_hash = hash_file(dataset.path / "images" / str(dataset.images.loc[name, "file"]))
        image_path = folder / f"{hash_json(['image', _VERSION, file_hash, chan, chan2])}.npy"
        if not image_path.exists():
            _save(image_path, _image(dataset, name, chan, chan2))
        labels = dataset.labels(name)
        target_path = folder / f"{hash_json(['target', _VERSION, hash_array(labels)])}.npy"
        if not target_path.exists():
            _save(target_path, _target(dataset, name, labels))
        images.append(image_path)
        targets.append(target_path)
        diameters.append(max(MIN_DIAMETER, median_diameter(labels)))
    return CachedSamples(tuple(ids), tuple(images), tuple(targets), tuple(diameters))


def _image(dataset: Dataset, name: str, chan: int, chan2: int) -> NDArray[np.float32]:
    pixels = dataset.image(name)
    if hash_array(pixels) != dataset.images.loc[name, "pixel_hash"]:
        raise DataError(_changed(dataset, f"the image {name!r}"))
    image = normalize_percentile(select_channels(pixels, chan, chan2))
    return image if image[1].any() else image[:1]


def _target(dataset: Dataset, name: str, labels: NDArray[np.int32]) -> NDArray[np.float32]:
    if not np.array_equal(labels, labels_from_instances(dataset.instances(name))):
        raise DataError(_changed(dataset, f"the label map of {name!r}"))
    return np.concatenate([labels[np.newaxis].astype(np.float32), labels_to_flows(labels)])


def _changed(dataset: Dataset, what: str) -> str:
    return (
        f"{dataset.path}: {what} is not what `cellflow prepare` wrote. Change the source instead, and "
        "prepare it again."
    )


def _save(path: Path, array: NDArray[np.float32]) -> None:
    # Through memory, because numpy's own error for a full disk says neither that nor where.
    buffer = io.BytesIO()
    np.save(buffer, array)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _cache_folder(data: Path) -> Path:
    """Folder for cached samples: in the dataset folder, or a temporary one when that is read-only."""
    folder = data / "cache"
    try:
        folder.mkdir(exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if writable:
        return folder
    folder = Path(tempfile.gettempdir()) / "cellflow-cache"
    folder.mkdir(exist_ok=True)
    _log.info("%s is read-only; flow targets are kept in %s", data, folder)
    return folder
